//! Socket options (contract 4.16).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr;

use wsk_sys::nt::{NTSTATUS, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    IP_ADD_MEMBERSHIP, IP_MULTICAST_IF, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPV6_ADD_MEMBERSHIP,
    IPV6_V6ONLY, SO_BROADCAST, SO_CONDITIONAL_ACCEPT, SO_EXCLUSIVEADDRUSE, SO_KEEPALIVE, SO_RCVBUF,
    SO_REUSEADDR, SO_WSK_SECURITY, SOL_SOCKET, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE,
    STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED, TCP_KEEPIDLE, TCP_KEEPINTVL,
};

use super::table::{OptionRow, Sockets, Value};
use super::{Arguments, NAME, end, refuse};
use crate::address::{Family, Sharing};
use crate::behaviours::{Behaviours, ConditionalStream, MissingInspection};
use crate::request::Request;
use crate::socket::{Call, Category, State};
use crate::transport::{Tuning, status_of};

impl OptionRow {
    /// Returns whether a socket has the option.
    fn belongs_to(&self, call: &Call) -> bool {
        use Category::{Basic, Connection, Datagram, Listen, Stream};
        let category = match self.sockets {
            Sockets::Listening => matches!(call.category, Listen | Stream),
            Sockets::Tcp => matches!(call.category, Listen | Connection | Stream),
            Sockets::Connecting => matches!(call.category, Connection | Stream),
            Sockets::Datagram => call.category == Datagram,
            Sockets::Bindable => call.category != Basic,
            Sockets::None => false,
        };
        category
            && match self.level {
                IPPROTO_IP => call.family == Family::V4 || !call.lock().options.v6_only,
                IPPROTO_IPV6 => call.family == Family::V6,
                _ => true,
            }
    }

    /// Returns the status for a socket that does not have the option. Conditional accept is refused as by a
    /// transport without that feature.
    fn foreign(&self, behaviours: &Behaviours) -> NTSTATUS {
        match (self.level, self.code) {
            (SOL_SOCKET, SO_CONDITIONAL_ACCEPT) => behaviours.conditional_unsupported.status(),
            _ => behaviours.unknown_option.status(),
        }
    }
}

/// Returns the row of an option that the socket has, or the status.
fn known(call: &Call, arguments: &Arguments) -> Result<&'static OptionRow, NTSTATUS> {
    let behaviours = call.provider().live_config.behaviours();
    let row = OptionRow::find(arguments.level, arguments.code).ok_or(behaviours.unknown_option.status())?;
    if row.belongs_to(call) { Ok(row) } else { Err(row.foreign(&behaviours)) }
}

/// Checks that there is an IRP, as the documented options require (OPT-02).
fn check_irp(call: &Call, request: Option<&Request>) {
    if request.is_none() {
        call.provider().violation("OPT-02", NAME, "a socket option is set or read without an IRP");
    }
}

/// Sets an option.
///
/// # Safety
/// The buffers are as long as the arguments say.
pub(super) unsafe fn set(call: &Call, mut request: Option<Request>, arguments: Arguments) -> NTSTATUS {
    let provider = call.provider();
    if !arguments.has_no_output() {
        provider.advice("OPT-01", NAME, "output parameters are passed when an option is set");
    }
    let row = match known(call, &arguments) {
        Ok(row) => row,
        Err(status) => return refuse(call, request, status),
    };
    check_irp(call, request.as_ref());
    let least = row.least_size();
    if arguments.input_size < least {
        let detail = format!("InputSize is {}, but {} has {least} bytes", arguments.input_size, row.name);
        provider.violation("OPT-01", NAME, &detail);
    }
    if row.value == Value::Descriptor {
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        let descriptor = unsafe { arguments.read::<PSECURITY_DESCRIPTOR>() };
        if let (Ok(descriptor), Some(request)) = (descriptor, &mut request) {
            request.needs_descriptor(descriptor);
        }
        let result = descriptor.and_then(|descriptor| set_security(call, descriptor));
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        return unsafe { end(call, request, &arguments, result) };
    }
    let result = match row.value {
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        Value::Membership => unsafe { arguments.read::<[[u8; 4]; 2]>() }
            .and_then(|[group, interface]| set_group(call, row, group.into(), interface.into())),
        Value::MembershipV6 => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.read::<[[u8; 4]; 5]>() }.and_then(|[a, b, c, d, interface]| {
                let group = [a, b, c, d].map(u32::from_be_bytes);
                let bits = group.into_iter().fold(0, |bits, word| bits << 32 | u128::from(word));
                set_group_v6(call, row, bits.into(), u32::from_ne_bytes(interface))
            })
        }
        Value::Byte | Value::Flag if arguments.input_size < size_of::<u32>() => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.read::<u8>() }.and_then(|value| set_number(call, row, value.into()))
        }
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        _ => unsafe { arguments.read::<u32>() }.and_then(|value| set_number(call, row, value)),
    };
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    unsafe { end(call, request, &arguments, result) }
}

/// Returns whether it is too late for options that must be set before the bind.
fn is_bound(state: &State) -> bool {
    state.role.local_address().is_some() || state.role.is_past_bind()
}

fn set_security(call: &Call, descriptor: PSECURITY_DESCRIPTOR) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    if provider.descriptors.rights(descriptor).is_none() {
        provider.violation("SOCK-15", NAME, "the security descriptor was not cached with WSK_CACHE_SD");
        return Err(STATUS_INVALID_PARAMETER);
    }
    let mut state = call.lock();
    if is_bound(&state) {
        return Err(provider.live_config.behaviours().option_after_bind.status());
    }
    state.options.descriptor = descriptor;
    Ok(0)
}

fn set_number(call: &Call, row: &OptionRow, value: u32) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    let behaviours = provider.live_config.behaviours();
    let on = value != 0;
    if !row.takes(value) {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    let conditional = (row.level, row.code) == (SOL_SOCKET, SO_CONDITIONAL_ACCEPT);
    if row.before_bind && is_bound(&state) {
        return Err(if conditional {
            behaviours.conditional_after_bind.status()
        } else {
            behaviours.option_after_bind.status()
        });
    }
    if conditional {
        drop(state);
        return set_conditional(call, on);
    }
    let former = state.options.clone();
    let options = &mut state.options;
    match (row.level, row.code) {
        (SOL_SOCKET, SO_EXCLUSIVEADDRUSE) => switch_sharing(&mut options.sharing, Sharing::Exclusive, on),
        (SOL_SOCKET, SO_REUSEADDR) => switch_sharing(&mut options.sharing, Sharing::Reuse, on),
        (IPPROTO_IPV6, IPV6_V6ONLY) => options.v6_only = on,
        (SOL_SOCKET, SO_BROADCAST) => options.broadcast = on,
        (SOL_SOCKET, SO_KEEPALIVE) => options.keep_alive = on,
        (SOL_SOCKET, SO_RCVBUF) => options.receive_buffer = Some(value as usize),
        // An interface index in place of its address.
        (IPPROTO_IP, IP_MULTICAST_IF) if on && value.to_ne_bytes()[0] == 0 => {
            return Err(STATUS_INVALID_PARAMETER);
        }
        _ => options.set_number(row.level, row.code, value),
    }
    // A socket that has a port or a stream applies it at once; any other applies it when it gets one.
    let tuning = options.tuning(row.level, row.code);
    let tuned = state.role.tune().map_or(Ok(()), |tune| match (row.level, row.code, &tuning) {
        (SOL_SOCKET, SO_RCVBUF, _) => tune.set_receive_buffer(value as usize),
        (SOL_SOCKET, SO_BROADCAST, _) => tune.set_broadcast(on),
        (_, _, Some(tuning)) => tune.tune(tuning),
        _ => Ok(()),
    });
    if let Err(error) = tuned {
        state.options = former;
        return Err(status_of(&error));
    }
    Ok(0)
}

/// Applies a membership to the transport, for which the socket must be bound.
fn tune_bound(call: &Call, tuning: &Tuning) -> Result<usize, NTSTATUS> {
    let state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    let tune = state.role.tune().ok_or(STATUS_INVALID_DEVICE_STATE)?;
    tune.tune(tuning).map(|()| 0).map_err(|error| status_of(&error))
}

fn set_group(call: &Call, row: &OptionRow, group: Ipv4Addr, interface: Ipv4Addr) -> Result<usize, NTSTATUS> {
    let joined = row.code == IP_ADD_MEMBERSHIP;
    tune_bound(call, &Tuning::Group { joined, group, interface })
}

fn set_group_v6(call: &Call, row: &OptionRow, group: Ipv6Addr, interface: u32) -> Result<usize, NTSTATUS> {
    let joined = row.code == IPV6_ADD_MEMBERSHIP;
    tune_bound(call, &Tuning::GroupV6 { joined, group, interface })
}

/// `SIO_KEEPALIVE_VALS`: the switch, and two times in milliseconds.
///
/// # Safety
/// The input has `input_size` bytes.
pub(super) unsafe fn set_keep_alive(call: &Call, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    // SAFETY: the caller guarantees that the input has `input_size` bytes.
    let [on, idle, interval] = unsafe { arguments.read::<[u32; 3]>() }?;
    let rows = [
        (IPPROTO_TCP, TCP_KEEPIDLE, (idle / 1000).max(1)),
        (IPPROTO_TCP, TCP_KEEPINTVL, (interval / 1000).max(1)),
        (SOL_SOCKET, SO_KEEPALIVE, on),
    ];
    for (level, code, value) in rows {
        let row = OptionRow::find(level, code).filter(|row| row.belongs_to(call));
        let row = row.ok_or(STATUS_INVALID_DEVICE_REQUEST)?;
        // Without the switch the times are unchanged.
        if on != 0 || code == SO_KEEPALIVE && level == SOL_SOCKET {
            set_number(call, row, value)?;
        }
    }
    Ok(0)
}

/// Sets one of the two sharing options. The one set last counts, and clearing one leaves the other unchanged.
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
    let behaviours = provider.live_config.behaviours();
    if call.category == Category::Stream && behaviours.conditional_stream == ConditionalStream::Refused {
        return Err(STATUS_NOT_SUPPORTED);
    }
    if !provider.live_config.get(|config| config.conditional_accept) {
        return Err(behaviours.conditional_unsupported.status());
    }
    let mut state = call.lock();
    // SAFETY: the client keeps its table alive as long as the socket (CLOSE-17).
    let table = unsafe { state.tables.listen.as_ref() };
    let complete =
        table.is_some_and(|table| table.WskInspectEvent.is_some() && table.WskAbortEvent.is_some());
    if on && !complete && behaviours.missing_inspection == MissingInspection::Refused {
        drop(state);
        provider.violation(
            "INSP-30",
            NAME,
            "conditional accept is enabled, but WskInspectEvent or WskAbortEvent is null",
        );
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
    if !arguments.input.is_null() {
        provider.advice("OPT-01", NAME, "an input buffer is passed when an option is read");
    }
    if !arguments.returned.is_null() {
        provider.advice("OPT-01", NAME, "OutputSizeReturned is passed when an option is read");
    }
    let row = match known(call, &arguments) {
        Ok(row) => row,
        Err(status) => return refuse(call, request, status),
    };
    let Some(size) = row.read_size(arguments.output_size) else {
        let status = provider.live_config.behaviours().unknown_option.status();
        return refuse(call, request, status);
    };
    check_irp(call, request.as_ref());
    if arguments.output.is_null() || arguments.output_size < size {
        let detail = format!("OutputSize is {}, but {} has {size} bytes", arguments.output_size, row.name);
        provider.violation("OPT-01", NAME, &detail);
    }
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    let result = unsafe { read_option(call, row, size, &arguments) };
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    unsafe { end(call, request, &arguments, result) }
}

/// # Safety
/// The output has room for `output_size` bytes.
unsafe fn read_option(
    call: &Call,
    row: &OptionRow,
    size: usize,
    arguments: &Arguments,
) -> Result<usize, NTSTATUS> {
    let options = call.lock().options.clone();
    let value = match (row.level, row.code) {
        (SOL_SOCKET, SO_CONDITIONAL_ACCEPT) => u32::from(options.conditional),
        (SOL_SOCKET, SO_EXCLUSIVEADDRUSE) => u32::from(options.sharing == Sharing::Exclusive),
        (SOL_SOCKET, SO_REUSEADDR) => u32::from(options.sharing == Sharing::Reuse),
        (SOL_SOCKET, SO_BROADCAST) => u32::from(options.broadcast),
        (SOL_SOCKET, SO_KEEPALIVE) => u32::from(options.keep_alive),
        (SOL_SOCKET, SO_RCVBUF) => options.receive_buffer.map_or(row.default, |bytes| bytes as u32),
        (IPPROTO_IPV6, IPV6_V6ONLY) => u32::from(options.v6_only),
        (SOL_SOCKET, SO_WSK_SECURITY) => {
            // SAFETY: the caller guarantees that the output has room for `output_size` bytes.
            return unsafe { read_security(call, options.descriptor, arguments) };
        }
        _ => options.number(row),
    };
    if size == 1 {
        // SAFETY: the caller guarantees that the output has room for `output_size` bytes.
        return unsafe { arguments.write(u8::from(value != 0)) };
    }
    // SAFETY: the caller guarantees that the output has room for `output_size` bytes.
    unsafe { arguments.write(value) }
}

/// # Safety
/// The output has room for `output_size` bytes.
unsafe fn read_security(
    call: &Call,
    descriptor: PSECURITY_DESCRIPTOR,
    arguments: &Arguments,
) -> Result<usize, NTSTATUS> {
    let descriptors = &call.provider().descriptors;
    let copy = if descriptor.is_null() {
        // The default descriptor has an empty list, which denies all access.
        let empty: [u64; 6] = [1 | 0x8004 << 16, 0, 20 << 32, 2 | 8 << 16, 0, 0];
        // SAFETY: the bytes above are a self-relative descriptor whose list is at offset 20 and empty.
        unsafe { descriptors.add(ptr::from_ref(&empty).cast_mut().cast()) }
    } else {
        descriptors.share(descriptor);
        descriptor
    };
    // SAFETY: the caller guarantees that the output has room for `output_size` bytes.
    let written = unsafe { arguments.write(copy) };
    if written.is_err() {
        descriptors.release(copy);
    }
    written
}
