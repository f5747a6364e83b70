//! Extension interfaces: more functions and callbacks for a socket, under an NPI identifier of their own
//! (contract 4.17).
//!
//! Windows has published none. The embedder of a provider can configure some ([`Config::extensions`]), and a
//! client finds them as it would on Windows:
//!
//! ```text
//!   SIO_WSK_REGISTER_EXTENSION ──► Attachment (one for each socket and extension)
//!     │                              ▲ ProviderContext of the extension's functions
//!     ▼                              │
//!   SO_WSK_EVENT_CALLBACK with the extension's NPI identifier switches its events
//!                                    │ Attachment::raise, while the event is on
//!                                    ▼
//!                                  the callbacks of the client's table, with the client's context
//! ```
//!
//! [`Config::extensions`]: crate::Config::extensions

use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    NPIID, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED, WSK_EVENT_DISABLE,
    WSK_EXTENSION_CONTROL_IN, WSK_EXTENSION_CONTROL_OUT,
};

use super::events::{Switch, check_enabling, events_to_disable, stop};
use super::{Call, Category, Context, Socket};
use crate::behaviours::{ForeignEvents, NullCallback};
use crate::client::same_guid;
use crate::request::Request;

/// An extension interface of a provider.
pub trait Extension: Send + Sync + Debug + 'static {
    /// Its NPI identifier.
    fn id(&self) -> NPIID;

    /// The bits of its event callbacks in an event mask; `WSK_EVENT_DISABLE` is none.
    fn events(&self) -> u32;

    /// `ProviderDispatch`: the table of its functions, which stays. Their first argument is the
    /// `ProviderContext`.
    fn dispatch(&self) -> *const c_void;

    /// Returns whether the client's table has a callback for the event.
    ///
    /// # Safety
    /// `dispatch` is null or the `ClientDispatch` of a client of this extension, alive.
    unsafe fn has_callback(&self, dispatch: *const c_void, event: u32) -> bool;

    /// Called when a client registers for it on a socket. The address of the attachment is the
    /// `ProviderContext`.
    fn attached(&self, attachment: &Arc<Attachment>);
}

/// An extension on one socket. It lives as long as the provider knows the socket.
#[derive(Debug)]
pub struct Attachment {
    socket: Weak<Socket>,
    extension: Arc<dyn Extension>,
    index: usize,
    /// `ClientContext`.
    context: Context,
    /// `ClientDispatch`.
    dispatch: *const c_void,
}

// SAFETY: the pointers are the client's, which the provider passes back from any thread by contract (EVT-55).
unsafe impl Send for Attachment {}
// SAFETY: the pointers are the client's, which the provider passes back from any thread by contract (EVT-55).
unsafe impl Sync for Attachment {}

/// A call of an extension function in progress. The socket must not be closed during the call (CLOSE-01).
#[derive(Debug)]
pub struct ExtensionCall {
    _call: Call,
}

impl Attachment {
    /// Runs `callback` with the client's context and table if `event` is enabled. `None` if it is disabled,
    /// or the socket is closed.
    ///
    /// # Panics
    /// If the extension has no such event.
    pub fn raise<R>(
        &self,
        event: u32,
        name: &'static str,
        callback: impl FnOnce(*mut c_void, *const c_void) -> R,
    ) -> Option<R> {
        assert!(event.is_power_of_two() && self.extension.events() & event != 0, "no event {event:#x}");
        let socket = self.socket.upgrade()?;
        let running = socket.lock().begin_switched(&socket, Switch::Extension(self.index, event))?;
        let result = running.call(name, |_| callback(self.context.0, self.dispatch));
        drop(running);
        Some(result)
    }

    /// Begins a call of the extension's function `name`; it ends when the result is dropped.
    ///
    /// # Errors
    /// `STATUS_FILE_FORCED_CLOSED` if the socket is dead or closed. Reports the client if it was notified
    /// before.
    pub fn enter(&self, name: &'static str) -> Result<ExtensionCall, NTSTATUS> {
        let socket = self.socket.upgrade().ok_or(wsk_sys::STATUS_FILE_FORCED_CLOSED)?;
        // SAFETY: the socket is one of this crate, and alive.
        let call = unsafe { Call::enter(name, socket.raw()) }?;
        match call.check() {
            None => Ok(ExtensionCall { _call: call }),
            Some(status) => Err(status),
        }
    }
}

/// `SIO_WSK_REGISTER_EXTENSION`.
///
/// # Safety
/// `NpiId` of the input is null or points to a GUID that is readable during the call.
pub(crate) unsafe fn register(
    call: &Call,
    input: WSK_EXTENSION_CONTROL_IN,
) -> Result<WSK_EXTENSION_CONTROL_OUT, NTSTATUS> {
    let provider = call.provider();
    if input.NpiId.is_null() {
        provider.violation("IOC-06", call.name, "NpiId is null");
        return Err(STATUS_INVALID_PARAMETER);
    }
    // SAFETY: the caller guarantees that `NpiId` of the input is null or points to a GUID that is readable
    // during the call.
    let id = unsafe { input.NpiId.read_unaligned() };
    let known = provider.live_config.get(|config| config.extensions.clone());
    let extension =
        known.into_iter().find(|known| same_guid(&known.id(), &id)).ok_or(STATUS_NOT_SUPPORTED)?;
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    if state.extensions.iter().any(|attachment| same_guid(&attachment.extension.id(), &id)) {
        return Err(STATUS_INVALID_DEVICE_STATE);
    }
    let attachment = Arc::new(Attachment {
        socket: Arc::downgrade(call),
        extension: Arc::clone(&extension),
        index: state.extensions.len(),
        context: Context(input.ClientContext),
        dispatch: input.ClientDispatch,
    });
    state.events.add_extension(extension.events() & !WSK_EVENT_DISABLE);
    state.extensions.push(Arc::clone(&attachment));
    drop(state);
    extension.attached(&attachment);
    Ok(WSK_EXTENSION_CONTROL_OUT {
        ProviderContext: Arc::as_ptr(&attachment).cast_mut().cast(),
        ProviderDispatch: extension.dispatch(),
    })
}

/// Returns the extension of the socket with this identifier.
pub(super) fn find(call: &Call, id: &NPIID) -> Option<usize> {
    call.lock().extensions.iter().position(|attachment| same_guid(&attachment.extension.id(), id))
}

/// Returns the events of all extensions of the socket.
pub(super) fn events_of(call: &Call) -> u32 {
    call.lock().extensions.iter().fold(0, |mask, attachment| mask | attachment.extension.events())
}

/// Returns the events of `mask` that the extension has.
fn valid_events(call: &Call, attachment: &Attachment, mask: u32) -> Result<u32, NTSTATUS> {
    let behaviours = call.provider().live_config.behaviours();
    let own = attachment.extension.events() & !WSK_EVENT_DISABLE;
    if own == 0 && call.category == Category::Basic {
        return Err(behaviours.events_on_basic.status());
    }
    if mask & !own != 0 && behaviours.foreign_events == ForeignEvents::Refused {
        return Err(STATUS_INVALID_PARAMETER);
    }
    Ok(mask & own)
}

/// Enables the events of an extension.
pub(super) fn enable(call: &Call, with_irp: bool, index: usize, mask: u32) -> Result<(), NTSTATUS> {
    let provider = call.provider();
    check_enabling(call, with_irp);
    let attachment = Arc::clone(&call.lock().extensions[index]);
    let own = valid_events(call, &attachment, mask)?;
    for bit in (0..u32::BITS).map(|shift| 1 << shift).filter(|bit| own & bit != 0) {
        // SAFETY: the client keeps its table alive as long as the socket (CLOSE-17).
        if unsafe { attachment.extension.has_callback(attachment.dispatch, bit) } {
            continue;
        }
        provider.violation(
            "EVT-34",
            call.name,
            &format!("event {bit:#x} is enabled, but its callback is null"),
        );
        if provider.live_config.behaviours().null_callback == NullCallback::Refused {
            return Err(STATUS_INVALID_PARAMETER);
        }
    }
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    state.events.switch_on_extension(index, own);
    Ok(())
}

/// Disables an event of an extension.
pub(super) fn disable(call: &Call, request: Option<Request>, index: usize, mask: u32) -> NTSTATUS {
    let refuse = |request: Option<Request>, status| match request {
        None => status,
        Some(request) => request.fail(call.provider(), status),
    };
    let attachment = Arc::clone(&call.lock().extensions[index]);
    let own = match events_to_disable(call, mask).and_then(|mask| valid_events(call, &attachment, mask)) {
        Ok(own) => own,
        Err(status) => return refuse(request, status),
    };
    let state = call.lock();
    if let Some(status) = state.refused() {
        drop(state);
        return refuse(request, status);
    }
    let bits = (0..u32::BITS).map(|shift| 1 << shift).filter(|bit| own & bit != 0);
    stop(call, state, request, bits.map(|bit| Switch::Extension(index, bit)))
}
