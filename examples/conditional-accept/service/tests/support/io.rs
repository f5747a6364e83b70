//! The I/O manager and a driver's dispatch routines around a [`Control`]: real IRPs on the user-mode kernel,
//! and a check of everything that the I/O manager relies on.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gate_service::{Control, Handle, Parameters, Request};
use nt_user::{Config, Failure, Joiner, Kernel};
use wsk::Passive;
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_MORE_PROCESSING_REQUIRED, STATUS_PENDING, nt_success};

/// Limit on everything that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Content of the buffer after the input.
const STALE: u8 = 0xA5;

/// Runs `body` on a thread of a new kernel, and then looks for violations and leaks.
pub(crate) fn run(body: impl FnOnce(Passive<'_>) + Send + 'static) {
    let kernel = Kernel::new(Config::default());
    let joiner = kernel.spawn("test", || {
        // SAFETY: a thread of the kernel starts at PASSIVE_LEVEL, and the tests leave it so.
        body(unsafe { Passive::assume() });
    });
    let outcome = joiner.expect("the host has a thread left").join();
    let left = kernel.shutdown(PATIENCE);
    let violations: Vec<_> = kernel.violations().iter().map(ToString::to_string).collect();
    match outcome {
        Ok(()) => {}
        Err(Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
        Err(failure) => panic!("{failure:?}"),
    }
    assert!(violations.is_empty(), "violations:\n{}", violations.join("\n"));
    assert!(left.is_clean(), "left behind:\n{left}");
}

/// A further thread of the kernel.
pub(crate) fn thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Thread<T> {
    let kernel = Kernel::current().expect("tests run on a thread of a kernel");
    Thread(kernel.spawn("test helper", body).expect("the host has a thread left"))
}

pub(crate) struct Thread<T>(Joiner<T>);

impl<T> Thread<T> {
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub(crate) fn join(self) -> T {
        match self.0.join() {
            Ok(value) => value,
            Err(Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

/// A control whose answers may take `time`.
pub(crate) fn control(time: Duration) -> Control {
    let verdict_timeout = time.as_millis() as u32;
    Control::try_new(&Parameters { verdict_timeout, ..Parameters::default() }).expect("memory")
}

/// A handle as the I/O manager has it: a pointer in a file object.
#[derive(Debug)]
pub(crate) struct File(*mut c_void);

// SAFETY: the pointer is a handle of the control, which may be used on any thread.
unsafe impl Send for File {}
// SAFETY: the operations of a handle are synchronized by the control.
unsafe impl Sync for File {}

impl File {
    pub(crate) fn open(control: &Control) -> Self {
        Self(control.open().expect("memory, and few handles").into_context())
    }

    fn handle(&self) -> Handle {
        // SAFETY: the pointer came from `into_context` and is taken back in `drop`.
        unsafe { Handle::of_context(self.0) }
    }

    /// Issues a request.
    pub(crate) fn send(&self, code: u32, input: &[u8], room: usize) -> Call {
        Call::issue(code, input, room, false, |request| self.handle().device_control(request))
    }

    /// Issues a request without input that has been cancelled before it comes.
    pub(crate) fn send_cancelled(&self, code: u32, room: usize) -> Call {
        Call::issue(code, &[], room, true, |request| self.handle().device_control(request))
    }

    /// Issues a request and waits for its end.
    pub(crate) fn call(&self, code: u32, input: &[u8], room: usize) -> Result<Vec<u8>, NTSTATUS> {
        self.send(code, input, room).wait()
    }

    /// The last handle is closed.
    pub(crate) fn cleanup(&self) {
        self.handle().cleanup();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `into_context`, and this is the one place that takes it back.
        unsafe { Handle::close(self.0) };
    }
}

/// A request on its way.
pub(crate) struct Call {
    state: Arc<State>,
    /// Status that the dispatch routine returned.
    pub(crate) returned: NTSTATUS,
    input: Vec<u8>,
    room: usize,
}

struct State {
    irp: *mut IRP,
    buffer: UnsafeCell<Vec<u8>>,
    ends: Mutex<Vec<End>>,
    changed: Condvar,
    /// The driver's cancel routine has run.
    cancelled: AtomicBool,
    /// The completion is kept waiting.
    held_up: AtomicBool,
}

// SAFETY: the IRP and the buffer are the driver's until the call has ended, and then of whoever looks at the
// end.
unsafe impl Send for State {}
// SAFETY: the buffer is used by one side at a time: by the driver until the completion, then by the waiter.
unsafe impl Sync for State {}

#[derive(Clone, Copy, Debug)]
struct End {
    status: NTSTATUS,
    information: usize,
    pended: bool,
    under_lock: bool,
}

/// The I/O manager's part of a completion; keeps the IRP, which its [`Call`] frees.
unsafe extern "system" fn ended(_: *mut DEVICE_OBJECT, irp: *mut IRP, context: *mut c_void) -> NTSTATUS {
    // SAFETY: the context is a count that `send` gave up for this call. A second completion, which is an
    // error that the kernel reports, does not get here.
    let state = unsafe { Arc::from_raw(context.cast_const().cast::<State>()) };
    while state.held_up.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    // SAFETY: the driver has given the IRP back.
    let status = unsafe { nt::irp_status(irp) };
    // SAFETY: the driver has completed the IRP, and the call that frees it waits for this routine.
    let information = unsafe { nt::irp_information(irp) };
    // SAFETY: the driver has completed the IRP, and the call that frees it waits for this routine.
    let pended = unsafe { nt::irp_pending_returned(irp) };
    // SAFETY: the function has no preconditions.
    let irql = unsafe { nt::KeGetCurrentIrql() };
    // The tests themselves do everything at PASSIVE_LEVEL; the events of WSK may come at DISPATCH_LEVEL.
    let under_lock = irql != nt::PASSIVE_LEVEL && !nt_user::context::in_callback();
    state.ends.lock().expect("not poisoned").push(End { status, information, pended, under_lock });
    state.changed.notify_all();
    STATUS_MORE_PROCESSING_REQUIRED
}

impl Call {
    /// Issues a request to `dispatch`, with its cancellation asked for already if it is to be `cancelled`.
    pub(crate) fn issue(
        code: u32,
        input: &[u8],
        room: usize,
        cancelled: bool,
        dispatch: impl FnOnce(Request) -> NTSTATUS,
    ) -> Self {
        let mut buffer = vec![STALE; input.len().max(room)];
        buffer[..input.len()].copy_from_slice(input);
        // SAFETY: this runs on a thread of a kernel.
        let irp = unsafe { nt::IoAllocateIrp(1, 0) };
        let irp = NonNull::new(irp).expect("memory");
        let state = Arc::new(State {
            irp: irp.as_ptr(),
            buffer: UnsafeCell::new(buffer),
            ends: Mutex::default(),
            changed: Condvar::new(),
            cancelled: AtomicBool::new(false),
            held_up: AtomicBool::new(false),
        });
        let context = Arc::into_raw(Arc::clone(&state)).cast_mut().cast();
        // SAFETY: the IRP is new and has a free location; the context is a count of its own.
        unsafe { nt::io_set_completion_routine(irp.as_ptr(), ended, context) };
        // SAFETY: the IRP is new and has a free location.
        unsafe { nt::io_set_next_irp_stack_location(irp.as_ptr()) };
        if cancelled {
            // SAFETY: the IRP is alive.
            unsafe { nt::IoCancelIrp(irp.as_ptr()) };
        }
        // SAFETY: nobody else has the buffer yet.
        let system = unsafe { &mut *state.buffer.get() };
        let system = if system.is_empty() { ptr::null_mut() } else { system.as_mut_ptr() };
        // SAFETY: the IRP was handed down just now, the buffer holds the longer of both, and `wait` and
        // `drop` leave both alone until the IRP has come back.
        let request = unsafe { Request::new(irp, code, system, input.len(), room) };
        let returned = dispatch(request);
        Self { state, returned, input: input.to_vec(), room }
    }

    /// `IoCancelIrp`, at any time.
    pub(crate) fn cancel(&self) {
        self.state.cancel();
    }

    /// Blocks the completion of this call, or lets it go on.
    pub(crate) fn hold_up(&self, hold: bool) {
        self.state.held_up.store(hold, Ordering::Release);
    }

    /// Returns whether the call is complete.
    pub(crate) fn has_ended(&self) -> bool {
        !self.state.ends.lock().expect("not poisoned").is_empty()
    }

    /// Returns a function that cancels this call from another thread.
    pub(crate) fn canceller(&self) -> impl FnOnce() + Send + use<> {
        let state = Arc::clone(&self.state);
        move || state.cancel()
    }

    fn end(&self) -> End {
        let ends = self.state.ends.lock().expect("not poisoned");
        let (ends, waited) = self
            .state
            .changed
            .wait_timeout_while(ends, PATIENCE, |ends| ends.is_empty())
            .expect("not poisoned");
        assert!(!waited.timed_out(), "the request was lost");
        assert_eq!(ends.len(), 1, "completed more than once: {ends:?}");
        ends[0]
    }

    /// Waits for the end: the output, or the status if that is an error.
    pub(crate) fn wait(&self) -> Result<Vec<u8>, NTSTATUS> {
        let end = self.end();
        assert!(!end.under_lock, "{end:?}");
        assert_eq!(end.pended, self.returned == STATUS_PENDING, "{:#X} returned, {end:?}", self.returned);
        if self.returned != STATUS_PENDING {
            assert_eq!(end.status, self.returned);
        }
        assert!(end.information <= self.room, "{end:?}, and room for {}", self.room);
        // SAFETY: the request has ended, so nobody writes to the buffer any more.
        let buffer = unsafe { &*self.state.buffer.get() };
        let written = if nt_success(end.status) { end.information } else { 0 };
        if !nt_success(end.status) {
            assert_eq!(end.information, 0, "{end:?}");
        }
        for (at, byte) in buffer.iter().enumerate().skip(written) {
            let before = self.input.get(at).copied().unwrap_or(STALE);
            assert_eq!(*byte, before, "byte {at} was written, and {written} go back");
        }
        if self.state.cancelled.load(Ordering::Acquire) {
            // Whose cancel routine was called is the routine's to complete, and nobody else's.
            assert_eq!(end.status, STATUS_CANCELLED, "{end:?}");
        }
        if nt_success(end.status) { Ok(buffer[..written].to_vec()) } else { Err(end.status) }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

impl State {
    fn cancel(&self) {
        // SAFETY: the IRP is freed with the state's last owner.
        if unsafe { nt::IoCancelIrp(self.irp) } != 0 {
            self.cancelled.store(true, Ordering::Release);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: the completion and everybody who cancels has given the state back, so nobody has the IRP.
        unsafe { nt::IoFreeIrp(self.irp) };
    }
}
