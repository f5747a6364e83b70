//! The calls on a socket with all their parameters.

use std::ffi::c_void;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;

use wsk_sys::*;

use super::recorder::Recorder;
use super::socket::{Category, Control, Shape, Socket};
use super::table::{member, member_of};
use super::{Buffer, BufferList, CAddress, PoolBox, Request};

/// Bytes in non-paged memory that a call reads or writes.
#[derive(Debug)]
pub struct Bytes {
    buffer: Buffer,
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        Self { buffer: Buffer::of(bytes) }
    }

    fn new(length: usize) -> Self {
        Self { buffer: Buffer::new(length) }
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.buffer.read()
    }

    fn share(&self) -> Self {
        Self { buffer: self.buffer.clone() }
    }

    fn as_ptr(&self) -> *mut c_void {
        self.buffer.address()
    }
}

/// Parameters of `WskAccept`. The test keeps the pointers valid.
#[derive(Clone, Copy, Debug)]
pub struct AcceptParameters {
    /// The reserved flags.
    pub flags: u32,
    /// `AcceptSocketContext`
    pub context: *mut c_void,
    /// `AcceptSocketDispatch`
    pub dispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    /// `LocalAddress`
    pub local: PSOCKADDR,
    /// `RemoteAddress`
    pub remote: PSOCKADDR,
}

impl Default for AcceptParameters {
    fn default() -> Self {
        Self {
            flags: 0,
            context: ptr::null_mut(),
            dispatch: ptr::null(),
            local: ptr::null_mut(),
            remote: ptr::null_mut(),
        }
    }
}

/// Parameters of `WskReceiveFrom` besides the buffer.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveFromOptions {
    /// The reserved flags.
    pub flags: u32,
    /// Room for control messages; `None` passes a null length.
    pub control: Option<u32>,
}

impl Default for ReceiveFromOptions {
    fn default() -> Self {
        Self { flags: 0, control: Some(0) }
    }
}

/// Outputs of `WskReceiveFrom` besides the buffer.
#[derive(Debug)]
pub struct ReceiveFromOutputs {
    /// The sender.
    pub remote: Arc<CAddress>,
    /// `*ControlLength`
    pub control_length: Arc<PoolBox<u32>>,
    /// The control messages.
    pub control: Bytes,
    /// `*ControlFlags`
    pub control_flags: Arc<PoolBox<u32>>,
}

/// The calls with all their parameters, on a request that may be configured first.
impl Request {
    /// `WskBind`
    pub fn bind(self, socket: &Socket, address: SocketAddr, flags: u32) -> Self {
        let function = member_of!(socket, WskBind: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let address = CAddress::new(address);
        let pointer = address.as_ptr();
        self.on(socket).keep(address).submit("WskBind", |irp| {
            // SAFETY: the request keeps the address; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), pointer, flags, irp) }
        })
    }

    /// `WskBind` with a pointer to the address as it is.
    ///
    /// # Safety
    /// `address` is null or can be read until the request has completed.
    pub unsafe fn bind_at(self, socket: &Socket, address: PSOCKADDR) -> Self {
        let function = member_of!(socket, WskBind: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        self.on(socket).submit("WskBind", |irp| {
            // SAFETY: the caller guarantees the address; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), address, 0, irp) }
        })
    }

    /// Keeps the socket handle from being dropped, and so closed, under the request.
    fn on(self, socket: &Socket) -> Self {
        self.keep(socket.clone())
    }

    /// `WskGetLocalAddress`
    pub fn local_address(self, socket: &Socket) -> (Self, Arc<CAddress>) {
        let function = member_of!(socket, WskGetLocalAddress: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let address = Arc::new(CAddress::empty());
        let request = self.on(socket).keep(Arc::clone(&address)).submit("WskGetLocalAddress", |irp| {
            // SAFETY: the request keeps the address; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), address.as_ptr(), irp) }
        });
        (request, address)
    }

    /// `WskGetRemoteAddress`
    pub fn remote_address(self, socket: &Socket) -> (Self, Arc<CAddress>) {
        let function = member_of!(socket, WskGetRemoteAddress:
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let address = Arc::new(CAddress::empty());
        let request = self.on(socket).keep(Arc::clone(&address)).submit("WskGetRemoteAddress", |irp| {
            // SAFETY: the request keeps the address; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), address.as_ptr(), irp) }
        });
        (request, address)
    }

    /// `WskControlSocket`; the second value is the output buffer, the third `*OutputSizeReturned`.
    pub fn control(
        self,
        socket: &Socket,
        control: &Control,
    ) -> (Self, Option<Bytes>, Option<Arc<PoolBox<usize>>>) {
        let function = member!(socket, WSK_PROVIDER_BASIC_DISPATCH.WskControlSocket);
        let input = control.input.as_deref().map(Bytes::of);
        let output = control.output.map(Bytes::new);
        let size = control.size_wanted.then(|| Arc::new(PoolBox::new(0_usize)));
        let (input_size, input_pointer) =
            input.as_ref().map_or((0, ptr::null_mut()), |bytes| (bytes.buffer.len(), bytes.as_ptr()));
        let (output_size, output_pointer) =
            output.as_ref().map_or((0, ptr::null_mut()), |bytes| (bytes.buffer.len(), bytes.as_ptr()));
        let size_pointer = size.as_ref().map_or(ptr::null_mut(), |size| size.as_ptr());
        let kept = (input, output.as_ref().map(Bytes::share), size.clone());
        let request = self.on(socket).keep(kept).submit("WskControlSocket", |irp| {
            // SAFETY: the request keeps the buffers; the provider recognizes closed sockets.
            unsafe {
                function(
                    socket.raw(),
                    control.kind,
                    control.code,
                    control.level,
                    input_size,
                    input_pointer,
                    output_size,
                    output_pointer,
                    size_pointer,
                    irp,
                )
            }
        });
        (request, output, size)
    }

    /// `WskAccept`; it asks for both addresses.
    pub fn accept(self, socket: &Socket, recorder: Option<&Recorder>, flags: u32) -> Self {
        let function = member_of!(socket, WskAccept: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let (local, remote) = (CAddress::empty(), CAddress::empty());
        let (local_pointer, remote_pointer) = (local.as_ptr(), remote.as_ptr());
        let context = recorder.map_or(ptr::null_mut(), Recorder::context);
        let dispatch = recorder.map_or(ptr::null(), Recorder::connection_table);
        self.on(socket).yielding(Shape::connection(recorder)).with_addresses(local, remote).submit(
            "WskAccept",
            |irp| {
                // SAFETY: the request keeps addresses and recorder; the provider recognizes closed sockets.
                unsafe {
                    function(socket.raw(), flags, context, dispatch, local_pointer, remote_pointer, irp)
                }
            },
        )
    }

    /// `WskAccept` with these parameters as they are.
    ///
    /// # Safety
    /// The table, if there is one, outlives the socket and its callbacks can take the context. Each address
    /// buffer is null, or storage for an address of the listener's family until the request has completed, or
    /// memory that the checker recognizes as invalid.
    pub unsafe fn accept_as(self, socket: &Socket, parameters: AcceptParameters) -> Self {
        let function = member_of!(socket, WskAccept: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let AcceptParameters { flags, context, dispatch, local, remote } = parameters;
        self.on(socket).yielding(Shape::connection(None)).submit("WskAccept", |irp| {
            // SAFETY: the caller guarantees the parameters; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), flags, context, dispatch, local, remote, irp) }
        })
    }

    /// `WskInspectComplete`
    pub fn inspect_complete(self, socket: &Socket, id: WSK_INSPECT_ID, action: WSK_INSPECT_ACTION) -> Self {
        let id = PoolBox::new(id);
        let pointer = id.as_ptr();
        // SAFETY: the request keeps the identifier.
        unsafe { self.keep(id).inspect_complete_at(socket, pointer, action) }
    }

    /// `WskInspectComplete` with a pointer to the identifier as it is.
    ///
    /// # Safety
    /// `id` is null or can be read until the request has completed.
    pub unsafe fn inspect_complete_at(
        self,
        socket: &Socket,
        id: PWSK_INSPECT_ID,
        action: WSK_INSPECT_ACTION,
    ) -> Self {
        let function = member_of!(socket, WskInspectComplete: Listen => WSK_PROVIDER_LISTEN_DISPATCH);
        self.on(socket).submit("WskInspectComplete", |irp| {
            // SAFETY: the caller guarantees the identifier; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), id, action, irp) }
        })
    }

    /// `WskListen`
    pub fn listen(self, socket: &Socket) -> Self {
        let function = member_of!(socket, WskListen: Stream => WSK_PROVIDER_STREAM_DISPATCH);
        self.on(socket).submit("WskListen", |irp| {
            // SAFETY: the provider recognizes closed sockets.
            unsafe { function(socket.raw(), irp) }
        })
    }

    /// `WskConnect`
    pub fn connect(self, socket: &Socket, address: SocketAddr, flags: u32) -> Self {
        let function = member_of!(socket, WskConnect: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let address = CAddress::new(address);
        let pointer = address.as_ptr();
        self.on(socket).keep(address).submit("WskConnect", |irp| {
            // SAFETY: the request keeps the address; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), pointer, flags, irp) }
        })
    }

    /// `WskConnectEx`
    pub fn connect_ex(self, socket: &Socket, address: SocketAddr, data: Option<&Buffer>, flags: u32) -> Self {
        let function = member_of!(socket, WskConnectEx: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let address = CAddress::new(address);
        let pointer = address.as_ptr();
        let mut descriptor = data.map(Buffer::wsk_buf);
        self.on(socket).keep((address, data.cloned())).submit("WskConnectEx", |irp| {
            let data = descriptor.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
            // SAFETY: the request keeps address and data; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), pointer, data, flags, irp) }
        })
    }

    /// `WskSend`
    pub fn send(self, socket: &Socket, buffer: &Buffer, flags: u32) -> Self {
        let function = member_of!(socket, WskSend: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let mut descriptor = buffer.wsk_buf();
        self.on(socket).keep(buffer.clone()).submit("WskSend", |irp| {
            // SAFETY: the request keeps the buffer; the descriptor is needed during the call only.
            unsafe { function(socket.raw(), &raw mut descriptor, flags, irp) }
        })
    }

    /// `WskSend` of a descriptor made by the test.
    ///
    /// # Safety
    /// The chain of MDLs lives until the request has completed, or the provider recognizes that it does not.
    pub unsafe fn send_described(self, socket: &Socket, mut descriptor: WSK_BUF) -> Self {
        let function = member_of!(socket, WskSend: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        self.on(socket).submit("WskSend", |irp| {
            // SAFETY: the caller guarantees the described memory; the descriptor itself is needed during the
            // call only.
            unsafe { function(socket.raw(), &raw mut descriptor, 0, irp) }
        })
    }

    /// `WskReceive` into a descriptor made by the test.
    ///
    /// # Safety
    /// The chain of MDLs lives until the request has completed, or the provider recognizes that it does not.
    pub unsafe fn receive_described(self, socket: &Socket, descriptor: WSK_BUF) -> Self {
        self.receive_descriptor(socket, descriptor, 0)
    }

    /// `WskReceive`
    pub fn receive(self, socket: &Socket, buffer: &Buffer, flags: u32) -> Self {
        let descriptor = buffer.wsk_buf();
        self.keep(buffer.clone()).receive_descriptor(socket, descriptor, flags)
    }

    /// `WskReceive` of no bytes, with a null MDL.
    pub fn receive_nothing(self, socket: &Socket, flags: u32) -> Self {
        let descriptor = WSK_BUF { Mdl: ptr::null_mut(), Offset: 0, Length: 0 };
        self.receive_descriptor(socket, descriptor, flags)
    }

    fn receive_descriptor(self, socket: &Socket, mut descriptor: WSK_BUF, flags: u32) -> Self {
        let function = member_of!(socket, WskReceive: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        self.on(socket).submit("WskReceive", |irp| {
            // SAFETY: the request keeps the buffer; the descriptor is needed during the call only.
            unsafe { function(socket.raw(), &raw mut descriptor, flags, irp) }
        })
    }

    /// `WskDisconnect`
    pub fn disconnect(self, socket: &Socket, last: Option<&Buffer>, flags: u32) -> Self {
        let function = member_of!(socket, WskDisconnect: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let mut descriptor = last.map(Buffer::wsk_buf);
        self.on(socket).keep(last.cloned()).submit("WskDisconnect", |irp| {
            let last = descriptor.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
            // SAFETY: the request keeps the buffer; the descriptor is needed during the call only.
            unsafe { function(socket.raw(), last, flags, irp) }
        })
    }

    /// `WskSendTo`
    pub fn send_to(
        self,
        socket: &Socket,
        buffer: &Buffer,
        address: Option<SocketAddr>,
        control: &[u8],
        flags: u32,
    ) -> Self {
        let function = member_of!(socket, WskSendTo: Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH);
        let address = address.map(CAddress::new);
        let pointer = address.as_ref().map_or(ptr::null_mut(), CAddress::as_ptr);
        let control = (!control.is_empty()).then(|| Bytes::of(control));
        let (length, messages) =
            control.as_ref().map_or((0, ptr::null_mut()), |bytes| (bytes.buffer.len(), bytes.as_ptr()));
        let mut descriptor = buffer.wsk_buf();
        self.on(socket).keep((address, control, buffer.clone())).submit("WskSendTo", |irp| {
            // SAFETY: the request keeps the buffers; the descriptor is needed during the call only.
            unsafe {
                function(
                    socket.raw(),
                    &raw mut descriptor,
                    flags,
                    pointer,
                    length as u32,
                    messages.cast(),
                    irp,
                )
            }
        })
    }

    /// `WskSendMessages`
    pub fn send_messages(
        self,
        socket: &Socket,
        list: BufferList,
        address: Option<SocketAddr>,
        flags: u32,
    ) -> Self {
        let function = member_of!(socket, WskSendMessages: Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH);
        let address = address.map(CAddress::new);
        let pointer = address.as_ref().map_or(ptr::null_mut(), CAddress::as_ptr);
        let head = list.head();
        self.on(socket).keep((address, list)).submit("WskSendMessages", |irp| {
            // SAFETY: the request keeps list and address; the provider recognizes closed sockets.
            unsafe { function(socket.raw(), head, flags, pointer, 0, ptr::null_mut(), irp) }
        })
    }

    /// `WskReceiveFrom`
    pub fn receive_from(
        self,
        socket: &Socket,
        buffer: &Buffer,
        options: ReceiveFromOptions,
    ) -> (Self, ReceiveFromOutputs) {
        let function = member_of!(socket, WskReceiveFrom: Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH);
        let room = options.control.unwrap_or(0);
        let outputs = ReceiveFromOutputs {
            remote: Arc::new(CAddress::empty()),
            control_length: Arc::new(PoolBox::new(room)),
            control: Bytes::new(room as usize),
            control_flags: Arc::new(PoolBox::new(0)),
        };
        let length =
            if options.control.is_some() { outputs.control_length.as_ptr() } else { ptr::null_mut() };
        let messages = if room != 0 { outputs.control.as_ptr() } else { ptr::null_mut() };
        let mut descriptor = buffer.wsk_buf();
        let kept = (
            Arc::clone(&outputs.remote),
            Arc::clone(&outputs.control_length),
            outputs.control.share(),
            Arc::clone(&outputs.control_flags),
            buffer.clone(),
        );
        let request = self.on(socket).keep(kept).submit("WskReceiveFrom", |irp| {
            // SAFETY: the request keeps the outputs; the descriptor is needed during the call only.
            unsafe {
                function(
                    socket.raw(),
                    &raw mut descriptor,
                    options.flags,
                    outputs.remote.as_ptr(),
                    length,
                    messages.cast(),
                    outputs.control_flags.as_ptr(),
                    irp,
                )
            }
        });
        (request, outputs)
    }

    /// `WskSendEx`
    pub fn send_ex(self, socket: &Socket, buffer: &Buffer, control: &[u8], flags: u32) -> Self {
        let function = member_of!(socket, WskSendEx: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let control = (!control.is_empty()).then(|| Bytes::of(control));
        let (length, messages) =
            control.as_ref().map_or((0, ptr::null_mut()), |bytes| (bytes.buffer.len(), bytes.as_ptr()));
        let mut descriptor = buffer.wsk_buf();
        self.on(socket).keep((control, buffer.clone())).submit("WskSendEx", |irp| {
            // SAFETY: the request keeps the buffers; the descriptor is needed during the call only.
            unsafe { function(socket.raw(), &raw mut descriptor, flags, length as u32, messages.cast(), irp) }
        })
    }

    /// `WskReceiveEx`; it asks for no control messages.
    pub fn receive_ex(self, socket: &Socket, buffer: &Buffer, flags: u32) -> Self {
        self.receive_ex_with(socket, buffer, flags, None, None)
    }

    /// `WskReceiveEx` with the variables for the length of control messages and for the reserved flags.
    pub fn receive_ex_with(
        self,
        socket: &Socket,
        buffer: &Buffer,
        flags: u32,
        control_length: Option<&Arc<PoolBox<u32>>>,
        control_flags: Option<&Arc<PoolBox<u32>>>,
    ) -> Self {
        let function = member_of!(socket, WskReceiveEx: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let pointer =
            |number: Option<&Arc<PoolBox<u32>>>| number.map_or(ptr::null_mut(), |number| number.as_ptr());
        let (length, reserved) = (pointer(control_length), pointer(control_flags));
        let mut descriptor = buffer.wsk_buf();
        let kept = (buffer.clone(), control_length.cloned(), control_flags.cloned());
        self.on(socket).keep(kept).submit("WskReceiveEx", |irp| {
            // SAFETY: the request keeps the buffer and the variables; the descriptor is needed during the
            // call only.
            unsafe {
                function(socket.raw(), &raw mut descriptor, flags, length, ptr::null_mut(), reserved, irp)
            }
        })
    }
}
