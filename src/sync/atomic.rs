//! The atomics and waker slots of every protocol between threads in this crate.
//!
//! Protocol files take them from here and nowhere else, so that `crates/wsk-loom`, which has a module of the
//! same name, can run the very same files under loom.

pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};

pub(crate) use atomic_waker::AtomicWaker;
