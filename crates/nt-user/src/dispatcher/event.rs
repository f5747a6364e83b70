//! Events.

use wsk_sys::nt::{APC_LEVEL, DISPATCH_LEVEL, KEVENT, NOTIFICATION_EVENT, SYNCHRONIZATION_EVENT};

use super::{Kind, Object};
use crate::checker::argument;
use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::thread::current::{self, CurrentKernel};

/// Initializes an event; see [`wsk_sys::nt::KeInitializeEvent`].
///
/// # Safety
/// `event` points to non-paged storage that is not in use as an event.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeInitializeEvent(event: *mut KEVENT, event_type: i32, state: u8) {
    const CALL: &str = "KeInitializeEvent";
    let kernel = current::kernel(CALL);
    let kind = match event_type {
        NOTIFICATION_EVENT => Kind::NotificationEvent,
        SYNCHRONIZATION_EVENT => Kind::SynchronizationEvent,
        other => kernel.bug_check(rule::OBJECT, CALL, format!("{other} is not an event type")),
    };
    argument::check_aligned(&kernel, CALL, "an event", event);
    // SAFETY: the caller guarantees the storage.
    if let Some(object) = unsafe { Object::from_raw(event.cast()) } {
        object.initialize(kind, state != 0);
    }
}

/// Returns the event at `event`; stops the kernel if there is none.
///
/// # Safety
/// `event` points to storage of an event that stays alive while it is used.
unsafe fn event<'a>(kernel: &CurrentKernel, call: &'static str, event: *mut KEVENT) -> Object<'a> {
    // SAFETY: the caller guarantees storage of an event that stays alive.
    let object = unsafe { Object::from_raw(event.cast()) };
    let is_event = |object: &Object<'_>| {
        matches!(object.kind(), Some(Kind::NotificationEvent | Kind::SynchronizationEvent))
    };
    match object.filter(is_event) {
        Some(object) => object,
        None => kernel.bug_check(rule::OBJECT, call, format!("there is no initialized event at {event:p}")),
    }
}

/// Signals an event; see [`wsk_sys::nt::KeSetEvent`].
///
/// # Safety
/// `event` points to an initialized event that lives until it is signaled.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeSetEvent(event: *mut KEVENT, _increment: i32, wait: u8) -> i32 {
    const CALL: &str = "KeSetEvent";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, if wait == 0 { DISPATCH_LEVEL } else { APC_LEVEL });
    // SAFETY: the caller guarantees an initialized event.
    let object = unsafe { self::event(&kernel, CALL, event) };
    object.signal(&kernel)
}

/// Makes an event not signaled; see [`wsk_sys::nt::KeClearEvent`].
///
/// # Safety
/// `event` points to an initialized event.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeClearEvent(event: *mut KEVENT) {
    const CALL: &str = "KeClearEvent";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees an initialized event.
    unsafe { self::event(&kernel, CALL, event) }.reset();
}

/// Makes an event not signaled and returns its previous state; see [`wsk_sys::nt::KeResetEvent`].
///
/// # Safety
/// `event` points to an initialized event.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeResetEvent(event: *mut KEVENT) -> i32 {
    const CALL: &str = "KeResetEvent";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees an initialized event.
    unsafe { self::event(&kernel, CALL, event) }.reset()
}

/// Returns the signal state of an event; see [`wsk_sys::nt::KeReadStateEvent`].
///
/// # Safety
/// `event` points to an initialized event.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeReadStateEvent(event: *mut KEVENT) -> i32 {
    const CALL: &str = "KeReadStateEvent";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees an initialized event.
    unsafe { self::event(&kernel, CALL, event) }.state()
}
