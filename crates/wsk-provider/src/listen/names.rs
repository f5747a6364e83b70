//! The identifiers of requests: which are in use, and what became of those that are over (INSP-06, INSP-35).
//!
//! ```text
//!   free ──a request comes──► in use ──delivered, rejected, aborted──► free, and remembered ──► forgotten
//! ```
//!
//! A hundred thousand requests may be pended at once, so nothing here looks through them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use wsk_sys::WSK_INSPECT_ID;

use crate::behaviours::IdReuse;

/// Number of finished requests that are remembered. Of one that is forgotten nothing is said.
const REMEMBERED: usize = 4096;

/// The step between two keys; they look like the addresses they are on Windows.
const KEY_STEP: usize = 0x40;

/// The two fields of an identifier.
type Fields = (usize, u32);

fn fields(id: WSK_INSPECT_ID) -> Fields {
    (id.Key, id.SerialNumber)
}

/// The keys there are.
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

/// The identifier of a request. It is in use as long as this lives: until the request is delivered, rejected
/// or aborted, and no callback that was given it runs (INSP-35).
///
/// The provider knows a request by this very value, the client by its contents.
#[derive(Debug)]
pub(super) struct Name {
    id: WSK_INSPECT_ID,
    /// The keys to which the key goes with this value. Otherwise it was given back when the request was over:
    /// the serial number tells this value from the next one with the key.
    keys: Option<Arc<Mutex<Keys>>>,
}

impl Name {
    /// Returns what the client is given.
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
    /// It is too long ago.
    Forgotten,
}

/// The names of one listener's requests.
///
/// # Invariants
/// No two names that live have the same contents. Keys are used again; serial numbers are not, until they
/// wrap, unless that is selected.
#[derive(Debug, Default)]
pub(super) struct Names {
    serial: u32,
    keys: Arc<Mutex<Keys>>,
    /// The fates that are remembered, each with the number of its note.
    past: HashMap<Fields, (Past, u64)>,
    /// The notes, oldest first; one that was replaced counts no more.
    notes: VecDeque<(Fields, u64)>,
    noted: u64,
    /// The newest serial number among those that were forgotten.
    forgotten: Option<u32>,
}

impl Names {
    /// A name for a new request.
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

    /// A request is over.
    pub(super) fn over(&mut self, name: &Name, past: Past) {
        if name.keys.is_none() {
            self.keys.lock().free.push(name.id.Key);
        }
        self.remember(name.id, past);
    }

    /// Notes what became of a request.
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

    /// Returns what became of a request that is over; `None` if there never was one with this identifier.
    pub(super) fn past(&self, id: WSK_INSPECT_ID) -> Option<Past> {
        if let Some((past, _)) = self.past.get(&fields(id)) {
            return Some(*past);
        }
        let was_given = self.forgotten.is_some_and(|newest| is_up_to(id.SerialNumber, newest));
        (was_given && self.keys.lock().is_one(id.Key)).then_some(Past::Forgotten)
    }
}

/// Returns whether serial number `one` was given out not later than `other`.
fn is_up_to(one: u32, other: u32) -> bool {
    other.wrapping_sub(one) <= u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most requests that are pended at once.
    const CROWD: usize = 100_000;

    /// There are as many keys as requests at once, whatever comes and goes.
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

    /// Each of many that are over is remembered, or known to be forgotten; none is taken for one that never
    /// was.
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

    /// A note that was made anew is as young as that.
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
