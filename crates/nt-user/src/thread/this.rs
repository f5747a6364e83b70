//! What the calling thread knows about itself: its kernel, its IRQL, its context.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sys::nt::{KIRQL, PASSIVE_LEVEL};

use super::{Owner, ThreadObject};
use crate::checker::context::Nest;
use crate::kernel::Inner;

/// Everything that entering a kernel changes and leaving it restores.
#[derive(Clone, Copy)]
struct State {
    kernel: *const Inner,
    object: *const ThreadObject,
    irql: KIRQL,
    /// Spin locks held.
    locks: u32,
    nest: Nest,
}

impl State {
    const NOWHERE: Self =
        Self { kernel: ptr::null(), object: ptr::null(), irql: PASSIVE_LEVEL, locks: 0, nest: Nest::OUTSIDE };
}

struct This {
    kernel: Cell<*const Inner>,
    object: Cell<*const ThreadObject>,
    irql: Cell<KIRQL>,
    locks: Cell<u32>,
    nest: Cell<Nest>,
    id: Cell<usize>,
    loan: Cell<usize>,
}

impl This {
    fn state(&self) -> State {
        State {
            kernel: self.kernel.get(),
            object: self.object.get(),
            irql: self.irql.get(),
            locks: self.locks.get(),
            nest: self.nest.get(),
        }
    }

    fn set_state(&self, state: State) {
        self.kernel.set(state.kernel);
        self.object.set(state.object);
        self.irql.set(state.irql);
        self.locks.set(state.locks);
        self.nest.set(state.nest);
    }
}

thread_local! {
    static THIS: This = const {
        This {
            kernel: Cell::new(State::NOWHERE.kernel),
            object: Cell::new(State::NOWHERE.object),
            irql: Cell::new(State::NOWHERE.irql),
            locks: Cell::new(State::NOWHERE.locks),
            nest: Cell::new(State::NOWHERE.nest),
            id: Cell::new(0),
            loan: Cell::new(0),
        }
    };
}

/// The kernel of the calling thread, for the time of one kernel function.
///
/// # Invariants
/// The kernel is alive: the [`Binding`] that names it on this thread holds it, and a binding is not dropped while a
/// kernel function runs on its thread. Functions that call back into the driver look the kernel up again afterwards.
pub(crate) struct Here {
    kernel: NonNull<Inner>,
    _thread: PhantomData<*const ()>,
}

impl Deref for Here {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        // SAFETY: by the invariant of the type the kernel is alive.
        unsafe { self.kernel.as_ref() }
    }
}

/// The kernel of the calling thread; a panic that names `call` if the thread has none.
#[inline]
pub(crate) fn here(call: &str) -> Here {
    match try_here() {
        Some(here) => here,
        None => nowhere(call),
    }
}

#[cold]
fn nowhere(call: &str) -> ! {
    panic!(
        "{call} was called on a thread that belongs to no kernel: call it inside `Kernel::enter` or on a thread that \
         a kernel started"
    );
}

/// The kernel of the calling thread, if it has one.
#[inline]
pub(crate) fn try_here() -> Option<Here> {
    let kernel = THIS.with(|this| this.kernel.get());
    NonNull::new(kernel.cast_mut()).map(|kernel| Here { kernel, _thread: PhantomData })
}

/// The kernel of the calling thread, if that kernel has started the thread.
pub(crate) fn own_kernel() -> Option<Here> {
    object().and_then(|_| try_here())
}

/// The thread object of the calling thread, if a kernel has started it.
pub(crate) fn object() -> Option<NonNull<ThreadObject>> {
    NonNull::new(THIS.with(|this| this.object.get()).cast_mut())
}

/// Whether a driver has created the calling thread.
pub(crate) fn is_drivers() -> bool {
    // SAFETY: the binding of the calling thread holds its object.
    object().is_some_and(|object| unsafe { object.as_ref() }.owner == Owner::Driver)
}

pub(crate) fn irql() -> KIRQL {
    THIS.with(|this| this.irql.get())
}

pub(crate) fn set_irql(irql: KIRQL) {
    THIS.with(|this| this.irql.set(irql));
}

/// How many spin locks the thread holds.
pub(crate) fn locks() -> u32 {
    THIS.with(|this| this.locks.get())
}

pub(crate) fn set_locks(locks: u32) {
    THIS.with(|this| this.locks.set(locks));
}

pub(crate) fn nest() -> Nest {
    THIS.with(|this| this.nest.get())
}

pub(crate) fn set_nest(nest: Nest) {
    THIS.with(|this| this.nest.set(nest));
}

/// What the thread waits for while it is lent; zero if it is not.
pub(crate) fn loan() -> usize {
    THIS.with(|this| this.loan.get())
}

pub(crate) fn set_loan(key: usize) {
    THIS.with(|this| this.loan.set(key));
}

/// A number that no other thread of the process has; never zero.
#[inline]
pub(crate) fn id() -> usize {
    let id = THIS.with(|this| this.id.get());
    if id == 0 { new_id() } else { id }
}

#[cold]
fn new_id() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    THIS.with(|this| this.id.set(id));
    id
}

/// A thread's membership of a kernel; the former one returns when it is dropped.
///
/// # Invariants
/// It is dropped on the thread that made it.
pub(crate) struct Binding {
    former: State,
    _kernel: Arc<Inner>,
    _object: Option<Arc<ThreadObject>>,
    _thread: PhantomData<*const ()>,
}

/// Makes the calling thread one of `kernel`, at PASSIVE_LEVEL.
pub(crate) fn bind(kernel: Arc<Inner>, object: Option<Arc<ThreadObject>>) -> Binding {
    let state = State {
        kernel: Arc::as_ptr(&kernel),
        object: object.as_ref().map_or(ptr::null(), Arc::as_ptr),
        ..State::NOWHERE
    };
    let former = THIS.with(|this| {
        let former = this.state();
        this.set_state(state);
        former
    });
    Binding { former, _kernel: kernel, _object: object, _thread: PhantomData }
}

impl Drop for Binding {
    fn drop(&mut self) {
        THIS.with(|this| this.set_state(self.former));
    }
}
