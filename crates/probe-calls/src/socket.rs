//! A socket and the calls on it. All parameters of a call are in its request; see [`crate::request`].

use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::ptr;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::*;

use crate::client::Client;
use crate::recorder;
use crate::request::{Answer, Parts, Pending, Request};

/// A socket, which is closed when it is dropped.
///
/// # Invariants
/// `raw` is open and of the category `category`, and `client` is its client.
pub(crate) struct Socket<'c> {
    raw: PWSK_SOCKET,
    category: u32,
    client: &'c Client,
    /// The request for closing, taken once.
    close: ManuallyDrop<Request>,
}

/// A function of the table of the socket's category, read as a C driver reads it; an error if the category
/// has none.
macro_rules! function {
    ($socket:expr, $member:ident: $($category:ident => $table:ident),+) => {{
        // SAFETY: the first member of a socket is the address of its table.
        let dispatch = unsafe { (*$socket.raw).Dispatch };
        match $socket.category {
            $($category => {
                let table = dispatch.cast::<$table>();
                // SAFETY: the tables are constant, and the category implies this type. Only one member is
                // read, which the category's table has had from its first version on.
                unsafe { (*table).$member }
            })+
            _ => None,
        }
        .ok_or(STATUS_NOT_IMPLEMENTED)?
    }};
}

/// A port of the loopback address.
pub(crate) fn loopback(port: u16) -> SOCKADDR_STORAGE {
    v4([127, 0, 0, 1], port)
}

/// An address of IPv4.
pub(crate) fn v4(address: [u8; 4], port: u16) -> SOCKADDR_STORAGE {
    let mut storage = SOCKADDR_STORAGE::zeroed();
    let place = (&raw mut storage).cast::<SOCKADDR_IN>();
    // SAFETY: the storage is a local that has room for an address of any family.
    unsafe { place.write(SOCKADDR_IN::new(address, port)) };
    storage
}

/// The loopback address of IPv6.
pub(crate) fn v6_loopback() -> SOCKADDR_STORAGE {
    let mut storage = SOCKADDR_STORAGE::zeroed();
    let place = (&raw mut storage).cast::<SOCKADDR_IN6>();
    let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    // SAFETY: the storage is a local that has room for an address of any family.
    unsafe { place.write(SOCKADDR_IN6::new(address, 0)) };
    storage
}

/// Returns the addresses of the parts of a request, which are alive. Nothing is read or written.
fn places(parts: *mut Parts) -> Places {
    // SAFETY: the parts are alive; only addresses are computed.
    let Parts { address, data, buffer, id, size, control_length, control_flags, .. } = unsafe { &mut *parts };
    Places {
        address: ptr::from_mut(address).cast(),
        data: ptr::from_mut(data).cast(),
        buffer,
        id,
        size,
        control_length,
        control_flags,
    }
}

struct Places {
    address: PSOCKADDR,
    data: *mut c_void,
    buffer: PWSK_BUF,
    id: PWSK_INSPECT_ID,
    size: *mut usize,
    control_length: *mut u32,
    control_flags: *mut u32,
}

impl<'c> Socket<'c> {
    /// The socket of a successful call.
    ///
    /// # Safety
    /// `information` is that of a request of the client that gives a socket of this category, and has no
    /// other owner.
    pub(crate) unsafe fn from_information(
        information: usize,
        category: u32,
        client: &'c Client,
        close: Request,
    ) -> Option<Self> {
        let raw = ptr::with_exposed_provenance_mut::<WSK_SOCKET>(information);
        (!raw.is_null()).then_some(Self { raw, category, client, close: ManuallyDrop::new(close) })
    }

    /// Makes a call.
    ///
    /// # Safety
    /// The contract of [`Request::submit`] holds for `call`.
    unsafe fn submit(
        &self,
        request: Request,
        call: impl FnOnce(PWSK_SOCKET, Places, *mut IRP) -> NTSTATUS,
    ) -> Pending<'c> {
        let raw = self.raw;
        // SAFETY: the caller keeps the contract of `Request::submit`.
        unsafe { request.submit(self.client, |parts, irp| call(raw, places(parts), irp)) }
    }

    // Addresses ---------------------------------------------------------------------------------------------

    /// Starts `WskBind`.
    pub(crate) fn bind(&self, address: &SOCKADDR_STORAGE) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskBind:
            WSK_FLAG_LISTEN_SOCKET => WSK_PROVIDER_LISTEN_DISPATCH,
            WSK_FLAG_CONNECTION_SOCKET => WSK_PROVIDER_CONNECTION_DISPATCH,
            WSK_FLAG_DATAGRAM_SOCKET => WSK_PROVIDER_DATAGRAM_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the address lies in the parts.
        let call = |socket, at: Places, irp| unsafe { function(socket, at.address, 0, irp) };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.address(address), call) })
    }

    /// The local port.
    pub(crate) fn port(&self) -> Result<u16, NTSTATUS> {
        let function = function!(self, WskGetLocalAddress:
            WSK_FLAG_LISTEN_SOCKET => WSK_PROVIDER_LISTEN_DISPATCH,
            WSK_FLAG_CONNECTION_SOCKET => WSK_PROVIDER_CONNECTION_DISPATCH,
            WSK_FLAG_DATAGRAM_SOCKET => WSK_PROVIDER_DATAGRAM_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the address lies in the parts.
        let call = |socket, at: Places, irp| unsafe { function(socket, at.address, irp) };
        // SAFETY: one call, which is given the parts.
        let pending = unsafe { self.submit(Request::new()?, call) };
        let (answer, request) = pending.finish();
        answer.ok()?;
        let mut request = request.ok_or(STATUS_UNSUCCESSFUL)?;
        let place = (&raw mut request.parts().address).cast::<SOCKADDR_IN>();
        // SAFETY: the storage has room for an address of any family, and any bytes are one.
        Ok(u16::from_be(unsafe { place.read() }.sin_port))
    }

    // Options -----------------------------------------------------------------------------------------------

    /// Starts to set an option of four bytes.
    pub(crate) fn set(&self, level: u32, option: u32, value: u32) -> Result<Pending<'c>, NTSTATUS> {
        self.control(WskSetOption, option, level, &value.to_ne_bytes())
    }

    /// Starts an I/O control with input.
    pub(crate) fn ioctl(&self, code: u32, input: &[u8]) -> Result<Pending<'c>, NTSTATUS> {
        self.control(WskIoctl, code, 0, input)
    }

    /// Starts an I/O control whose input is an address of IPv4.
    pub(crate) fn ioctl_address(&self, code: u32, port: u16) -> Result<Pending<'c>, NTSTATUS> {
        let [high, low] = port.to_be_bytes();
        let [family, zero] = AF_INET.to_ne_bytes();
        self.ioctl(code, &[family, zero, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    fn control(
        &self,
        kind: WSK_CONTROL_SOCKET_TYPE,
        code: u32,
        level: u32,
        input: &[u8],
    ) -> Result<Pending<'c>, NTSTATUS> {
        let function = self.control_function()?;
        let (length, none) = (input.len(), ptr::null_mut());
        let call = |socket, at: Places, irp| {
            // SAFETY: the input lies in the parts.
            unsafe { function(socket, kind, code, level, length, at.data, 0, none, ptr::null_mut(), irp) }
        };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.data(input), call) })
    }

    /// Every table begins with the basic one.
    fn control_function(&self) -> Result<PFN_WSK_CONTROL_SOCKET, NTSTATUS> {
        // SAFETY: the first member of a socket is the address of its table.
        let table = unsafe { (*self.raw).Dispatch }.cast::<WSK_PROVIDER_BASIC_DISPATCH>();
        // SAFETY: the tables are constant.
        unsafe { (*table).WskControlSocket }.ok_or(STATUS_NOT_IMPLEMENTED)
    }

    /// Switches events, without an IRP.
    pub(crate) fn events(&self, mask: u32) -> Result<Answer, NTSTATUS> {
        let mut control =
            WSK_EVENT_CALLBACK_CONTROL { NpiId: &raw const NPI_WSK_INTERFACE_ID, EventMask: mask };
        let (size, input) = (size_of_val(&control), (&raw mut control).cast());
        self.control_now(WskSetOption, SO_WSK_EVENT_CALLBACK, SOL_SOCKET, size, input)
    }

    /// Starts `SIO_WSK_QUERY_IDEAL_SEND_BACKLOG`, which writes the size of the parts.
    pub(crate) fn ideal_backlog(&self) -> Result<Pending<'c>, NTSTATUS> {
        let function = self.control_function()?;
        let (code, none) = (SIO_WSK_QUERY_IDEAL_SEND_BACKLOG, ptr::null_mut());
        let call = |socket, at: Places, irp| {
            let (room, output) = (size_of::<usize>(), at.size.cast());
            // SAFETY: the output lies in the parts.
            unsafe { function(socket, WskIoctl, code, 0, 0, none, room, output, ptr::null_mut(), irp) }
        };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?, call) })
    }

    /// `SIO_WSK_SET_RECEIVE_EX_CALLBACK`, without an IRP.
    pub(crate) fn receive_ex_now(&self) -> Result<Answer, NTSTATUS> {
        let mut callback: PFN_WSK_RECEIVE_EX_EVENT = recorder::receive_ex_event;
        let (size, input) = (size_of_val(&callback), (&raw mut callback).cast());
        self.control_now(WskIoctl, SIO_WSK_SET_RECEIVE_EX_CALLBACK, 0, size, input)
    }

    /// `SIO_WSK_SET_RECEIVE_EX_CALLBACK` with an IRP.
    pub(crate) fn receive_ex(&self) -> Result<Pending<'c>, NTSTATUS> {
        let callback: PFN_WSK_RECEIVE_EX_EVENT = recorder::receive_ex_event;
        self.ioctl(SIO_WSK_SET_RECEIVE_EX_CALLBACK, &(callback as usize).to_ne_bytes())
    }

    /// A control without an IRP and without output. `input` points to a local of the caller's.
    fn control_now(
        &self,
        kind: WSK_CONTROL_SOCKET_TYPE,
        code: u32,
        level: u32,
        size: usize,
        input: *mut c_void,
    ) -> Result<Answer, NTSTATUS> {
        let function = self.control_function()?;
        let none = ptr::null_mut();
        // SAFETY: without an IRP the call is over when it returns, and until then its input is there.
        let status = unsafe {
            function(self.raw, kind, code, level, size, input, 0, none, ptr::null_mut(), ptr::null_mut())
        };
        Ok(Answer::without_irp(status))
    }

    // Listening ---------------------------------------------------------------------------------------------

    /// Starts `WskAccept`.
    pub(crate) fn accept(&self) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskAccept:
            WSK_FLAG_LISTEN_SOCKET => WSK_PROVIDER_LISTEN_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        let (context, none, reserve) = (self.client.context(), ptr::null_mut(), Request::new()?);
        let call = |socket, _, irp| {
            // SAFETY: the table is constant, and the context outlives the socket.
            unsafe { function(socket, 0, context, &raw const recorder::CONNECTION, none, none, irp) }
        };
        // SAFETY: one call, which is given nothing else to touch.
        let pending = unsafe { self.submit(Request::new()?, call) };
        Ok(pending.gives_socket(WSK_FLAG_CONNECTION_SOCKET, reserve))
    }

    /// Starts `WskListen`.
    pub(crate) fn listen(&self) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskListen: WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: nothing is given.
        let call = |socket, _, irp| unsafe { function(socket, irp) };
        // SAFETY: one call, which is given nothing to touch.
        Ok(unsafe { self.submit(Request::new()?, call) })
    }

    /// Starts `WskInspectComplete`.
    pub(crate) fn inspect_complete(
        &self,
        id: WSK_INSPECT_ID,
        action: WSK_INSPECT_ACTION,
    ) -> Result<Pending<'c>, NTSTATUS> {
        let function =
            function!(self, WskInspectComplete: WSK_FLAG_LISTEN_SOCKET => WSK_PROVIDER_LISTEN_DISPATCH);
        let mut request = Request::new()?;
        request.parts().id = id;
        // SAFETY: the identifier lies in the parts.
        let call = |socket, at: Places, irp| unsafe { function(socket, at.id, action, irp) };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(request, call) })
    }

    // Connections -------------------------------------------------------------------------------------------

    /// Starts `WskConnect`.
    pub(crate) fn connect(&self, address: &SOCKADDR_STORAGE) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskConnect:
            WSK_FLAG_CONNECTION_SOCKET => WSK_PROVIDER_CONNECTION_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the address lies in the parts.
        let call = |socket, at: Places, irp| unsafe { function(socket, at.address, 0, irp) };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.address(address), call) })
    }

    /// Starts `WskSend`.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskSend:
            WSK_FLAG_CONNECTION_SOCKET => WSK_PROVIDER_CONNECTION_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the buffer lies in the parts.
        let call = |socket, at: Places, irp| unsafe { function(socket, at.buffer, 0, irp) };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.data(bytes), call) })
    }

    /// Starts `WskReceive`.
    pub(crate) fn receive(&self, length: usize, flags: u32) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskReceive:
            WSK_FLAG_CONNECTION_SOCKET => WSK_PROVIDER_CONNECTION_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the buffer lies in the parts.
        let call = |socket, at: Places, irp| unsafe { function(socket, at.buffer, flags, irp) };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.length(length), call) })
    }

    /// Starts `WskDisconnect`, with a buffer or without.
    pub(crate) fn disconnect(&self, flags: u32, bytes: Option<&[u8]>) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskDisconnect:
            WSK_FLAG_CONNECTION_SOCKET => WSK_PROVIDER_CONNECTION_DISPATCH,
            WSK_FLAG_STREAM_SOCKET => WSK_PROVIDER_STREAM_DISPATCH);
        let call = |socket, at: Places, irp| {
            let buffer = if bytes.is_some() { at.buffer } else { ptr::null_mut() };
            // SAFETY: the buffer lies in the parts.
            unsafe { function(socket, buffer, flags, irp) }
        };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.data(bytes.unwrap_or_default()), call) })
    }

    // Datagrams ---------------------------------------------------------------------------------------------

    /// Starts `WskSendTo`, to a port of the loopback address or without an address.
    pub(crate) fn send_to(&self, bytes: &[u8], port: Option<u16>) -> Result<Pending<'c>, NTSTATUS> {
        let function = function!(self, WskSendTo: WSK_FLAG_DATAGRAM_SOCKET => WSK_PROVIDER_DATAGRAM_DISPATCH);
        let request = Request::new()?.address(&loopback(port.unwrap_or_default())).data(bytes);
        let call = |socket, at: Places, irp| {
            let address = if port.is_some() { at.address } else { ptr::null_mut() };
            // SAFETY: buffer and address lie in the parts.
            unsafe { function(socket, at.buffer, 0, address, 0, ptr::null_mut(), irp) }
        };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(request, call) })
    }

    /// Starts `WskReceiveFrom`.
    pub(crate) fn receive_from(&self, length: usize) -> Result<Pending<'c>, NTSTATUS> {
        let function =
            function!(self, WskReceiveFrom: WSK_FLAG_DATAGRAM_SOCKET => WSK_PROVIDER_DATAGRAM_DISPATCH);
        let call = |socket, at: Places, irp| {
            let none = ptr::null_mut();
            // SAFETY: all of it lies in the parts.
            unsafe {
                function(socket, at.buffer, 0, at.address, at.control_length, none, at.control_flags, irp)
            }
        };
        // SAFETY: one call, which is given the parts.
        Ok(unsafe { self.submit(Request::new()?.length(length), call) })
    }
}

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        // SAFETY: the first member of a socket is the address of its table.
        let table = unsafe { (*self.raw).Dispatch }.cast::<WSK_PROVIDER_BASIC_DISPATCH>();
        // SAFETY: the tables are constant, and each begins with this one.
        let function = unsafe { (*table).WskCloseSocket };
        // SAFETY: it is taken here alone.
        let request = unsafe { ManuallyDrop::take(&mut self.close) };
        // A provider without this function breaks the interface.
        let Some(function) = function else { return };
        // SAFETY: the socket is open, and this is its last use.
        let call = |socket, _, irp| unsafe { function(socket, irp) };
        // SAFETY: one call, which is given nothing to touch.
        let pending = unsafe { self.submit(request, call) };
        pending.until_ended();
    }
}
