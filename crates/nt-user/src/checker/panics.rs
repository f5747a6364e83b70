//! Panics that would cross the kernel boundary.
//!
//! Nothing unwinds through the C ABI: a panic that reaches an `extern "system"` function ends a Rust process. In a
//! driver it would be a bug check, and that is what it becomes here, on the kernel it happened on:
//!
//! ```text
//!   panic in a callback ──unwinds──► extern "system" boundary ──hook: "cannot unwind"──► LIFE-18 is reported, and
//!                                                                 in a callback or routine: the kernel stops
//!                                                                 in a system thread:       the thread has ended
//!                                    the standard library aborts ──SIGABRT──► the host thread sleeps for ever
//! ```
//!
//! The host thread can't be ended, because ending it means unwinding; it is the price of a test process that survives
//! to tell what happened. It sleeps in the signal handler and not in the hook, since whoever is in the hook keeps
//! the hook locked, and test harnesses replace it. On a thread that no kernel started the process aborts as usual.
//!
//! Windows ends a process that aborts without asking anybody in it. There the thread is single-stepped from the hook to the
//! instruction that would end the process, and sleeps instead of it. On processors other than x86-64 it sleeps in the hook
//! after all: other threads still panic as they like, but who replaces the hook later, as a test harness does when its tests
//! are over, waits for ever.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use super::context::Context;
use super::violation::Severity;
use crate::thread::current;

thread_local! {
    /// The panic that is unwinding, in words.
    static UNWINDING: RefCell<String> = const { RefCell::new(String::new()) };
    /// Whether the thread has reached a boundary and is to be halted.
    static HALTED: Cell<bool> = const { Cell::new(false) };
}

/// What the standard library says when a panic can go no further.
const CANNOT_UNWIND: [&str; 2] =
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// What is printed behind the standard library's word that the process ends.
const WORDS: &str = "No: LIFE-18 is reported, and the thread sleeps for ever.\n";

/// The words of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Looks at a panic; true if it has reached the boundary of a kernel, which has taken note.
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
        let detail = "the callback did not get over data that could not be mapped".to_owned();
        kernel.report(Severity::Violation, "RCVE-17", whom, detail);
    }
    kernel.panicked(whom, detail, calls.innermost != Context::Thread);
    true
}

/// Never returns.
pub(crate) fn halt() -> ! {
    loop {
        std::thread::park();
    }
}

/// Sees to it, once per process, that panics on the threads of kernels are seen.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        signal::install();
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if stopped_at_boundary(info) {
                signal::hold();
            } else {
                former(info);
            }
        }));
    });
}

/// What happens between the hook and the end of the process.
#[cfg(unix)]
mod signal {
    use std::ffi::c_int;
    use std::mem::zeroed;
    use std::ptr;

    /// The handler holds the thread, once the hook is left.
    pub(super) fn hold() {}

    pub(super) fn install() {
        // SAFETY: all zero is a valid value of the C structure.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = on_abort as *const () as usize;
        // SAFETY: the handler keeps to what a signal handler may do.
        unsafe { libc::sigaction(libc::SIGABRT, &raw const action, ptr::null_mut()) };
    }

    /// Holds the threads that must not abort the process. Others return to `abort`, which then ends it.
    extern "C" fn on_abort(signal: c_int) {
        let words = super::WORDS.as_bytes();
        if !super::HALTED.get() {
            // SAFETY: to reset a signal is always allowed.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            return;
        }
        // SAFETY: the words are there, and a failure to write them changes nothing.
        unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
        loop {
            // SAFETY: `pause` may be called in a signal handler.
            unsafe { libc::pause() };
        }
    }
}

/// What happens between the hook and the end of the process.
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
        // SAFETY: the handler keeps to what such a handler may do, and is never removed.
        let handler = unsafe { AddVectoredExceptionHandler(1, Some(on_step)) };
        assert!(!handler.is_null(), "no memory for the handler of single steps");
    }

    /// The handler holds the thread, once the hook is left.
    pub(super) fn hold() {
        // SAFETY: the stack is as before, and of the flags only the one is changed, whose traps `on_step` takes.
        unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    }

    /// Goes on step by step, up to the instruction that would end the process.
    unsafe extern "system" fn on_step(exception: *mut EXCEPTION_POINTERS) -> i32 {
        // SAFETY: the system passes what it made for this call.
        let exception = unsafe { &*exception };
        // SAFETY: as above.
        let record = unsafe { &*exception.ExceptionRecord };
        if record.ExceptionCode != EXCEPTION_SINGLE_STEP || !super::HALTED.get() {
            return EXCEPTION_CONTINUE_SEARCH;
        }
        // SAFETY: as above; nobody else looks at it during the call.
        let context = unsafe { &mut *exception.ContextRecord };
        let next = ptr::with_exposed_provenance(context.Rip as usize);
        // SAFETY: the thread is about to execute that.
        if unsafe { is_end(next) } {
            // Sleeping in here would be sleeping inside of the system's handling of exceptions. A function is entered with its
            // return address on top of the caller's 32 bytes; this one never returns.
            context.Rip = rest as *const () as u64;
            context.Rsp = (context.Rsp & !0xF) - 0x28;
            context.EFlags &= !TRAP;
        } else {
            context.EFlags |= TRAP;
        }
        EXCEPTION_CONTINUE_EXECUTION
    }

    /// Whether an instruction ends the process.
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

    /// Where the thread stays.
    extern "system" fn rest() -> ! {
        eprint!("{}", super::WORDS);
        super::halt()
    }
}

#[cfg(not(any(unix, all(windows, target_arch = "x86_64"))))]
mod signal {
    pub(super) fn install() {}

    /// Nothing comes between the hook and the end of the process.
    pub(super) fn hold() {
        eprint!("{}", super::WORDS);
        super::halt();
    }
}
