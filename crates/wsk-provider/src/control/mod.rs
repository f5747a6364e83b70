//! `WskControlSocket`: options, IOCTLs and extensions (contract 4.16, 4.17).

mod ioctl;
mod option;
pub mod table;

use std::ffi::c_void;
use std::ptr;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PWSK_SOCKET, SO_WSK_EVENT_CALLBACK, SOL_SOCKET, STATUS_INVALID_PARAMETER, STATUS_REQUEST_NOT_ACCEPTED,
    STATUS_SUCCESS, WSK_CONTROL_SOCKET_TYPE, WSK_EVENT_CALLBACK_CONTROL,
};

use crate::host::FaultPoint;
use crate::request::{Purpose, Request};
use crate::socket::{Call, control_events};

pub(crate) use ioctl::AddressListWatch;

const NAME: &str = "WskControlSocket";

/// Arguments of a control call. A buffer without a length is null, whatever its pointer: Windows ignores such
/// a pointer.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    code: u32,
    level: u32,
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

    /// Writes the output as a `T`, and returns the number of bytes written.
    ///
    /// # Safety
    /// The output is null or has room for `output_size` bytes.
    unsafe fn write<T>(&self, value: T) -> Result<usize, NTSTATUS> {
        if self.output.is_null() || self.output_size < size_of::<T>() {
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the caller guarantees the room; it may lie unaligned.
        unsafe { self.output.cast::<T>().write_unaligned(value) };
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

    /// Returns whether there are no output parameters.
    fn has_no_output(&self) -> bool {
        self.output.is_null() && self.returned.is_null()
    }
}

/// `WskControlSocket`.
///
/// # Safety
/// As `PFN_WSK_CONTROL_SOCKET`: the socket is open, the buffers are as long as it says and stay valid until
/// the request completes, and the caller gives up the IRP, if any.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_control_socket(
    socket: PWSK_SOCKET,
    kind: WSK_CONTROL_SOCKET_TYPE,
    code: u32,
    level: u32,
    input_size: usize,
    input: *mut c_void,
    output_size: usize,
    output: *mut c_void,
    returned: *mut usize,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider.
    let call = match unsafe { Call::enter(NAME, socket) } {
        Ok(call) => call,
        Err(status) => return status,
    };
    let [input, output] = [(input_size, input), (output_size, output)]
        .map(|(size, buffer)| if size == 0 { ptr::null_mut() } else { buffer });
    let request = if irp.is_null() {
        None
    } else {
        // SAFETY: the client gives up the IRP.
        match unsafe { Request::take(call.provider(), NAME, "IRP-18", irp) } {
            Ok(mut request) => {
                request.needs(input, Purpose::ControlBuffer);
                request.needs(output, Purpose::ControlBuffer);
                Some(request)
            }
            Err(status) => return status,
        }
    };
    if let Some(status) = call.check() {
        return refuse(&call, request, status);
    }
    if !call.provider().are_whole(NAME, (input, input_size), (output, output_size)) {
        return refuse(&call, request, STATUS_INVALID_PARAMETER);
    }
    let arguments = Arguments { code, level, input_size, input, output_size, output, returned };
    let proper = kind == WSK_CONTROL_SOCKET_TYPE::WskSetOption && level == SOL_SOCKET;
    if code == SO_WSK_EVENT_CALLBACK && !proper {
        let detail = format!("SO_WSK_EVENT_CALLBACK is used with {kind:?} and level {level:#x}");
        call.provider().violation("EVT-01", NAME, &detail);
        return refuse(&call, request, STATUS_INVALID_PARAMETER);
    }
    match kind {
        WSK_CONTROL_SOCKET_TYPE::WskSetOption if code == SO_WSK_EVENT_CALLBACK => {
            // SAFETY: the client's buffers are as long as it says.
            unsafe { switch_events(&call, request, arguments) }
        }
        // SAFETY: the client's buffers are as long as it says.
        WSK_CONTROL_SOCKET_TYPE::WskSetOption => unsafe { option::set(&call, request, arguments) },
        // SAFETY: the client's buffers are as long as it says.
        WSK_CONTROL_SOCKET_TYPE::WskGetOption => unsafe { option::get(&call, request, arguments) },
        WSK_CONTROL_SOCKET_TYPE::WskIoctl
            if request.is_none() && call.provider().host.choose(FaultPoint::NotInline, 2) == 1 =>
        {
            refuse(&call, request, STATUS_REQUEST_NOT_ACCEPTED)
        }
        // SAFETY: the client's buffers are as long as it says.
        WSK_CONTROL_SOCKET_TYPE::WskIoctl => unsafe { ioctl::perform(&call, request, arguments) },
        _ => refuse(&call, request, STATUS_INVALID_PARAMETER),
    }
}

/// Fails a call inline.
fn refuse(call: &Call, request: Option<Request>, status: NTSTATUS) -> NTSTATUS {
    match request {
        None => status,
        Some(request) => request.fail(call.provider(), status),
    }
}

/// Ends a call with its result. Without an IRP the size is written to the client's variable (IRP-21).
///
/// # Safety
/// The arguments are those of the call.
unsafe fn end(
    call: &Call,
    request: Option<Request>,
    arguments: &Arguments,
    result: Result<usize, NTSTATUS>,
) -> NTSTATUS {
    match (request, result) {
        (None, Ok(size)) => {
            // SAFETY: the caller guarantees that the arguments are those of the call.
            unsafe { arguments.write_size(size) };
            STATUS_SUCCESS
        }
        (None, Err(status)) => status,
        (Some(request), Ok(size)) => request.finish(&**call, STATUS_SUCCESS, size),
        (Some(request), Err(status)) => request.fail(call.provider(), status),
    }
}

/// `SO_WSK_EVENT_CALLBACK`.
///
/// # Safety
/// The input has `input_size` bytes.
unsafe fn switch_events(call: &Call, request: Option<Request>, arguments: Arguments) -> NTSTATUS {
    let provider = call.provider();
    if !arguments.has_no_output() {
        provider.advice("EVT-03", NAME, "output parameters are passed to SO_WSK_EVENT_CALLBACK");
    }
    if arguments.input_size != size_of::<WSK_EVENT_CALLBACK_CONTROL>() {
        let detail =
            format!("InputSize is {}, not the size of WSK_EVENT_CALLBACK_CONTROL", arguments.input_size);
        provider.violation("EVT-02", NAME, &detail);
        return refuse(call, request, STATUS_INVALID_PARAMETER);
    }
    // SAFETY: the caller guarantees that the input has `input_size` bytes.
    match unsafe { arguments.read::<WSK_EVENT_CALLBACK_CONTROL>() } {
        Ok(control) => control_events(call, request, control),
        Err(status) => {
            provider.violation("EVT-01", NAME, "the input buffer with WSK_EVENT_CALLBACK_CONTROL is null");
            refuse(call, request, status)
        }
    }
}
