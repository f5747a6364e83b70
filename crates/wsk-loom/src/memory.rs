//! Reference counts: only the last owner frees, after all other accesses.

#[path = "../../../src/memory/count.rs"]
mod count;
#[path = "../../../src/memory/shared.rs"]
mod shared;

pub(crate) use self::count::RefCount;
pub(crate) use self::shared::Ref;
pub(crate) use crate::shims::{Cache, allocate, free};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::shims::{Guarded, every_order};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// No check: the library uses the one of Rust.
pub(crate) const fn assert_pool_alignment<T>() {}

/// Reports its drop, which comes after every access.
struct Value {
    memory: Guarded,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.memory.change();
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Owners on three threads, one of whose references travels as a bare pointer, as those of IRPs do.
#[test]
fn the_last_owner_frees_after_all_others() {
    every_order(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let value = Value { memory: Guarded::new(), dropped: dropped.clone() };
        let Ok(own) = Ref::try_new_in(value, &Cache) else { panic!("there is memory") };
        let other = own.clone();
        let raw = Ref::into_raw(own.clone()) as usize;
        let threads = [
            thread::spawn(move || {
                other.memory.look();
            }),
            thread::spawn(move || {
                // SAFETY: the pointer was a reference that was given up to this thread.
                let own = unsafe { Ref::<Value>::from_raw(raw as *const Value) };
                own.memory.look();
            }),
        ];
        own.memory.look();
        drop(own);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}
