//! `WskControlClient` (contract 4.21).

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use wsk_sys::nt::{self, GUID, IRP, NTSTATUS, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_TCP, IPPROTO_UDP, NDK_VERSION, NET_IFINDEX, NPI_WSK_INTERFACE_ID,
    PNDK_ADAPTER, PWSK_CLIENT, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, STATUS_BUFFER_OVERFLOW, STATUS_CANCELLED,
    STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED, STATUS_PENDING,
    STATUS_SUCCESS, WSK_CACHE_SD, WSK_EVENT_CALLBACK_CONTROL, WSK_PROVIDER_NDK_DISPATCH, WSK_RELEASE_SD,
    WSK_SET_STATIC_EVENT_CALLBACKS, WSK_TDI_BEHAVIOR, WSK_TDI_DEVICENAME_MAPPING, WSK_TDI_MAP_INFO,
    WSK_TRANSPORT, WSK_TRANSPORT_LIST_CHANGE, WSK_TRANSPORT_LIST_QUERY, WSKNDK_GET_WSK_PROVIDER_NDK_DISPATCH,
};

use super::{Client, ClientCall, same_guid};
use crate::address::Released;
use crate::behaviours::{LateStatic, SecondStatic};
use crate::config::Release;
use crate::provider::Provider;
use crate::request::{Completions, Purpose, Request};
use crate::socket::StaticEvents;

/// Arguments of a control call. A buffer without a length is null, as for
/// [`WskControlSocket`](crate::control).
#[derive(Clone, Copy, Debug)]
struct Arguments {
    input_size: usize,
    input: *mut c_void,
    output_size: usize,
    output: *mut c_void,
    returned: *mut usize,
}

impl Arguments {
    /// Reads the input as a `T`.
    ///
    /// # Safety
    /// The input is null or has `input_size` bytes that make a `T`.
    unsafe fn read<T: Copy>(&self) -> Result<T, NTSTATUS> {
        if self.input.is_null() || self.input_size < size_of::<T>() {
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the caller guarantees the bytes; they may lie unaligned.
        Ok(unsafe { self.input.cast::<T>().read_unaligned() })
    }

    /// Writes the output as a `T`.
    ///
    /// # Safety
    /// The output is null or has room for `output_size` bytes; `returned` is null or points to a `SIZE_T`.
    unsafe fn write<T>(&self, value: T) -> Result<usize, NTSTATUS> {
        if self.output.is_null() || self.output_size < size_of::<T>() {
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the caller guarantees the room; it may lie unaligned.
        unsafe { self.output.cast::<T>().write_unaligned(value) };
        // SAFETY: the caller guarantees that the output is null or has room for `output_size` bytes;
        // `returned` is null or points to a `SIZE_T`.
        unsafe { self.write_size(size_of::<T>()) };
        Ok(size_of::<T>())
    }

    /// Writes the returned size, if the client wants it.
    ///
    /// # Safety
    /// `returned` is null or points to a `SIZE_T`.
    unsafe fn write_size(&self, size: usize) {
        if !self.returned.is_null() {
            // SAFETY: the caller guarantees the variable.
            unsafe { self.returned.write_unaligned(size) };
        }
    }
}

/// `WskControlClient`.
///
/// # Safety
/// As `PFN_WSK_CONTROL_CLIENT`: the client is captured and the buffers are as long as it says.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_control_client(
    client: PWSK_CLIENT,
    code: u32,
    input_size: usize,
    input: *mut c_void,
    output_size: usize,
    output: *mut c_void,
    returned: *mut usize,
    irp: *mut IRP,
) -> NTSTATUS {
    const NAME: &str = "WskControlClient";
    let needs_irp = code == WSK_TRANSPORT_LIST_CHANGE;
    if client.is_null() && irp.is_null() && needs_irp {
        return STATUS_INVALID_PARAMETER;
    }
    // SAFETY: the client passes its own handle.
    let call = match unsafe { ClientCall::enter(NAME, client) } {
        Ok(call) => call,
        Err(status) => return status,
    };
    let [input, output] = [(input_size, input), (output_size, output)]
        .map(|(size, buffer)| if size == 0 { ptr::null_mut() } else { buffer });
    let provider = call.provider();
    let request = if irp.is_null() && !needs_irp {
        None
    } else {
        // SAFETY: the client gives up the IRP.
        match unsafe { Request::take(provider, NAME, "IRP-18", irp) } {
            Ok(mut request) => {
                request.needs(input, Purpose::ControlBuffer);
                request.needs(output, Purpose::ControlBuffer);
                Some(request)
            }
            Err(status) => return status,
        }
    };
    if needs_irp {
        let Some(request) = request else { return STATUS_INVALID_PARAMETER };
        return await_change(&call, request);
    }
    if request.is_some() {
        provider.advice(
            "CTL-12",
            NAME,
            &format!("an IRP is passed with control code {code:#x}: pass a null IRP"),
        );
    }
    let arguments = Arguments { input_size, input, output_size, output, returned };
    let result = if provider.are_whole(NAME, (input, input_size), (output, output_size)) {
        // SAFETY: the client's buffers are as long as it says.
        unsafe { control(&call, code, arguments) }
    } else {
        Err(STATUS_INVALID_PARAMETER)
    };
    let (status, information) = match result {
        Ok(information) => (STATUS_SUCCESS, information),
        Err(status) => (status, 0),
    };
    match request {
        None => status,
        Some(request) => request.finish(&*call, status, information),
    }
}

/// `WSK_TRANSPORT_LIST_CHANGE`.
fn await_change(call: &ClientCall, request: Request) -> NTSTATUS {
    let mut state = call.lock();
    if state.ending {
        drop(state);
        // The deregistration has ended the waiting requests, and waits for this one (REG-21, REG-22).
        return request.finish_pended(&**call, STATUS_CANCELLED, 0);
    }
    state.changes.push(request, &**call, ());
    STATUS_PENDING
}

/// # Safety
/// The buffers are as long as the arguments say.
unsafe fn control(call: &ClientCall, code: u32, arguments: Arguments) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    match code {
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        WSK_TRANSPORT_LIST_QUERY => unsafe { list_transports(call, arguments) },
        WSK_CACHE_SD => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            let descriptor = unsafe { arguments.read::<PSECURITY_DESCRIPTOR>() }?;
            if descriptor.is_null() || arguments.output_size < size_of::<PSECURITY_DESCRIPTOR>() {
                return Err(STATUS_INVALID_PARAMETER);
            }
            // SAFETY: the client passes a whole descriptor.
            let cached = unsafe { provider.descriptors.add(descriptor) };
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.write(cached) }
        }
        WSK_RELEASE_SD => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            let descriptor = unsafe { arguments.read::<PSECURITY_DESCRIPTOR>() }?;
            match provider.descriptors.release(descriptor) {
                Released::Yes => {}
                Released::InUse => {
                    provider.violation(
                        "LIFE-12",
                        call.name,
                        "the descriptor was released while a pending request uses it",
                    );
                }
                Released::Unknown => {
                    provider.violation(
                        "CTL-07",
                        call.name,
                        "the descriptor is not cached, or was already released",
                    );
                    return Err(STATUS_INVALID_PARAMETER);
                }
            }
            Ok(0)
        }
        WSK_SET_STATIC_EVENT_CALLBACKS => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            let control = unsafe { arguments.read::<WSK_EVENT_CALLBACK_CONTROL>() }?;
            set_static_events(call, control)
        }
        WSK_TDI_DEVICENAME_MAPPING => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.read::<WSK_TDI_MAP_INFO>() }?;
            before_sockets(call).map(|()| 0)
        }
        WSK_TDI_BEHAVIOR => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            let flags = unsafe { arguments.read::<u32>() }?;
            before_sockets(call)?;
            call.lock().tdi_behaviour = flags;
            Ok(0)
        }
        WSKNDK_GET_WSK_PROVIDER_NDK_DISPATCH if provider.live_config.has(Release::Redstone2) => {
            let dispatch = WSK_PROVIDER_NDK_DISPATCH {
                WskOpenNdkAdapter: Some(open_ndk_adapter),
                WskCloseNdkAdapter: Some(close_ndk_adapter),
            };
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.write(dispatch) }
        }
        _ => Err(provider.live_config.behaviours().unknown_code.status()),
    }
}

/// Checks that no socket was created yet, as some codes require (CTL-08).
fn before_sockets(call: &ClientCall) -> Result<(), NTSTATUS> {
    if call.lock().has_made_sockets {
        call.provider().violation("CTL-08", call.name, "called after the first socket was created");
        return Err(STATUS_INVALID_DEVICE_STATE);
    }
    Ok(())
}

fn set_static_events(call: &ClientCall, control: WSK_EVENT_CALLBACK_CONTROL) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    let behaviours = provider.live_config.behaviours();
    // SAFETY: a non-null NpiId points to a GUID that is readable during the call (EVT-24).
    let interface = unsafe { control.NpiId.as_ref() };
    if !interface.is_some_and(|interface| same_guid(interface, &NPI_WSK_INTERFACE_ID)) {
        provider.violation("EVT-23", call.name, "NpiId is not NPI_WSK_INTERFACE_ID");
        return Err(STATUS_NOT_SUPPORTED);
    }
    let mut state = call.lock();
    if state.has_made_sockets {
        drop(state);
        provider.violation("EVT-42", call.name, "static events are set after the first socket was created");
        if behaviours.late_static == LateStatic::Refused {
            return Err(STATUS_INVALID_DEVICE_STATE);
        }
        state = call.lock();
    }
    if state.statics.is_some() {
        drop(state);
        provider.violation("EVT-42", call.name, "static events are set a second time");
        if behaviours.second_static == SecondStatic::Refused {
            return Err(STATUS_INVALID_DEVICE_STATE);
        }
        state = call.lock();
    }
    state.statics = Some(StaticEvents(control.EventMask));
    Ok(0)
}

/// The transports. Raw sockets serve any family, which is `AF_UNSPEC` (CTL-04).
const TRANSPORTS: [(u16, u32, u16); 5] = [
    (SOCK_STREAM, IPPROTO_TCP, AF_INET),
    (SOCK_STREAM, IPPROTO_TCP, AF_INET6),
    (SOCK_DGRAM, IPPROTO_UDP, AF_INET),
    (SOCK_DGRAM, IPPROTO_UDP, AF_INET6),
    (SOCK_RAW, 0, AF_UNSPEC),
];

/// # Safety
/// The buffers are as long as the arguments say.
unsafe fn list_transports(call: &ClientCall, arguments: Arguments) -> Result<usize, NTSTATUS> {
    if arguments.returned.is_null() {
        call.provider().violation("CTL-03", call.name, "OutputSizeReturned is null");
        return Err(STATUS_INVALID_PARAMETER);
    }
    let needed = TRANSPORTS.len() * size_of::<WSK_TRANSPORT>();
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    unsafe { arguments.write_size(needed) };
    if arguments.output.is_null() || arguments.output_size < needed {
        return Err(STATUS_BUFFER_OVERFLOW);
    }
    for (index, (SocketType, Protocol, AddressFamily)) in TRANSPORTS.into_iter().enumerate() {
        let data1 = 0x5753_4B00 | index as u32;
        let ProviderId = GUID { data1, data2: 0, data3: 0, data4: [0; 8] };
        let entry = WSK_TRANSPORT { Version: 0x0100, SocketType, Protocol, AddressFamily, ProviderId };
        let slot = arguments.output.cast::<WSK_TRANSPORT>().wrapping_add(index);
        // SAFETY: the size was checked; the buffer may lie unaligned.
        unsafe { slot.write_unaligned(entry) };
    }
    Ok(needed)
}

fn check_ndk_level(client: &Arc<Client>, name: &'static str) {
    // SAFETY: reading the IRQL has no precondition.
    if unsafe { nt::KeGetCurrentIrql() } != nt::PASSIVE_LEVEL {
        client.provider().violation("IRQL-11", name, "called above PASSIVE_LEVEL");
    }
}

/// `WskOpenNdkAdapter`: the machine has no RDMA adapter.
unsafe extern "system" fn open_ndk_adapter(
    client: PWSK_CLIENT,
    _version: NDK_VERSION,
    _interface: NET_IFINDEX,
    adapter: *mut PNDK_ADAPTER,
) -> NTSTATUS {
    // SAFETY: the client passes its own handle.
    match unsafe { ClientCall::enter("WskOpenNdkAdapter", client) } {
        Ok(call) => {
            check_ndk_level(&call, call.name);
            if !adapter.is_null() {
                // SAFETY: the client passes a variable to fill.
                unsafe { adapter.write(ptr::null_mut()) };
            }
            STATUS_NOT_SUPPORTED
        }
        Err(status) => status,
    }
}

/// `WskCloseNdkAdapter`.
unsafe extern "system" fn close_ndk_adapter(client: PWSK_CLIENT, _adapter: PNDK_ADAPTER) {
    // SAFETY: the client passes its own handle.
    if let Ok(call) = unsafe { ClientCall::enter("WskCloseNdkAdapter", client) } {
        check_ndk_level(&call, call.name);
        call.provider().violation("IRQL-11", call.name, "called without an open NDK adapter");
    }
}

impl Provider {
    /// Completes the requests that wait for a change of the transport list, once (CTL-05).
    pub fn transports_changed(&self) {
        for client in self.0.registrar.clients() {
            let mut completions = Completions::default();
            client.lock().changes.end_all(STATUS_SUCCESS, &mut completions);
            completions.run(&self.0);
        }
    }
}
