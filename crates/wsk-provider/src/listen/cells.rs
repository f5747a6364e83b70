//! Memory for what a callback may look at only while it runs: inspection identifiers and addresses.
//!
//! After the callback the contents are overwritten, and the memory is kept for a while: a client that kept the pointer
//! instead of a copy finds garbage, and shows by passing the pointer back (INSP-19, INSP-20, INSP-22).

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;
use wsk_sys::{PSOCKADDR, PWSK_INSPECT_ID, WSK_INSPECT_ID};

use crate::address::{Family, OwnSockaddr};

/// How many cells are kept.
const KEPT: usize = 64;

/// The contents of an identifier that is no longer lent.
const POISON: WSK_INSPECT_ID =
    WSK_INSPECT_ID { Key: usize::from_ne_bytes([0xDD; size_of::<usize>()]), SerialNumber: 0xDDDD_DDDD };

#[derive(Debug)]
struct Cell {
    id: WSK_INSPECT_ID,
    local: OwnSockaddr,
    remote: OwnSockaddr,
}

#[derive(Debug, Default)]
struct Cells {
    lent: Vec<usize>,
    kept: VecDeque<Box<Cell>>,
}

/// The cells of one provider.
#[derive(Debug, Default)]
pub(crate) struct IdCells(Mutex<Cells>);

/// A cell that a callback may look at; what it holds is made useless when this is dropped.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    cells: &'a IdCells,
    cell: Option<Box<Cell>>,
}

/// What a pointer to an identifier shows about its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The client's own memory, with contents of its own.
    Own,
    /// The client's own memory, filled from a cell that was no longer lent.
    StaleCopy,
    /// The provider's own memory.
    Borrowed,
}

impl IdCells {
    /// Lends a cell with these contents.
    pub(crate) fn lend(
        &self,
        id: WSK_INSPECT_ID,
        local: SocketAddr,
        remote: SocketAddr,
        family: Family,
    ) -> Lent<'_> {
        let local = OwnSockaddr::new(local, family);
        let remote = OwnSockaddr::new(remote, family);
        let mut cells = self.0.lock();
        let reused = if cells.kept.len() >= KEPT { cells.kept.pop_front() } else { None };
        let cell = match reused {
            Some(mut cell) => {
                *cell = Cell { id, local, remote };
                cell
            }
            None => Box::new(Cell { id, local, remote }),
        };
        cells.lent.push(&raw const cell.id as usize);
        drop(cells);
        Lent { cells: self, cell: Some(cell) }
    }

    /// Lends a cell for a callback that gets an identifier and no addresses.
    pub(crate) fn lend_id(&self, id: WSK_INSPECT_ID, family: Family) -> Lent<'_> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.lend(id, nowhere, nowhere, family)
    }

    /// Lends a cell for a sentinel, whose addresses mean nothing.
    pub(crate) fn lend_nothing(&self, family: Family) -> Lent<'_> {
        let mut lent = self.lend_id(POISON, family);
        let cell = lent.cell();
        cell.local.poison();
        cell.remote.poison();
        lent
    }

    /// Where an identifier that a client passes in comes from.
    pub(crate) fn origin(&self, pointer: PWSK_INSPECT_ID, contents: WSK_INSPECT_ID) -> Origin {
        let cells = self.0.lock();
        let address = pointer as usize;
        if cells.lent.contains(&address)
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

impl Lent<'_> {
    fn cell(&mut self) -> &mut Cell {
        self.cell.as_mut().expect("a lent cell is there until it is dropped")
    }

    pub(crate) fn id(&mut self) -> PWSK_INSPECT_ID {
        &raw mut self.cell().id
    }

    pub(crate) fn local(&mut self) -> PSOCKADDR {
        self.cell().local.as_ptr()
    }

    pub(crate) fn remote(&mut self) -> PSOCKADDR {
        self.cell().remote.as_ptr()
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(mut cell) = self.cell.take() else { return };
        cell.id = POISON;
        cell.local.poison();
        cell.remote.poison();
        let address = &raw const cell.id as usize;
        let mut cells = self.cells.0.lock();
        cells.lent.retain(|lent| *lent != address);
        cells.kept.push_back(cell);
    }
}
