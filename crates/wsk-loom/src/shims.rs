//! Replacements, made of loom's primitives, for the kernel functions that the protocol files use; and helpers
//! of the models.

use core::future::poll_fn;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex, MutexGuard};

use crate::memory::OutOfMemory;

/// Runs `body` in every order.
pub(crate) fn every_order(body: impl Fn() + Sync + Send + 'static) {
    loom::model(body);
}

/// Runs `body` in every order with a limited number of preemptions, for models with too many orders.
pub(crate) fn orders(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// Waits until `poll` returns true. A lost wake-up is a deadlock, which loom reports.
pub(crate) fn await_true(mut poll: impl FnMut(&Context<'_>) -> bool) {
    loom::future::block_on(poll_fn(|context| if poll(context) { Poll::Ready(()) } else { Poll::Pending }));
}

/// Polls once, with a waker that does nothing.
pub(crate) fn look<T>(poll: impl FnOnce(&Context<'_>) -> T) -> T {
    poll(&Context::from_waker(Waker::noop()))
}

/// Memory that a protocol must protect: loom reports a read and a write, or two writes, without an order.
#[derive(Debug)]
pub(crate) struct Guarded(UnsafeCell<u32>);

// SAFETY: loom checks every access to the cell.
unsafe impl Send for Guarded {}
// SAFETY: loom checks every access to the cell.
unsafe impl Sync for Guarded {}

impl Guarded {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// Reads the memory, possibly at the same time as others.
    pub(crate) fn look(&self) -> u32 {
        // SAFETY: loom has checked that no thread writes it now.
        self.0.with(|value| unsafe { *value })
    }

    /// Writes the memory, exclusively.
    pub(crate) fn change(&self) {
        // SAFETY: loom has checked that no other thread accesses it now.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }
}

/// [`wsk::Passive`], which every thread of a model has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passive<'a>(PhantomData<&'a ()>);

pub(crate) fn passive() -> Passive<'static> {
    Passive(PhantomData)
}

/// A waker slot with the interface of `atomic_waker`'s.
#[derive(Debug)]
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

/// A spin lock.
#[derive(Debug)]
pub(crate) struct SpinLock<T>(Mutex<T>);

#[derive(Debug)]
pub(crate) struct SpinGuard<'a, T>(MutexGuard<'a, T>);

impl<T> SpinLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        SpinGuard(self.0.lock().unwrap())
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum EventKind {
    Synchronization,
}

/// A synchronization event, which releases one thread. Waits have no time limit, so that a wait without an
/// end is a deadlock.
#[derive(Debug)]
pub(crate) struct EventCell {
    set: Mutex<bool>,
    changed: Condvar,
}

impl EventCell {
    pub(crate) fn uninitialized() -> Self {
        Self { set: Mutex::new(false), changed: Condvar::new() }
    }

    /// # Safety
    /// None; the library's has some.
    pub(crate) unsafe fn initialize(&self, _kind: EventKind) {}

    /// # Safety
    /// None; the library's has some.
    pub(crate) unsafe fn set(&self) {
        self.give();
    }

    /// # Safety
    /// None; the library's has some.
    pub(crate) unsafe fn wait(&self, _passive: Passive<'_>, _timeout: Option<Duration>) -> bool {
        self.take();
        true
    }

    pub(crate) fn give(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    pub(crate) fn take(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

/// Memory, whose leaks loom reports.
pub(crate) fn allocate(bytes: usize) -> Result<NonNull<u8>, OutOfMemory> {
    // The size is stored in front of the block for `free`.
    let layout = layout(bytes);
    // SAFETY: the size is not zero.
    let block = unsafe { loom::alloc::alloc(layout) };
    let block = NonNull::new(block).ok_or(OutOfMemory)?;
    // SAFETY: the block has room for its head, and is aligned for it.
    unsafe { block.cast::<usize>().write(bytes) };
    // SAFETY: the block is longer than its head.
    Ok(unsafe { block.add(HEAD) })
}

const HEAD: usize = 16;

fn layout(bytes: usize) -> core::alloc::Layout {
    core::alloc::Layout::from_size_align(HEAD + bytes, HEAD).expect("small sizes")
}

/// # Safety
/// `block` came from [`allocate`], and is freed once.
pub(crate) unsafe fn free(block: NonNull<u8>) {
    // SAFETY: the head is in front of each block.
    let block = unsafe { block.sub(HEAD) };
    // SAFETY: `allocate` wrote the size there.
    let bytes = unsafe { block.cast::<usize>().read() };
    // SAFETY: the block was allocated with this layout, and the caller gives it up.
    unsafe { loom::alloc::dealloc(block.as_ptr(), layout(bytes)) };
}

/// A cache that keeps nothing.
#[derive(Clone, Debug)]
pub(crate) struct Cache;

impl Cache {
    pub(crate) fn allocate(&self, bytes: usize) -> Result<NonNull<u8>, OutOfMemory> {
        allocate(bytes)
    }

    /// # Safety
    /// `block` came from [`allocate`], and is freed once.
    pub(crate) unsafe fn release(&self, block: NonNull<u8>, _bytes: usize) {
        // SAFETY: the caller guarantees a block of `allocate`.
        unsafe { free(block) };
    }
}
