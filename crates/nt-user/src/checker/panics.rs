//! Panics that would cross the kernel boundary.
//!
//! Nothing unwinds through the C ABI: a panic that reaches an `extern "system"` function ends a Rust process. In a
//! driver it would be a bug check, and that is what it becomes here, on the kernel it happened on:
//!
//! ```text
//!   panic in a callback ──unwinds──► extern "system" boundary ──hook: "cannot unwind"──► LIFE-18 is reported, and
//!                                                                 in a callback or routine: the kernel stops
//!                                                                 in a system thread:       the thread has ended
//!                                                               and the host thread sleeps for ever
//! ```
//!
//! The host thread can't be ended, because ending it means unwinding; it is the price of a test process that survives
//! to tell what happened. On a thread that no kernel started the process aborts as usual.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use super::context::Context;
use crate::thread::this;

thread_local! {
    /// The panic that is unwinding, in words.
    static UNWINDING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the standard library says when a panic can go no further.
const CANNOT_UNWIND: [&str; 2] =
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// The words of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Whether the panic could go no further on a thread of a kernel; if so, this does not return.
fn stop_at_boundary(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("a panic without words");
    if !CANNOT_UNWIND.contains(&text) {
        UNWINDING.with_borrow_mut(|unwinding| {
            *unwinding = match info.location() {
                Some(place) => format!("`{text}` at {place}"),
                None => format!("`{text}`"),
            };
        });
        return;
    }
    let Some(kernel) = this::own_kernel() else { return };
    let nest = super::context::current();
    let whom = match nest.innermost {
        Context::Thread | Context::Unload => "a system thread",
        Context::Callback { name } => name,
        Context::Completion => "a completion routine",
        Context::Cancel => "a cancel routine",
        Context::Dpc => "a deferred procedure call",
        Context::WorkItem => "a work item",
    };
    let detail =
        UNWINDING.with_borrow(|unwinding| format!("a panic crossed the boundary of {whom}: {unwinding}"));
    kernel.panicked(whom, detail, nest.innermost != Context::Thread);
    halt();
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
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // First, so that the standard library's words about aborting are not printed when nothing is aborted.
            stop_at_boundary(info);
            former(info);
        }));
    });
}
