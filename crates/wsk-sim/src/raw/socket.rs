//! Sockets, called through their tables as a C driver would.

use std::ffi::c_void;
use std::fmt;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use super::events::ListHandle;
use super::recorder::Recorder;
use super::{Buffer, BufferList, CAddress, PoolBox, Request};

/// The category of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Control functions only.
    Basic,
    /// Listens.
    Listen,
    /// Connects, or was accepted.
    Connection,
    /// Datagrams.
    Datagram,
    /// Listens or connects later.
    Stream,
}

impl Category {
    /// The flag of `WskSocket`.
    pub fn flag(self) -> u32 {
        match self {
            Self::Basic => WSK_FLAG_BASIC_SOCKET,
            Self::Listen => WSK_FLAG_LISTEN_SOCKET,
            Self::Connection => WSK_FLAG_CONNECTION_SOCKET,
            Self::Datagram => WSK_FLAG_DATAGRAM_SOCKET,
            Self::Stream => WSK_FLAG_STREAM_SOCKET,
        }
    }
}

/// What a request will make a socket of.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) category: Category,
    pub(crate) recorder: Option<Recorder>,
}

impl Shape {
    pub(crate) fn connection(recorder: Option<&Recorder>) -> Self {
        Self { category: Category::Connection, recorder: recorder.cloned() }
    }

    /// The socket whose address is the `Information` of a successful request.
    pub(crate) fn socket(self, information: usize) -> Socket {
        let raw = ptr::with_exposed_provenance_mut::<WSK_SOCKET>(information);
        assert!(!raw.is_null(), "a successful request gave no socket");
        // SAFETY: the provider has just made the socket; its first member is the table.
        let dispatch = unsafe { (*raw).Dispatch };
        Socket(Arc::new(Inner {
            raw,
            dispatch,
            category: self.category,
            closed: AtomicBool::new(false),
            kept: Mutex::new(self.recorder.into_iter().collect()),
        }))
    }
}

/// A socket. Clones are handles to the same one; the last closes it, unless it was closed or forgotten before.
#[derive(Clone, Debug)]
pub struct Socket(Arc<Inner>);

struct Inner {
    raw: PWSK_SOCKET,
    /// Read once, when the socket was new: a call on a closed socket must not read the socket to be made.
    dispatch: *const c_void,
    category: Category,
    closed: AtomicBool,
    kept: Mutex<Vec<Recorder>>,
}

// SAFETY: the provider's functions may be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} socket {:p}", self.category, self.raw)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.closed.get_mut() || std::thread::panicking() {
            return;
        }
        let request = close(self.raw, self.dispatch, Request::new());
        request.ok();
    }
}

fn close(raw: PWSK_SOCKET, dispatch: *const c_void, request: Request) -> Request {
    // SAFETY: the tables of the provider are constant and begin with the basic one.
    let function = unsafe { (*dispatch.cast::<WSK_PROVIDER_BASIC_DISPATCH>()).WskCloseSocket };
    let function = function.expect("every table has WskCloseSocket");
    request.submit("WskCloseSocket", |irp| {
        // SAFETY: the provider recognises sockets that are closed already.
        unsafe { function(raw, irp) }
    })
}

/// A member of a table of the provider.
macro_rules! member {
    ($socket:expr, $table:ident . $member:ident) => {{
        let table = $socket.0.dispatch.cast::<$table>();
        // SAFETY: the tables of the provider are constant, and the category says which one this is.
        unsafe { (*table).$member }.expect(concat!("the table has ", stringify!($member)))
    }};
}

/// A member that listening, connection, datagram and stream tables have at different places.
macro_rules! member_of {
    ($socket:expr, $member:ident: $($category:ident => $table:ident),+) => {
        match $socket.category() {
            $(Category::$category => member!($socket, $table.$member),)+
            #[allow(unreachable_patterns)]
            other => panic!(concat!("a {:?} socket has no ", stringify!($member)), other),
        }
    };
}

/// The answer of a call without an IRP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the call returned.
    pub status: NTSTATUS,
    /// What was written to `*OutputSizeReturned`.
    pub size: usize,
    /// The output buffer.
    pub output: Vec<u8>,
}

/// One call of `WskControlSocket`, in full.
#[derive(Clone, Debug)]
pub struct Control {
    /// The kind of request.
    pub kind: WSK_CONTROL_SOCKET_TYPE,
    /// The option or code.
    pub code: u32,
    /// The level of an option.
    pub level: u32,
    /// The input; `None` passes null.
    pub input: Option<Vec<u8>>,
    /// The room for output; `None` passes null.
    pub output: Option<usize>,
    /// Whether `OutputSizeReturned` is passed.
    pub size_wanted: bool,
}

impl Control {
    /// Sets an option.
    pub fn set(level: u32, option: u32, value: &[u8]) -> Self {
        let input = Some(value.to_vec());
        Self { kind: WskSetOption, code: option, level, input, output: None, size_wanted: false }
    }

    /// Reads an option of `size` bytes.
    pub fn get(level: u32, option: u32, size: usize) -> Self {
        Self { kind: WskGetOption, code: option, level, input: None, output: Some(size), size_wanted: false }
    }

    /// An I/O control code.
    pub fn ioctl(code: u32, input: Option<&[u8]>, output: Option<usize>) -> Self {
        let input = input.map(<[u8]>::to_vec);
        Self { kind: WskIoctl, code, level: 0, input, output, size_wanted: false }
    }

    /// Switches events.
    pub fn events(mask: u32) -> Self {
        Self::set(SOL_SOCKET, SO_WSK_EVENT_CALLBACK, &event_control(&NPI_WSK_INTERFACE_ID, mask))
    }

    /// Passes `OutputSizeReturned`.
    #[must_use]
    pub fn with_size(self) -> Self {
        Self { size_wanted: true, ..self }
    }
}

/// The bytes of a `WSK_EVENT_CALLBACK_CONTROL`.
pub fn event_control(interface: &'static NPIID, mask: u32) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<WSK_EVENT_CALLBACK_CONTROL>()];
    let control = bytes.as_mut_ptr().cast::<WSK_EVENT_CALLBACK_CONTROL>();
    // SAFETY: the vector has the size of the structure; only its fields are written.
    let npi = unsafe { &raw mut (*control).NpiId };
    // SAFETY: as above.
    unsafe { npi.write_unaligned(interface) };
    // SAFETY: as above.
    let events = unsafe { &raw mut (*control).EventMask };
    // SAFETY: as above.
    unsafe { events.write_unaligned(mask) };
    bytes
}

impl Socket {
    /// The provider's object.
    pub fn raw(&self) -> PWSK_SOCKET {
        self.0.raw
    }

    /// The provider's table.
    pub fn dispatch(&self) -> *const c_void {
        self.0.dispatch
    }

    /// Its category.
    pub fn category(&self) -> Category {
        self.0.category
    }

    /// Keeps a recorder alive as long as this socket.
    pub fn keep(&self, recorder: Recorder) {
        self.0.kept.lock().push(recorder);
    }

    /// Leaves the socket open: it is closed by nobody.
    pub fn forget(self) {
        self.0.closed.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.0.kept.lock()).into_iter().for_each(std::mem::forget);
    }

    /// Starts `WskCloseSocket`.
    pub fn close(&self) -> Request {
        self.close_with(Request::new())
    }

    /// Starts `WskCloseSocket` with this request.
    pub fn close_with(&self, request: Request) -> Request {
        self.0.closed.store(true, Ordering::Relaxed);
        close(self.raw(), self.dispatch(), request.keep(self.clone()))
    }

    // Addresses ---------------------------------------------------------------------------------------------

    /// Starts `WskBind`.
    pub fn bind(&self, address: SocketAddr) -> Request {
        Request::new().bind(self, address, 0)
    }

    /// Binds to the loopback address and tells the address in use.
    #[track_caller]
    pub fn bind_localhost(&self) -> SocketAddr {
        self.bind(super::LOCALHOST).ok();
        self.local_address()
    }

    /// The local address.
    #[track_caller]
    pub fn local_address(&self) -> SocketAddr {
        let (request, address) = Request::new().local_address(self);
        request.ok();
        address.get().expect("an address of IPv4 or IPv6")
    }

    /// The remote address.
    #[track_caller]
    pub fn remote_address(&self) -> SocketAddr {
        let (request, address) = Request::new().remote_address(self);
        request.ok();
        address.get().expect("an address of IPv4 or IPv6")
    }

    // Options -----------------------------------------------------------------------------------------------

    /// `WskControlSocket` without an IRP.
    pub fn control_now(&self, control: &Control) -> Answer {
        let request = Request::null().control(self, control);
        let output = request.1.map(|output| output.bytes()).unwrap_or_default();
        Answer { status: request.0.returned(), size: request.2.map_or(0, |size| **size), output }
    }

    /// Starts `WskControlSocket`.
    pub fn control(&self, control: &Control) -> Request {
        Request::new().control(self, control).0
    }

    /// Starts to set an option of four bytes.
    pub fn set_option(&self, level: u32, option: u32, value: u32) -> Request {
        self.control(&Control::set(level, option, &value.to_ne_bytes()))
    }

    /// Reads an option of four bytes.
    #[track_caller]
    pub fn get_option(&self, level: u32, option: u32) -> u32 {
        let (request, output, _) = Request::new().control(self, &Control::get(level, option, 4));
        request.ok();
        let bytes = output.expect("an output was given").bytes();
        u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
    }

    /// Turns conditional accept on.
    #[track_caller]
    pub fn conditional_accept(&self) -> &Self {
        self.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1).ok();
        self
    }

    /// Turns events on, without an IRP.
    pub fn enable(&self, mask: u32) -> NTSTATUS {
        self.control_now(&Control::events(mask)).status
    }

    /// Turns an event off, without an IRP.
    pub fn disable(&self, event: u32) -> NTSTATUS {
        self.control_now(&Control::events(event | WSK_EVENT_DISABLE)).status
    }

    /// Starts to turn an event off.
    pub fn disable_with_irp(&self, event: u32) -> Request {
        self.control(&Control::events(event | WSK_EVENT_DISABLE))
    }

    /// `SIO_WSK_QUERY_INSPECT_ID`
    pub fn query_inspect_id(&self) -> Result<WSK_INSPECT_ID, NTSTATUS> {
        let size = size_of::<WSK_INSPECT_ID>();
        let control = Control::ioctl(SIO_WSK_QUERY_INSPECT_ID, None, Some(size)).with_size();
        let answer = self.control_now(&control);
        if answer.status != STATUS_SUCCESS {
            return Err(answer.status);
        }
        assert_eq!(answer.size, size);
        // SAFETY: the output has the size of the structure, which is plain data.
        Ok(unsafe { answer.output.as_ptr().cast::<WSK_INSPECT_ID>().read_unaligned() })
    }

    // Listening ---------------------------------------------------------------------------------------------

    /// Starts `WskAccept` for a connection without events.
    pub fn accept(&self) -> Request {
        Request::new().accept(self, None, 0)
    }

    /// Starts `WskAccept` for a connection with a recorder.
    pub fn accept_with(&self, recorder: &Recorder) -> Request {
        Request::new().accept(self, Some(recorder), 0)
    }

    /// Starts `WskInspectComplete`.
    pub fn inspect_complete(&self, id: WSK_INSPECT_ID, action: WSK_INSPECT_ACTION) -> Request {
        Request::new().inspect_complete(self, id, action)
    }

    /// Starts `WskListen`.
    pub fn listen(&self) -> Request {
        Request::new().listen(self)
    }

    // Connections -------------------------------------------------------------------------------------------

    /// Starts `WskConnect`.
    pub fn connect(&self, address: SocketAddr) -> Request {
        Request::new().connect(self, address, 0)
    }

    /// Starts `WskSend` of a copy of `bytes`.
    pub fn send(&self, bytes: &[u8]) -> Request {
        Request::new().send(self, &Buffer::of(bytes), 0)
    }

    /// Starts `WskReceive`.
    pub fn receive(&self, buffer: &Buffer) -> Request {
        Request::new().receive(self, buffer, 0)
    }

    /// Receives up to `length` bytes.
    #[track_caller]
    pub fn receive_some(&self, length: usize) -> Vec<u8> {
        let buffer = Buffer::new(length);
        let done = self.receive(&buffer).ok();
        buffer.read_first(done.information)
    }

    /// Receives exactly `length` bytes, with `WSK_FLAG_WAITALL`.
    #[track_caller]
    pub fn receive_all(&self, length: usize) -> Vec<u8> {
        let buffer = Buffer::new(length);
        let done = Request::new().receive(self, &buffer, WSK_FLAG_WAITALL).ok();
        assert_eq!(done.information, length, "the stream ended early");
        buffer.read()
    }

    /// Starts a graceful `WskDisconnect`.
    pub fn disconnect(&self) -> Request {
        Request::new().disconnect(self, None, 0)
    }

    /// Starts an abortive `WskDisconnect`.
    pub fn abort(&self) -> Request {
        Request::new().disconnect(self, None, WSK_FLAG_ABORTIVE)
    }

    // Datagrams ---------------------------------------------------------------------------------------------

    /// Starts `WskSendTo` of a copy of `bytes`.
    pub fn send_to(&self, bytes: &[u8], address: SocketAddr) -> Request {
        Request::new().send_to(self, &Buffer::of(bytes), Some(address), &[], 0)
    }

    /// Receives a datagram of up to `length` bytes and tells its sender.
    #[track_caller]
    pub fn receive_datagram(&self, length: usize) -> (Vec<u8>, SocketAddr) {
        let buffer = Buffer::new(length);
        let (request, outputs) = Request::new().receive_from(self, &buffer, ReceiveFromOptions::default());
        let done = request.ok();
        (buffer.read_first(done.information), outputs.remote.get().expect("a sender"))
    }

    /// `WskRelease`
    pub fn release(&self, list: ListHandle) -> NTSTATUS {
        if self.category() == Category::Datagram {
            let function = member!(self, WSK_PROVIDER_DATAGRAM_DISPATCH.WskRelease);
            // SAFETY: the provider recognises lists that are not its own.
            return unsafe { function(self.raw(), list.0.cast()) };
        }
        let function = member_of!(self, WskRelease:
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Stream => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the provider recognises lists that are not its own.
        unsafe { function(self.raw(), list.0.cast()) }
    }
}

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

/// What `WskAccept` is given, pointers included; the test keeps what they point to.
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

/// What `WskReceiveFrom` is given beside the buffer.
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

/// What `WskReceiveFrom` writes beside the buffer.
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
            // SAFETY: the request keeps the address; the provider recognises closed sockets.
            unsafe { function(socket.raw(), pointer, flags, irp) }
        })
    }

    /// `WskBind` with a pointer to the address as it is.
    pub fn bind_at(self, socket: &Socket, address: PSOCKADDR) -> Self {
        let function = member_of!(socket, WskBind: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Datagram => WSK_PROVIDER_DATAGRAM_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        self.on(socket).submit("WskBind", |irp| {
            // SAFETY: what the pointer points to is up to the test; the provider recognises closed sockets.
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
            // SAFETY: the request keeps the address; the provider recognises closed sockets.
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
            // SAFETY: the request keeps the address; the provider recognises closed sockets.
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
            // SAFETY: the request keeps the buffers; the provider recognises closed sockets.
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
                // SAFETY: the request keeps addresses and recorder; the provider recognises closed sockets.
                unsafe {
                    function(socket.raw(), flags, context, dispatch, local_pointer, remote_pointer, irp)
                }
            },
        )
    }

    /// `WskAccept` with these parameters as they are.
    pub fn accept_as(self, socket: &Socket, parameters: AcceptParameters) -> Self {
        let function = member_of!(socket, WskAccept: Listen => WSK_PROVIDER_LISTEN_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let AcceptParameters { flags, context, dispatch, local, remote } = parameters;
        self.on(socket).yielding(Shape::connection(None)).submit("WskAccept", |irp| {
            // SAFETY: what the pointers point to is up to the test; the provider recognises closed sockets.
            unsafe { function(socket.raw(), flags, context, dispatch, local, remote, irp) }
        })
    }

    /// `WskInspectComplete`
    pub fn inspect_complete(self, socket: &Socket, id: WSK_INSPECT_ID, action: WSK_INSPECT_ACTION) -> Self {
        let id = PoolBox::new(id);
        let pointer = id.as_ptr();
        self.keep(id).inspect_complete_at(socket, pointer, action)
    }

    /// `WskInspectComplete` with a pointer to the identifier as it is.
    pub fn inspect_complete_at(
        self,
        socket: &Socket,
        id: PWSK_INSPECT_ID,
        action: WSK_INSPECT_ACTION,
    ) -> Self {
        let function = member_of!(socket, WskInspectComplete: Listen => WSK_PROVIDER_LISTEN_DISPATCH);
        self.on(socket).submit("WskInspectComplete", |irp| {
            // SAFETY: what the pointer points to is up to the test; the provider recognises closed sockets.
            unsafe { function(socket.raw(), id, action, irp) }
        })
    }

    /// `WskListen`
    pub fn listen(self, socket: &Socket) -> Self {
        let function = member_of!(socket, WskListen: Stream => WSK_PROVIDER_STREAM_DISPATCH);
        self.on(socket).submit("WskListen", |irp| {
            // SAFETY: the provider recognises closed sockets.
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
            // SAFETY: the request keeps the address; the provider recognises closed sockets.
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
            // SAFETY: the request keeps address and data; the provider recognises closed sockets.
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
            // SAFETY: the request keeps list and address; the provider recognises closed sockets.
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
        let function = member_of!(socket, WskReceiveEx: Connection => WSK_PROVIDER_CONNECTION_DISPATCH,
            Stream => WSK_PROVIDER_STREAM_DISPATCH);
        let mut descriptor = buffer.wsk_buf();
        self.on(socket).keep(buffer.clone()).submit("WskReceiveEx", |irp| {
            // SAFETY: the request keeps the buffer; the descriptor is needed during the call only.
            unsafe {
                function(
                    socket.raw(),
                    &raw mut descriptor,
                    flags,
                    ptr::null_mut(),
                    ptr::null_mut(),
                    ptr::null_mut(),
                    irp,
                )
            }
        })
    }
}
