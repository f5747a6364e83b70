//! Identifiers of requests: those in use, and the fates of finished requests (INSP-06, INSP-35).
//!
//! ```text
//!   free ──a request comes──► in use ──delivered, rejected, aborted──► free, and remembered ──► forgotten
//! ```
//!
//! A hundred thousand requests may be pended at once, so no operation iterates over them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use wsk_sys::WSK_INSPECT_ID;

use crate::behaviours::IdReuse;

/// Number of finished requests that are remembered. A forgotten one is never reported.
const REMEMBERED: usize = 4096;

/// Step between two keys, which look like addresses, as on Windows.
const KEY_STEP: usize = 0x40;

/// Fields of an identifier.
type Fields = (usize, u32);

fn fields(id: WSK_INSPECT_ID) -> Fields {
    (id.Key, id.SerialNumber)
}

/// Pool of keys.
///
/// # Invariants
/// Every multiple of the step up to `highest` is either in `free` or in use.
#[derive(Debug, Default)]
struct Keys {
    free: Vec<usize>,
    highest: usize,
}

impl Keys {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.highest += KEY_STEP;
            self.highest
        })
    }

    fn is_one(&self, key: usize) -> bool {
        key != 0 && key <= self.highest && key.is_multiple_of(KEY_STEP)
    }
}

/// Identifier of a request. It is in use during the lifetime of this object: until the request is delivered,
/// rejected or aborted, and no callback with it is running (INSP-35).
///
/// The provider identifies a request by the address of this object, the client by its contents.
#[derive(Debug)]
pub(super) struct Name {
    id: WSK_INSPECT_ID,
    /// Pool to which the key returns when this object is dropped. `None` if it was returned at the end of the
    /// request: the serial number distinguishes this object from the next one with the key.
    keys: Option<Arc<Mutex<Keys>>>,
}

impl Name {
    /// Returns the identifier for the client.
    pub(super) fn id(&self) -> WSK_INSPECT_ID {
        self.id
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(keys) = &self.keys {
            keys.lock().free.push(self.id.Key);
        }
    }
}

/// Fate of a request that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It was decided.
    Decided,
    /// It was dropped; `notified` is set once `WskAbortEvent` has returned.
    Aborted { notified: bool },
    /// It is no longer remembered.
    Forgotten,
}

/// Names of one listener's requests.
///
/// # Invariants
/// No two live names have the same contents. Keys are reused; serial numbers are not, until they wrap, unless
/// that is selected.
#[derive(Debug, Default)]
pub(super) struct Names {
    serial: u32,
    keys: Arc<Mutex<Keys>>,
    /// Remembered fates, each with the number of its note.
    past: HashMap<Fields, (Past, u64)>,
    /// Notes, oldest first; replaced notes are ignored.
    notes: VecDeque<(Fields, u64)>,
    noted: u64,
    /// Newest serial number that was forgotten.
    forgotten: Option<u32>,
}

impl Names {
    /// Returns a name for a new request.
    pub(super) fn next(&mut self, reuse: IdReuse) -> Arc<Name> {
        let key = self.keys.lock().take();
        let keys = match reuse {
            IdReuse::Counted => {
                self.serial = self.serial.wrapping_add(1);
                None
            }
            IdReuse::AtOnce => Some(Arc::clone(&self.keys)),
        };
        let id = WSK_INSPECT_ID { Key: key, SerialNumber: self.serial };
        self.past.remove(&fields(id));
        Arc::new(Name { id, keys })
    }

    /// Records the end of a request.
    pub(super) fn over(&mut self, name: &Name, past: Past) {
        if name.keys.is_none() {
            self.keys.lock().free.push(name.id.Key);
        }
        self.remember(name.id, past);
    }

    /// Records the fate of a request.
    pub(super) fn remember(&mut self, id: WSK_INSPECT_ID, past: Past) {
        let note = fields(id);
        if let Some((known, _)) = self.past.get_mut(&note) {
            *known = past;
            return;
        }
        self.noted += 1;
        self.past.insert(note, (past, self.noted));
        self.notes.push_back((note, self.noted));
        if self.notes.len() > REMEMBERED
            && let Some(oldest) = self.notes.pop_front()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, (note, number): (Fields, u64)) {
        if self.past.get(&note).is_some_and(|(_, current)| *current == number) {
            self.past.remove(&note);
            if self.forgotten.is_none_or(|newest| is_up_to(newest, note.1)) {
                self.forgotten = Some(note.1);
            }
        }
    }

    /// Returns the fate of a finished request; `None` if there never was one with this identifier.
    pub(super) fn past(&self, id: WSK_INSPECT_ID) -> Option<Past> {
        if let Some((past, _)) = self.past.get(&fields(id)) {
            return Some(*past);
        }
        let was_given = self.forgotten.is_some_and(|newest| is_up_to(id.SerialNumber, newest));
        (was_given && self.keys.lock().is_one(id.Key)).then_some(Past::Forgotten)
    }
}

/// Returns whether serial number `one` was issued no later than `other`.
fn is_up_to(one: u32, other: u32) -> bool {
    other.wrapping_sub(one) <= u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum number of requests that are pended at once.
    const CROWD: usize = 100_000;

    /// The number of keys is the maximum number of simultaneous requests.
    #[test]
    fn keys_return() {
        for reuse in [IdReuse::Counted, IdReuse::AtOnce] {
            let mut names = Names::default();
            let mut live: Vec<_> = (0..CROWD).map(|_| names.next(reuse)).collect();
            for round in 0..CROWD {
                let name = live.swap_remove(round * 7919 % live.len());
                names.over(&name, Past::Decided);
                drop(name);
                live.push(names.next(reuse));
            }
            assert_eq!(names.keys.lock().highest, CROWD * KEY_STEP);
            let mut keys: Vec<_> = live.iter().map(|name| name.id().Key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), CROWD);
            assert!(names.past.len() <= REMEMBERED && names.notes.len() <= REMEMBERED);
        }
    }

    /// Each finished request is remembered or known to be forgotten; none is taken for an unknown one.
    #[test]
    fn nothing_that_was_given_out_is_unknown() {
        for serial in [0, u32::MAX - 5000] {
            let mut names = Names { serial, ..Names::default() };
            let ids: Vec<_> = (0..3 * REMEMBERED)
                .map(|_| {
                    let name = names.next(IdReuse::Counted);
                    names.over(&name, Past::Decided);
                    name.id()
                })
                .collect();
            let (old, new) = ids.split_at(2 * REMEMBERED);
            assert!(old.iter().all(|id| names.past(*id) == Some(Past::Forgotten)));
            assert!(new.iter().all(|id| names.past(*id) == Some(Past::Decided)));
            let last = new[new.len() - 1];
            for (key, serial) in [
                (last.Key, last.SerialNumber.wrapping_add(1)),
                (last.Key + KEY_STEP, old[0].SerialNumber),
                (last.Key + 1, old[0].SerialNumber),
                (0, old[0].SerialNumber),
            ] {
                assert_eq!(names.past(WSK_INSPECT_ID { Key: key, SerialNumber: serial }), None);
            }
        }
    }

    /// A repeated note counts as new.
    #[test]
    fn an_identifier_that_returns_is_remembered_as_what_it_was_last() {
        let mut names = Names::default();
        let long = names.next(IdReuse::AtOnce);
        for round in 0..2 * REMEMBERED {
            let name = names.next(IdReuse::AtOnce);
            names.over(&name, if round % 2 == 0 { Past::Decided } else { Past::Aborted { notified: true } });
        }
        assert_eq!(names.past.len(), 1);
        let last = WSK_INSPECT_ID { Key: long.id().Key + KEY_STEP, SerialNumber: 0 };
        assert_eq!(names.past(last), Some(Past::Aborted { notified: true }));
        assert!(names.notes.len() <= REMEMBERED);
    }
}
