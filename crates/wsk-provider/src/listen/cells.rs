//! Memory that is valid only during a callback: inspection identifiers and addresses.
//!
//! After the callback the contents are poisoned, and the memory is kept for a while: a client that kept the
//! pointer instead of a copy reads poison, and is detected when it passes it back (INSP-09, INSP-19, INSP-20,
//! INSP-22, INSP-23).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use wsk_sys::{PSOCKADDR, PWSK_INSPECT_ID, WSK_INSPECT_ID};

use crate::address::{Family, OwnSockaddr, Stale};

/// Number of cells that are kept.
const KEPT: usize = 64;

/// Contents of an identifier whose callback has returned.
const POISON: WSK_INSPECT_ID =
    WSK_INSPECT_ID { Key: usize::from_ne_bytes([0xDD; size_of::<usize>()]), SerialNumber: 0xDDDD_DDDD };

#[derive(Debug)]
struct Cell {
    id: WSK_INSPECT_ID,
    local: OwnSockaddr,
    remote: OwnSockaddr,
    stale: Stale,
}

impl Cell {
    fn poison(&mut self) {
        self.id = POISON;
        self.local.poison(self.stale);
        self.remote.poison(self.stale);
    }
}

#[derive(Debug, Default)]
struct Cells {
    /// Fill byte for the padding of the last issued identifier.
    padding: u8,
    issued: Vec<usize>,
    kept: VecDeque<Box<Cell>>,
}

/// The cells of one provider.
#[derive(Debug, Default)]
pub(crate) struct IdCells(Mutex<Cells>);

/// A cell that a callback may access; its contents are poisoned when the guard is dropped.
#[derive(Debug)]
pub(crate) struct CellGuard<'a> {
    cells: &'a IdCells,
    cell: Option<Box<Cell>>,
}

/// Offset of the padding of an identifier. There is padding only if pointers have 64 bits.
const PADDING: usize = std::mem::offset_of!(WSK_INSPECT_ID, SerialNumber) + size_of::<u32>();

/// Fills the padding of an identifier, with another value each time: a comparison of the memory of two
/// identifiers fails (INSP-27).
fn poison_padding(id: PWSK_INSPECT_ID) {
    static FILL: AtomicU8 = AtomicU8::new(0);
    let fill = FILL.fetch_add(1, Ordering::Relaxed);
    for offset in PADDING..size_of::<WSK_INSPECT_ID>() {
        // SAFETY: the identifier is a live cell's, and the offset lies inside it.
        unsafe { id.cast::<u8>().wrapping_add(offset).write(fill) };
    }
}

/// Origin of an identifier, derived from its pointer and contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Client memory with valid contents.
    Own,
    /// Client memory with a copy of a poisoned cell.
    StaleCopy,
    /// Provider memory.
    Borrowed,
}

impl IdCells {
    /// Issues a cell for an inspection.
    pub(crate) fn issue(
        &self,
        id: WSK_INSPECT_ID,
        local: SocketAddr,
        remote: SocketAddr,
        family: Family,
    ) -> CellGuard<'_> {
        self.issue_as(Stale::Inspection, id, local, remote, family)
    }

    /// Issues a cell for a callback that gets addresses and no identifier.
    pub(crate) fn issue_addresses(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        family: Family,
    ) -> CellGuard<'_> {
        self.issue_as(Stale::Indication, POISON, local, remote, family)
    }

    fn issue_as(
        &self,
        stale: Stale,
        id: WSK_INSPECT_ID,
        local: SocketAddr,
        remote: SocketAddr,
        family: Family,
    ) -> CellGuard<'_> {
        let local = OwnSockaddr::new(local, family);
        let remote = OwnSockaddr::new(remote, family);
        let mut cells = self.0.lock();
        let reused = if cells.kept.len() >= KEPT { cells.kept.pop_front() } else { None };
        let mut cell = match reused {
            Some(mut cell) => {
                *cell = Cell { id, local, remote, stale };
                cell
            }
            None => Box::new(Cell { id, local, remote, stale }),
        };
        cells.padding = cells.padding.wrapping_add(1);
        write_with_padding(&mut cell.id, id, cells.padding);
        cells.issued.push(&raw const cell.id as usize);
        drop(cells);
        CellGuard { cells: self, cell: Some(cell) }
    }

    /// Issues a cell for a callback that gets an identifier and no addresses.
    pub(crate) fn issue_id(&self, id: WSK_INSPECT_ID, family: Family) -> CellGuard<'_> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.issue(id, nowhere, nowhere, family)
    }

    /// Issues a cell for a sentinel, whose addresses are poisoned.
    pub(crate) fn issue_nothing(&self, family: Family) -> CellGuard<'_> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut cell = self.issue_as(Stale::Sentinel, POISON, nowhere, nowhere, family);
        cell.cell().poison();
        cell
    }

    /// Returns where an identifier that a client passes in comes from.
    pub(crate) fn origin(&self, pointer: PWSK_INSPECT_ID, contents: WSK_INSPECT_ID) -> Origin {
        let cells = self.0.lock();
        let address = pointer as usize;
        if cells.issued.contains(&address)
            || cells.kept.iter().any(|cell| &raw const cell.id as usize == address)
        {
            Origin::Borrowed
        } else if contents == POISON {
            Origin::StaleCopy
        } else {
            Origin::Own
        }
    }
}

/// Writes an identifier in place, and other padding than the last time: a client that compares identifiers
/// byte by byte does not find its own again (INSP-27).
fn write_with_padding(place: &mut WSK_INSPECT_ID, id: WSK_INSPECT_ID, padding: u8) {
    let place = std::ptr::from_mut(place);
    // SAFETY: the place is borrowed exclusively, and any bytes are a value of the type.
    unsafe { place.write_bytes(padding, 1) };
    // SAFETY: the place is borrowed exclusively, and any bytes are a value of the type; the fields are
    // written one by one, since copying the whole need not keep the padding.
    unsafe { (*place).Key = id.Key };
    // SAFETY: the place is borrowed exclusively, and any bytes are a value of the type; the fields are
    // written one by one, since copying the whole need not keep the padding.
    unsafe { (*place).SerialNumber = id.SerialNumber };
}

impl CellGuard<'_> {
    fn cell(&mut self) -> &mut Cell {
        self.cell.as_mut().expect("an issued cell is present until the guard is dropped")
    }

    /// The identifier, for the callback.
    pub(crate) fn id(&mut self) -> PWSK_INSPECT_ID {
        let id = &raw mut self.cell().id;
        poison_padding(id);
        id
    }

    pub(crate) fn local(&mut self) -> PSOCKADDR {
        self.cell().local.as_ptr()
    }

    pub(crate) fn remote(&mut self) -> PSOCKADDR {
        self.cell().remote.as_ptr()
    }
}

impl Drop for CellGuard<'_> {
    fn drop(&mut self) {
        let Some(mut cell) = self.cell.take() else { return };
        cell.poison();
        let address = &raw const cell.id as usize;
        let mut cells = self.cells.0.lock();
        cells.issued.retain(|issued| *issued != address);
        cells.kept.push_back(cell);
    }
}
