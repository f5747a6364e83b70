//! Panics that would cross the kernel boundary.
//!
//! Panics do not unwind through the C ABI: a panic that reaches an `extern "system"` function aborts a Rust
//! process. In a driver it would be a bug check. Here it becomes a bug check of the kernel on which it
//! happened:
//!
//! ```text
//!   panic in a callback
//!     │ unwinds
//!     ▼
//!   extern "system" boundary ──hook: "cannot unwind"──► LIFE-18 is reported, and
//!     │                                                   in a callback or routine: the kernel stops
//!     │                                                   in a system thread:       the thread has ended
//!     ▼
//!   the standard library aborts ──SIGABRT──► the host thread sleeps for ever
//! ```
//!
//! The host thread cannot be ended, because that would need unwinding; a sleeping thread is the price of a
//! test process that survives to report what happened. It sleeps in the signal handler and not in the hook,
//! because a thread in the hook keeps the hook locked, and test harnesses replace the hook. On a thread that
//! no kernel started the process aborts as usual.
//!
//! Windows gives an aborting process no handler to sleep in. There the thread is single-stepped from the hook
//! to the instruction that would end the process, and sleeps in its place. On processors other than x86-64 it
//! sleeps in the hook: other threads can still panic, but replacing the hook later, as a test harness does at
//! the end, blocks for ever.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use super::context::Context;
use super::violation::Severity;
use crate::thread::current;

thread_local! {
    /// The message of the panic that is unwinding.
    static UNWINDING: RefCell<String> = const { RefCell::new(String::new()) };
    /// True if the thread has reached a boundary and must be halted.
    static HALTED: Cell<bool> = const { Cell::new(false) };
}

/// Messages of the standard library for a panic that cannot unwind further.
const CANNOT_UNWIND: [&str; 2] =
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// Text printed after the standard library's message that the process aborts.
const MESSAGE: &str = "The process does not abort: LIFE-18 is reported, and the thread sleeps for ever.\n";

/// Returns the message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Examines a panic; returns true if it has reached the boundary of a kernel, which has reported it.
fn stopped_at_boundary(info: &PanicHookInfo<'_>) -> bool {
    let text = info.payload_as_str().unwrap_or("a panic without words");
    if !CANNOT_UNWIND.contains(&text) {
        UNWINDING.with_borrow_mut(|unwinding| {
            *unwinding = match info.location() {
                Some(place) => format!("`{text}` at {place}"),
                None => format!("`{text}`"),
            };
        });
        return false;
    }
    let Some(kernel) = current::own_kernel() else { return false };
    let calls = super::context::current();
    let whom = match calls.innermost {
        Context::Thread | Context::Unload => "a system thread",
        Context::Callback { name } => name,
        Context::Completion => "a completion routine",
        Context::Cancel => "a cancel routine",
        Context::Dpc => "a deferred procedure call",
        Context::WorkItem => "a work item",
    };
    let detail =
        UNWINDING.with_borrow(|unwinding| format!("a panic crossed the boundary of {whom}: {unwinding}"));
    HALTED.set(true);
    if let Context::Callback { name: "WskReceiveEvent" | "WskReceiveFromEvent" } = calls.innermost
        && calls.unmapped
    {
        let detail = "the callback did not handle data that could not be mapped".to_owned();
        kernel.report(Severity::Violation, "RCVE-17", whom, detail);
    }
    kernel.panicked(whom, detail, calls.innermost != Context::Thread);
    true
}

/// Suspends the calling thread for ever.
pub(crate) fn halt() -> ! {
    loop {
        std::thread::park();
    }
}

/// Installs the panic hook, once per process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        signal::install();
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if stopped_at_boundary(info) {
                signal::suspend();
            } else {
                former(info);
            }
        }));
    });
}

/// Handling of the abort after the hook.
#[cfg(unix)]
mod signal {
    use std::ffi::c_int;
    use std::mem::zeroed;
    use std::ptr;

    /// Does nothing: the handler holds the thread after the hook.
    pub(super) fn suspend() {}

    pub(super) fn install() {
        // SAFETY: all zero is a valid value of the C structure.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = on_abort as *const () as usize;
        // SAFETY: the handler uses only functions that are allowed in a signal handler.
        unsafe { libc::sigaction(libc::SIGABRT, &raw const action, ptr::null_mut()) };
    }

    /// Holds the threads that must not abort the process. Others return to `abort`, which then ends it.
    extern "C" fn on_abort(signal: c_int) {
        let words = super::MESSAGE.as_bytes();
        if !super::HALTED.get() {
            // SAFETY: resetting a signal has no precondition.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            return;
        }
        // SAFETY: the text is a static of this length, and a failed write changes nothing.
        unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
        loop {
            // SAFETY: `pause` may be called in a signal handler.
            unsafe { libc::pause() };
        }
    }
}

/// Handling of the abort after the hook.
#[cfg(all(windows, target_arch = "x86_64"))]
mod signal {
    use std::arch::asm;
    use std::ptr;

    use windows_sys::Win32::Foundation::EXCEPTION_SINGLE_STEP;
    use windows_sys::Win32::System::Diagnostics::Debug::{
        AddVectoredExceptionHandler, EXCEPTION_CONTINUE_EXECUTION, EXCEPTION_CONTINUE_SEARCH,
        EXCEPTION_POINTERS,
    };

    /// The flag that makes the processor stop after the next instruction.
    const TRAP: u32 = 1 << 8;
    /// `int 0x29`, which ends the process at once, and `ud2`.
    const ENDS: [[u8; 2]; 2] = [[0xCD, 0x29], [0x0F, 0x0B]];

    pub(super) fn install() {
        // SAFETY: the handler does nothing that such a handler must not do, and is never removed.
        let handler = unsafe { AddVectoredExceptionHandler(1, Some(on_step)) };
        assert!(!handler.is_null(), "no memory for the handler of single steps");
    }

    /// Starts single-stepping; the handler holds the thread after the hook.
    pub(super) fn suspend() {
        // SAFETY: the stack is unchanged, and only the trap flag is set, whose exceptions `on_step` handles.
        unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    }

    /// Single-steps up to the instruction that would end the process.
    unsafe extern "system" fn on_step(exception: *mut EXCEPTION_POINTERS) -> i32 {
        // SAFETY: the system passes what it made for this call.
        let exception = unsafe { &*exception };
        // SAFETY: the record is part of what the system passes for this call.
        let record = unsafe { &*exception.ExceptionRecord };
        if record.ExceptionCode != EXCEPTION_SINGLE_STEP || !super::HALTED.get() {
            return EXCEPTION_CONTINUE_SEARCH;
        }
        // SAFETY: the context is part of what the system passes for this call, and only this handler accesses
        // it.
        let context = unsafe { &mut *exception.ContextRecord };
        let next = ptr::with_exposed_provenance(context.Rip as usize);
        // SAFETY: the thread is about to execute the instruction at this address.
        if unsafe { is_end(next) } {
            // The handler must not sleep inside of the system's exception dispatch. A function is entered
            // with its return address on top of the caller's 32 bytes; this one never returns.
            context.Rip = suspend_thread as *const () as u64;
            context.Rsp = (context.Rsp & !0xF) - 0x28;
            context.EFlags &= !TRAP;
        } else {
            context.EFlags |= TRAP;
        }
        EXCEPTION_CONTINUE_EXECUTION
    }

    /// Returns true if an instruction ends the process.
    ///
    /// # Safety
    /// There is an instruction at `code`.
    unsafe fn is_end(code: *const u8) -> bool {
        // SAFETY: an instruction has a first byte.
        let first = unsafe { code.read() };
        ENDS.iter().any(|end| {
            // SAFETY: those that begin so have a second one.
            first == end[0] && unsafe { code.wrapping_add(1).read() } == end[1]
        })
    }

    /// Suspends the thread for ever.
    extern "system" fn suspend_thread() -> ! {
        eprint!("{}", super::MESSAGE);
        super::halt()
    }
}

#[cfg(not(any(unix, all(windows, target_arch = "x86_64"))))]
mod signal {
    pub(super) fn install() {}

    /// Suspends the thread: no handler runs between the hook and the end of the process.
    pub(super) fn suspend() {
        eprint!("{}", super::MESSAGE);
        super::halt();
    }
}
