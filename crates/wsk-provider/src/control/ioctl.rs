//! IOCTLs and extensions (contract 4.17).

use std::net::{IpAddr, SocketAddr};

use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    PFN_WSK_RECEIVE_EX_EVENT, PSOCKADDR, SIO_ADDRESS_LIST_CHANGE, SIO_ADDRESS_LIST_QUERY,
    SIO_ADDRESS_LIST_SORT, SIO_KEEPALIVE_VALS, SIO_LOOPBACK_FAST_PATH, SIO_QUERY_RSS_SCALABILITY_INFO,
    SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, SIO_WSK_QUERY_IDEAL_SEND_BACKLOG, SIO_WSK_QUERY_INSPECT_ID,
    SIO_WSK_QUERY_RECEIVE_BACKLOG, SIO_WSK_REGISTER_EXTENSION, SIO_WSK_SET_RECEIVE_EX_CALLBACK,
    SIO_WSK_SET_REMOTE_ADDRESS, SIO_WSK_SET_SENDTO_ADDRESS, SIO_WSK_SET_TCP_SILENT_MODE, SOCKET_ADDRESS,
    SOCKET_ADDRESS_LIST, STATUS_ACCESS_DENIED, STATUS_BUFFER_OVERFLOW, STATUS_INVALID_BUFFER_SIZE,
    STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_NOT_FOUND,
    STATUS_NOT_SUPPORTED, STATUS_PENDING, STATUS_SUCCESS, WSK_EXTENSION_CONTROL_IN,
    WSK_EXTENSION_CONTROL_OUT,
};

use super::option::set_keep_alive;
use super::table::{IoctlRow, Irp};
use super::{Arguments, NAME, end, refuse};
use crate::address::{self, Family};
use crate::behaviours::ReceiveExIrp;
use crate::config::Release;
use crate::provider::Provider;
use crate::request::{Completions, Request, RequestQueue};
use crate::socket::{Call, Role, register_extension as register};
use crate::transport::status_of;

/// Performs an IOCTL.
///
/// # Safety
/// The buffers are as long as the arguments say.
pub(super) unsafe fn perform(call: &Call, request: Option<Request>, arguments: Arguments) -> NTSTATUS {
    let provider = call.provider();
    let Some(IoctlRow { irp, rule, passive, name, .. }) = IoctlRow::find(arguments.code) else {
        return refuse(call, request, STATUS_INVALID_DEVICE_REQUEST);
    };
    // SAFETY: reading the IRQL has no precondition.
    if *passive && unsafe { nt::KeGetCurrentIrql() } != nt::PASSIVE_LEVEL {
        let detail = format!("{name} was issued above PASSIVE_LEVEL");
        provider.violation("IRQL-10", NAME, &detail);
    }
    match (irp, request.is_some()) {
        (Irp::Required, false) => {
            provider.violation(rule, NAME, &format!("{name} was issued without an IRP"));
            return STATUS_INVALID_PARAMETER;
        }
        (Irp::Forbidden, true) => {
            // Libraries over WSK pass one with every code, and it is completed like any other.
            let detail = format!("{name} was issued with an IRP: pass a null IRP");
            match arguments.code {
                SIO_WSK_QUERY_INSPECT_ID => provider.advice("IOC-11", NAME, &detail),
                SIO_WSK_REGISTER_EXTENSION => provider.advice("IOC-06", NAME, &detail),
                _ => provider.advice("IRP-18", NAME, &detail),
            }
        }
        _ => {}
    }
    if arguments.code == SIO_ADDRESS_LIST_CHANGE {
        let Some(request) = request else { return STATUS_INVALID_PARAMETER };
        return watch_addresses(call, request);
    }
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    let result = unsafe { perform_now(call, request.is_some(), &arguments) };
    if result == Err(STATUS_BUFFER_OVERFLOW) {
        return refuse(call, request, STATUS_BUFFER_OVERFLOW);
    }
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    unsafe { end(call, request, &arguments, result) }
}

/// # Safety
/// The buffers are as long as the arguments say.
unsafe fn perform_now(call: &Call, with_irp: bool, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    match arguments.code {
        SIO_WSK_SET_REMOTE_ADDRESS | SIO_WSK_SET_SENDTO_ADDRESS => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { set_fixed_address(call, arguments) }
        }
        SIO_WSK_QUERY_IDEAL_SEND_BACKLOG | SIO_WSK_QUERY_RECEIVE_BACKLOG => {
            let value = match &call.lock().role {
                Role::Connection(connection) if arguments.code == SIO_WSK_QUERY_IDEAL_SEND_BACKLOG => {
                    connection.ideal_send_backlog()
                }
                Role::Connection(connection) => connection.receive_backlog(),
                _ => return Err(STATUS_INVALID_DEVICE_REQUEST),
            };
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.write(value.ok_or(STATUS_INVALID_DEVICE_STATE)?) }
        }
        SIO_WSK_QUERY_INSPECT_ID => {
            let id = call.lock().inspection.ok_or(STATUS_INVALID_DEVICE_REQUEST)?;
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { arguments.write(id) }
        }
        SIO_WSK_SET_TCP_SILENT_MODE => set_silent(call),
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        SIO_KEEPALIVE_VALS => unsafe { set_keep_alive(call, arguments) },
        // There is no receive side scaling here: `RssEnabled` is false.
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        SIO_QUERY_RSS_SCALABILITY_INFO => unsafe { arguments.write(0_u8) },
        SIO_WSK_SET_RECEIVE_EX_CALLBACK => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { set_receive_ex(call, with_irp, arguments) }
        }
        SIO_WSK_REGISTER_EXTENSION => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { register_extension(call, arguments) }
        }
        SIO_ADDRESS_LIST_QUERY => {
            // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
            unsafe { list_addresses(call, arguments) }
        }
        // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
        SIO_ADDRESS_LIST_SORT => unsafe { sort_addresses(arguments) },
        SIO_LOOPBACK_FAST_PATH if arguments.input.is_null() => Err(STATUS_INVALID_BUFFER_SIZE),
        // No connection is redirected on this machine, and its loopback has only one path.
        SIO_LOOPBACK_FAST_PATH => Err(STATUS_NOT_SUPPORTED),
        SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS => Err(STATUS_ACCESS_DENIED),
        _ => Err(STATUS_NOT_FOUND),
    }
}

/// `SIO_WSK_SET_REMOTE_ADDRESS` and `SIO_WSK_SET_SENDTO_ADDRESS`.
///
/// # Safety
/// The input has `input_size` bytes.
unsafe fn set_fixed_address(call: &Call, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    let address = if arguments.input_size == 0 {
        None
    } else if arguments.input_size < call.family.size() {
        return Err(STATUS_INVALID_PARAMETER);
    } else {
        // SAFETY: the size was checked, and the client passes an address.
        let address = unsafe { call.provider().read_address(call.name, arguments.input.cast(), call.family) };
        Some(address.ok_or(STATUS_INVALID_PARAMETER)?)
    };
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    match &mut state.role {
        Role::Datagram(datagram) if datagram.local_address().is_none() => {
            Err(call.provider().live_config.behaviours().fixed_address_unbound.status())
        }
        Role::Datagram(datagram) if arguments.code == SIO_WSK_SET_REMOTE_ADDRESS => {
            datagram.set_remote(address);
            Ok(0)
        }
        Role::Datagram(datagram) => {
            datagram.set_send_to(address);
            Ok(0)
        }
        _ => Err(STATUS_INVALID_DEVICE_REQUEST),
    }
}

fn set_silent(call: &Call) -> Result<usize, NTSTATUS> {
    let provider = call.provider();
    if !provider.live_config.has(Release::Windows8) {
        return Err(STATUS_NOT_SUPPORTED);
    }
    let result = match &mut call.lock().role {
        Role::Connection(connection) => connection.set_silent().map(|()| 0),
        _ => Err(STATUS_INVALID_DEVICE_REQUEST),
    };
    if result.is_err() {
        provider.violation(
            "IOC-12",
            NAME,
            "silent mode is enabled on an unconnected socket, or with pending transfers",
        );
    }
    result
}

/// # Safety
/// The input has `input_size` bytes.
unsafe fn set_receive_ex(call: &Call, with_irp: bool, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    let live_config = &call.provider().live_config;
    if !live_config.has(Release::Redstone4) {
        return Err(STATUS_NOT_SUPPORTED);
    }
    let form = live_config.behaviours().receive_ex_irp;
    if (form == ReceiveExIrp::Required && !with_irp) || (form == ReceiveExIrp::Forbidden && with_irp) {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let callback = if arguments.input.is_null() {
        None
    } else {
        // SAFETY: the client passes a variable that holds null or a callback of that type.
        unsafe { arguments.read::<Option<PFN_WSK_RECEIVE_EX_EVENT>>() }?
    };
    match &mut call.lock().role {
        Role::Connection(connection) => {
            connection.set_receive_ex(callback);
            Ok(0)
        }
        _ => Err(STATUS_INVALID_DEVICE_REQUEST),
    }
}

/// `SIO_WSK_REGISTER_EXTENSION`.
///
/// # Safety
/// The buffers are as long as the arguments say.
unsafe fn register_extension(call: &Call, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    let room = !arguments.output.is_null() && arguments.output_size >= size_of::<WSK_EXTENSION_CONTROL_OUT>();
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    let (Ok(input), true) = (unsafe { arguments.read::<WSK_EXTENSION_CONTROL_IN>() }, room) else {
        call.provider().violation(
            "IOC-06",
            NAME,
            "the input or output structure of the extension control is missing",
        );
        return Err(STATUS_INVALID_PARAMETER);
    };
    // SAFETY: the client passes an identifier that is readable during the call.
    let output = unsafe { register(call, input) }?;
    // SAFETY: the caller guarantees that the buffers are as long as the arguments say.
    unsafe { arguments.write(output) }
}

/// # Safety
/// The output has room for `output_size` bytes.
unsafe fn list_addresses(call: &Call, arguments: &Arguments) -> Result<usize, NTSTATUS> {
    let all = call.provider().transport.addresses().map_err(|error| status_of(&error))?;
    let own: Vec<IpAddr> = all.into_iter().filter(|ip| ip.is_ipv4() == (call.family == Family::V4)).collect();
    let head = std::mem::offset_of!(SOCKET_ADDRESS_LIST, Address) + own.len() * size_of::<SOCKET_ADDRESS>();
    let head = head.max(size_of::<SOCKET_ADDRESS_LIST>());
    let stride = call.family.size();
    let needed = head + own.len() * stride;
    if arguments.output.is_null() || arguments.output_size < needed {
        // SAFETY: the arguments are those of the call.
        unsafe { arguments.write_size(needed) };
        return Err(STATUS_BUFFER_OVERFLOW);
    }
    let base = arguments.output.cast::<u8>();
    // SAFETY: the size was checked; the buffer may lie unaligned.
    unsafe { base.cast::<i32>().write_unaligned(own.len() as i32) };
    let first =
        base.wrapping_add(std::mem::offset_of!(SOCKET_ADDRESS_LIST, Address)).cast::<SOCKET_ADDRESS>();
    for (index, ip) in own.into_iter().enumerate() {
        let slot: PSOCKADDR = base.wrapping_add(head + index * stride).cast();
        // SAFETY: the size was checked: the slot is inside the buffer.
        unsafe { address::write(slot, SocketAddr::new(ip, 0), call.family) };
        let entry = SOCKET_ADDRESS { lpSockaddr: slot, iSockaddrLength: stride as i32 };
        // SAFETY: the size was checked: the entry is inside the buffer.
        unsafe { first.wrapping_add(index).write_unaligned(entry) };
    }
    Ok(needed)
}

/// `SIO_ADDRESS_LIST_SORT`: treats the list as already sorted.
///
/// # Safety
/// The buffers are as long as the arguments say.
unsafe fn sort_addresses(arguments: &Arguments) -> Result<usize, NTSTATUS> {
    let size = arguments.input_size;
    if arguments.input.is_null() || arguments.output.is_null() {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if arguments.output_size < size {
        return Err(STATUS_BUFFER_OVERFLOW);
    }
    // SAFETY: both buffers have `size` bytes; they may be the same one.
    unsafe { arguments.output.cast::<u8>().copy_from(arguments.input.cast::<u8>(), size) };
    Ok(size)
}

/// The `SIO_ADDRESS_LIST_CHANGE` requests of one socket.
#[derive(Debug, Default)]
pub(crate) struct AddressListWatch(pub(crate) RequestQueue<()>);

fn watch_addresses(call: &Call, request: Request) -> NTSTATUS {
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        drop(state);
        return request.fail(call.provider(), status);
    }
    state.address_watch.0.push(request, &**call, ());
    STATUS_PENDING
}

impl Provider {
    /// Completes the requests that wait for a change of the machine's addresses, once (IOC-17).
    pub fn addresses_changed(&self) {
        for socket in self.0.registrar.sockets() {
            let mut completions = Completions::default();
            socket.lock().address_watch.0.end_all(STATUS_SUCCESS, &mut completions);
            completions.run(&self.0);
        }
    }
}
