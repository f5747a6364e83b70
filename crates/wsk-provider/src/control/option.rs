//! Socket options (contract 4.16).

use std::ptr;

use wsk_sys::nt::{NTSTATUS, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    IPPROTO_IPV6, IPV6_V6ONLY, SO_BROADCAST, SO_CONDITIONAL_ACCEPT, SO_EXCLUSIVEADDRUSE, SO_KEEPALIVE,
    SO_RCVBUF, SO_REUSEADDR, SO_WSK_SECURITY, SOL_SOCKET, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED,
};

use super::{Arguments, NAME, end, refuse};
use crate::address::{Family, Sharing};
use crate::behaviours::{Behaviours, ConditionalStream, MissingInspection};
use crate::request::Request;
use crate::socket::{Call, Category, State};
use crate::transport::status_of;

/// The options this provider knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Conditional,
    Exclusive,
    Reuse,
    Broadcast,
    KeepAlive,
    ReceiveBuffer,
    V6Only,
    Security,
}

impl Known {
    fn find(level: u32, code: u32) -> Option<Self> {
        match (level, code) {
            (SOL_SOCKET, SO_CONDITIONAL_ACCEPT) => Some(Self::Conditional),
            (SOL_SOCKET, SO_EXCLUSIVEADDRUSE) => Some(Self::Exclusive),
            (SOL_SOCKET, SO_REUSEADDR) => Some(Self::Reuse),
            (SOL_SOCKET, SO_BROADCAST) => Some(Self::Broadcast),
            (SOL_SOCKET, SO_KEEPALIVE) => Some(Self::KeepAlive),
            (SOL_SOCKET, SO_RCVBUF) => Some(Self::ReceiveBuffer),
            (SOL_SOCKET, SO_WSK_SECURITY) => Some(Self::Security),
            (IPPROTO_IPV6, IPV6_V6ONLY) => Some(Self::V6Only),
            _ => None,
        }
    }

    /// Whether a socket of the category has the option.
    fn belongs_to(self, call: &Call) -> bool {
        use Category::{Basic, Connection, Datagram, Listen, Stream};
        match self {
            Self::Conditional => matches!(call.category, Listen | Stream),
            Self::Broadcast => call.category == Datagram,
            Self::KeepAlive => matches!(call.category, Listen | Connection | Stream),
            Self::V6Only => call.family == Family::V6 && call.category != Basic,
            Self::Exclusive | Self::Reuse | Self::ReceiveBuffer | Self::Security => call.category != Basic,
        }
    }

    /// What a socket answers that has not the option. Conditional accept is refused as by a transport that cannot do it.
    fn foreign(self, behaviours: &Behaviours) -> NTSTATUS {
        match self {
            Self::Conditional => behaviours.conditional_unsupported.status(),
            _ => behaviours.unknown_option.status(),
        }
    }

    /// The size of its value.
    fn size(self) -> usize {
        if self == Self::Security { size_of::<PSECURITY_DESCRIPTOR>() } else { size_of::<u32>() }
    }

    /// Whether it has to be set before the bind.
    fn precedes_bind(self) -> bool {
        matches!(self, Self::Conditional | Self::Exclusive | Self::Reuse | Self::V6Only | Self::Security)
    }
}

/// OPT-02: the documented options ask for an IRP.
fn check_irp(call: &Call, request: Option<&Request>) {
    if request.is_none() {
        call.provider().violation("OPT-02", NAME, "a socket option is used without an IRP");
    }
}

/// Sets an option.
///
/// # Safety
/// The buffers are as long as the arguments say.
pub(super) unsafe fn set(call: &Call, mut request: Option<Request>, arguments: Arguments) -> NTSTATUS {
    let provider = call.provider();
    let behaviours = provider.steering.behaviours();
    if !arguments.has_no_output() {
        provider.advice("OPT-01", NAME, "outputs are given when an option is set");
    }
    let Some(known) = Known::find(arguments.level, arguments.code) else {
        return refuse(call, request, behaviours.unknown_option.status());
    };
    check_irp(call, request.as_ref());
    if !known.belongs_to(call) {
        return refuse(call, request, known.foreign(&behaviours));
    }
    if arguments.input.is_null() || arguments.input_size < known.size() {
        let detail =
            format!("InputSize is {}, and the option has {} bytes", arguments.input_size, known.size());
        provider.violation("OPT-01", NAME, &detail);
    }
    if known == Known::Security {
        // SAFETY: forwarded to the caller.
        let descriptor = unsafe { arguments.read::<PSECURITY_DESCRIPTOR>() };
        if let (Ok(descriptor), Some(request)) = (descriptor, &mut request) {
            request.borrows_descriptor(descriptor);
        }
        let result = descriptor.and_then(|descriptor| set_security(call, descriptor));
        // SAFETY: forwarded to the caller.
        return unsafe { end(call, request, &arguments, result) };
    }
    // SAFETY: forwarded to the caller.
    let result = unsafe { arguments.read::<u32>() }.and_then(|value| set_number(call, known, value));
    // SAFETY: forwarded to the caller.
    unsafe { end(call, request, &arguments, result) }
}

/// Whether the socket is past the point where options that precede the bind can be set.
fn is_bound(state: &State) -> bool {
    state.part.local_address().is_some() || state.part.is_past_bind()
}

fn set_security(call: &Call, descriptor: PSECURITY_DESCRIPTOR) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    if provider.descriptors.rights(descriptor).is_none() {
        provider.violation("SOCK-15", NAME, "the security descriptor is not one of WSK_CACHE_SD");
        return Err(STATUS_INVALID_PARAMETER);
    }
    let mut state = call.lock();
    if is_bound(&state) {
        return Err(provider.steering.behaviours().option_after_bind.status());
    }
    state.options.descriptor = descriptor;
    Ok(0)
}

fn set_number(call: &Call, known: Known, value: u32) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    let behaviours = provider.steering.behaviours();
    let on = value != 0;
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    if known.precedes_bind() && is_bound(&state) {
        return Err(match known {
            Known::Conditional => behaviours.conditional_after_bind.status(),
            _ => behaviours.option_after_bind.status(),
        });
    }
    match known {
        Known::Conditional => {
            drop(state);
            return set_conditional(call, on);
        }
        Known::Exclusive => switch_sharing(&mut state.options.sharing, Sharing::Exclusive, on),
        Known::Reuse => switch_sharing(&mut state.options.sharing, Sharing::Reuse, on),
        Known::V6Only => state.options.v6_only = on,
        Known::Broadcast => state.options.broadcast = on,
        Known::KeepAlive => state.options.keep_alive = on,
        Known::ReceiveBuffer => state.options.receive_buffer = Some(value as usize),
        Known::Security => return Err(STATUS_INVALID_PARAMETER),
    }
    // A socket that has a port or a stream takes it over at once; any other, when it gets one.
    let tuned = state.part.tune().map_or(Ok(()), |tune| match known {
        Known::KeepAlive => tune.set_keep_alive(on),
        Known::ReceiveBuffer => tune.set_receive_buffer(value as usize),
        Known::Broadcast => tune.set_broadcast(on),
        _ => Ok(()),
    });
    tuned.map(|()| 0).map_err(|error| status_of(&error))
}

/// Switches one of the two sharing options. The one set last counts, and clearing one leaves the other.
fn switch_sharing(sharing: &mut Sharing, form: Sharing, on: bool) {
    if on {
        *sharing = form;
    } else if *sharing == form {
        *sharing = Sharing::Default;
    }
}

/// `SO_CONDITIONAL_ACCEPT` before the bind.
fn set_conditional(call: &Call, on: bool) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    let behaviours = provider.steering.behaviours();
    if call.category == Category::Stream && behaviours.conditional_stream == ConditionalStream::Refused {
        return Err(STATUS_NOT_SUPPORTED);
    }
    if !provider.steering.get(|config| config.conditional_accept) {
        return Err(behaviours.conditional_unsupported.status());
    }
    let mut state = call.lock();
    // SAFETY: the client keeps its table alive as long as the socket (CLOSE-17).
    let table = unsafe { state.tables.listen.as_ref() };
    let complete =
        table.is_some_and(|table| table.WskInspectEvent.is_some() && table.WskAbortEvent.is_some());
    if on && !complete && behaviours.missing_inspection == MissingInspection::Refused {
        drop(state);
        provider.violation("INSP-30", NAME, "conditional accept is switched on and a callback of it is null");
        return Err(STATUS_INVALID_PARAMETER);
    }
    state.options.conditional = on;
    Ok(0)
}

/// Reads an option.
///
/// # Safety
/// The buffers are as long as the arguments say.
pub(super) unsafe fn get(call: &Call, request: Option<Request>, arguments: Arguments) -> NTSTATUS {
    let provider = call.provider();
    let behaviours = provider.steering.behaviours();
    if !arguments.input.is_null() {
        provider.advice("OPT-01", NAME, "an input is given when an option is read");
    }
    if !arguments.returned.is_null() {
        provider.advice("OPT-01", NAME, "OutputSizeReturned is given when an option is read");
    }
    let Some(known) = Known::find(arguments.level, arguments.code) else {
        return refuse(call, request, behaviours.unknown_option.status());
    };
    if !known.belongs_to(call) {
        return refuse(call, request, known.foreign(&behaviours));
    }
    check_irp(call, request.as_ref());
    // One byte is what reading it gives, and a client may know that (OPT-13).
    let size = if known == Known::KeepAlive { 1 } else { known.size() };
    if arguments.output.is_null() || arguments.output_size < size {
        let detail = format!("OutputSize is {}, and the option has {size} bytes", arguments.output_size);
        provider.violation("OPT-01", NAME, &detail);
    }
    // SAFETY: forwarded to the caller.
    let result = unsafe { read_option(call, known, &arguments) };
    // SAFETY: forwarded to the caller.
    unsafe { end(call, request, &arguments, result) }
}

/// # Safety
/// The output has room for `output_size` bytes.
unsafe fn read_option(call: &Call, known: Known, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    let options = call.lock().options.clone();
    let value = match known {
        Known::Conditional => u32::from(options.conditional),
        Known::Exclusive => u32::from(options.sharing == Sharing::Exclusive),
        Known::Reuse => u32::from(options.sharing == Sharing::Reuse),
        Known::Broadcast => u32::from(options.broadcast),
        Known::V6Only => u32::from(options.v6_only),
        Known::ReceiveBuffer => options.receive_buffer.map_or(DEFAULT_RECEIVE_BUFFER, |bytes| bytes as u32),
        // One byte is what reading it gives (OPT-13).
        // SAFETY: forwarded to the caller.
        Known::KeepAlive => return unsafe { arguments.write(u8::from(options.keep_alive)) },
        Known::Security => {
            // SAFETY: forwarded to the caller.
            return unsafe { read_security(call, options.descriptor, arguments) };
        }
    };
    // SAFETY: forwarded to the caller.
    unsafe { arguments.write(value) }
}

/// What `SO_RCVBUF` shows before it was set.
const DEFAULT_RECEIVE_BUFFER: u32 = 64 * 1024;

/// # Safety
/// The output has room for `output_size` bytes.
unsafe fn read_security(
    call: &Call,
    descriptor: PSECURITY_DESCRIPTOR,
    arguments: &Arguments,
) -> Result<usize, NTSTATUS> {
    let descriptors = &call.provider().descriptors;
    let copy = if descriptor.is_null() {
        // The default descriptor: an empty list, which lets nobody in.
        let empty: [u64; 6] = [1 | 0x8004 << 16, 0, 20 << 32, 2 | 8 << 16, 0, 0];
        // SAFETY: the bytes above are a self-relative descriptor whose list is at offset 20 and empty.
        unsafe { descriptors.add(ptr::from_ref(&empty).cast_mut().cast()) }
    } else {
        descriptors.share(descriptor);
        descriptor
    };
    // SAFETY: forwarded to the caller.
    let written = unsafe { arguments.write(copy) };
    if written.is_err() {
        descriptors.release(copy);
    }
    written
}
