//! State of the calling thread: its kernel, its IRQL, its call stack.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sys::nt::{KIRQL, PASSIVE_LEVEL};

use super::{Owner, ThreadObject};
use crate::checker::context::CallStack;
use crate::kernel::Inner;

/// The state that entering a kernel changes and leaving it restores.
#[derive(Clone, Copy)]
struct Membership {
    kernel: *const Inner,
    object: *const ThreadObject,
    irql: KIRQL,
    /// Spin locks held.
    locks: u32,
    calls: CallStack,
}

impl Membership {
    const NONE: Self = Self {
        kernel: ptr::null(),
        object: ptr::null(),
        irql: PASSIVE_LEVEL,
        locks: 0,
        calls: CallStack::OUTSIDE,
    };
}

struct ThreadState {
    kernel: Cell<*const Inner>,
    object: Cell<*const ThreadObject>,
    irql: Cell<KIRQL>,
    locks: Cell<u32>,
    calls: Cell<CallStack>,
    id: Cell<usize>,
    donated_to: Cell<usize>,
}

impl ThreadState {
    fn get(&self) -> Membership {
        Membership {
            kernel: self.kernel.get(),
            object: self.object.get(),
            irql: self.irql.get(),
            locks: self.locks.get(),
            calls: self.calls.get(),
        }
    }

    fn set(&self, state: Membership) {
        self.kernel.set(state.kernel);
        self.object.set(state.object);
        self.irql.set(state.irql);
        self.locks.set(state.locks);
        self.calls.set(state.calls);
    }
}

thread_local! {
    static STATE: ThreadState = const {
        ThreadState {
            kernel: Cell::new(Membership::NONE.kernel),
            object: Cell::new(Membership::NONE.object),
            irql: Cell::new(Membership::NONE.irql),
            locks: Cell::new(Membership::NONE.locks),
            calls: Cell::new(Membership::NONE.calls),
            id: Cell::new(0),
            donated_to: Cell::new(0),
        }
    };
}

/// The kernel of the calling thread, for the duration of one kernel function.
///
/// # Invariants
/// The kernel is alive: the [`Binding`] that names it on this thread holds it, and a binding is not dropped
/// while a kernel function runs on its thread. Functions that call back into the driver look the kernel up
/// again afterwards.
pub(crate) struct CurrentKernel {
    kernel: NonNull<Inner>,
    _thread: PhantomData<*const ()>,
}

impl Deref for CurrentKernel {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        // SAFETY: by the invariant of the type the kernel is alive.
        unsafe { self.kernel.as_ref() }
    }
}

/// Returns the kernel of the calling thread; panics, naming `call`, if the thread has none.
#[inline]
pub(crate) fn kernel(call: &str) -> CurrentKernel {
    match try_kernel() {
        Some(kernel) => kernel,
        None => no_kernel(call),
    }
}

#[cold]
fn no_kernel(call: &str) -> ! {
    panic!(
        "{call} was called on a thread that belongs to no kernel: call it inside `Kernel::enter` or on a \
         thread that a kernel started"
    );
}

/// The kernel of the calling thread, if it has one.
#[inline]
pub(crate) fn try_kernel() -> Option<CurrentKernel> {
    let kernel = STATE.with(|state| state.kernel.get());
    NonNull::new(kernel.cast_mut()).map(|kernel| CurrentKernel { kernel, _thread: PhantomData })
}

/// The kernel of the calling thread, if that kernel has started the thread.
pub(crate) fn own_kernel() -> Option<CurrentKernel> {
    object().and_then(|_| try_kernel())
}

/// The thread object of the calling thread, if a kernel has started it.
pub(crate) fn object() -> Option<NonNull<ThreadObject>> {
    NonNull::new(STATE.with(|state| state.object.get()).cast_mut())
}

/// Returns true if a driver has created the calling thread.
pub(crate) fn is_drivers() -> bool {
    // SAFETY: the binding of the calling thread holds its object.
    object().is_some_and(|object| unsafe { object.as_ref() }.owner == Owner::Driver)
}

pub(crate) fn irql() -> KIRQL {
    STATE.with(|state| state.irql.get())
}

pub(crate) fn set_irql(irql: KIRQL) {
    STATE.with(|state| state.irql.set(irql));
}

/// The number of spin locks that the thread holds.
pub(crate) fn locks() -> u32 {
    STATE.with(|state| state.locks.get())
}

pub(crate) fn set_locks(locks: u32) {
    STATE.with(|state| state.locks.set(locks));
}

pub(crate) fn call_stack() -> CallStack {
    STATE.with(|state| state.calls.get())
}

pub(crate) fn set_call_stack(calls: CallStack) {
    STATE.with(|state| state.calls.set(calls));
}

/// The address of the object that the thread waits for while it is donated; zero if it is not.
pub(crate) fn donated_to() -> usize {
    STATE.with(|state| state.donated_to.get())
}

pub(crate) fn set_donated_to(key: usize) {
    STATE.with(|state| state.donated_to.set(key));
}

/// A number that identifies the thread in the process; never zero.
#[inline]
pub(crate) fn id() -> usize {
    let id = STATE.with(|state| state.id.get());
    if id == 0 { new_id() } else { id }
}

#[cold]
fn new_id() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    STATE.with(|state| state.id.set(id));
    id
}

/// A thread's membership of a kernel; dropping it restores the previous membership.
///
/// # Invariants
/// It is dropped on the thread that made it.
pub(crate) struct Binding {
    former: Membership,
    _kernel: Arc<Inner>,
    _object: Option<Arc<ThreadObject>>,
    _thread: PhantomData<*const ()>,
}

/// Makes the calling thread a thread of `kernel`, at PASSIVE_LEVEL.
pub(crate) fn bind(kernel: Arc<Inner>, object: Option<Arc<ThreadObject>>) -> Binding {
    let membership = Membership {
        kernel: Arc::as_ptr(&kernel),
        object: object.as_ref().map_or(ptr::null(), Arc::as_ptr),
        ..Membership::NONE
    };
    let former = STATE.with(|state| {
        let former = state.get();
        state.set(membership);
        former
    });
    Binding { former, _kernel: kernel, _object: object, _thread: PhantomData }
}

impl Drop for Binding {
    fn drop(&mut self) {
        STATE.with(|state| state.set(self.former));
    }
}
