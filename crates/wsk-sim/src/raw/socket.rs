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

use super::calls::ReceiveFromOptions;
use super::events::ListHandle;
use super::recorder::Recorder;
use super::table::{member, member_of};
use super::{Buffer, Request};

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

/// The parameters of a socket that a request will create.
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

/// A socket. Clones are handles to the same one; the last closes it, unless it was closed or forgotten
/// before.
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
// SAFETY: the provider synchronizes calls for one socket.
unsafe impl Sync for Inner {}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} socket {:p}", self.category, self.raw)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.closed.get_mut() {
            return;
        }
        if std::thread::panicking() {
            // The test has failed already. The socket stays open, and so its callbacks may still come.
            self.kept.get_mut().drain(..).for_each(std::mem::forget);
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
        // SAFETY: the provider recognizes sockets that are closed already.
        unsafe { function(raw, irp) }
    })
}

/// The answer of a call without an IRP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status that the call returned.
    pub status: NTSTATUS,
    /// The value written to `*OutputSizeReturned`.
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
    /// True if `OutputSizeReturned` is passed.
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
    // SAFETY: the field lies in the vector, which has the size of the structure.
    unsafe { npi.write_unaligned(interface) };
    // SAFETY: the field lies in the vector, which has the size of the structure.
    let events = unsafe { &raw mut (*control).EventMask };
    // SAFETY: the field lies in the vector, which has the size of the structure.
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

    /// Leaves the socket open for ever.
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

    /// Binds to the loopback address and returns the address in use.
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

    /// Receives a datagram of up to `length` bytes and returns its sender.
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
            // SAFETY: the provider recognizes lists that are not its own.
            return unsafe { function(self.raw(), list.0.cast()) };
        }
        let function = member_of!(self, WskRelease:
            Connection => WSK_PROVIDER_CONNECTION_DISPATCH, Stream => WSK_PROVIDER_STREAM_DISPATCH);
        // SAFETY: the provider recognizes lists that are not its own.
        unsafe { function(self.raw(), list.0.cast()) }
    }
}
