//! Events of a recorder, and its answers.

use std::cell::Cell;
use std::ffi::c_void;
use std::net::SocketAddr;
use std::ptr;
use std::thread::ThreadId;

use wsk_sys::nt::{self, KIRQL, NTSTATUS};
use wsk_sys::*;

use super::recorder::Recorder;
use super::socket::Socket;
use super::{gather, read_address};

/// A kind of callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `WskAcceptEvent`
    Accept,
    /// `WskInspectEvent`
    Inspect,
    /// `WskAbortEvent`
    Abort,
    /// `WskReceiveEvent`
    Receive,
    /// `WskReceiveFromEvent`
    ReceiveFrom,
    /// `WskDisconnectEvent`
    Disconnect,
    /// `WskSendBacklogEvent`
    SendBacklog,
}

/// The context of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its thread.
    pub thread: ThreadId,
    /// Its IRQL.
    pub irql: KIRQL,
}

impl At {
    pub(crate) fn here() -> Self {
        // SAFETY: reading the IRQL has no precondition.
        Self { thread: std::thread::current().id(), irql: unsafe { nt::KeGetCurrentIrql() } }
    }
}

/// A list of indications, to be released with [`Socket::release`] if it was retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListHandle(pub *mut c_void);

impl ListHandle {
    /// The data of each element of a list of stream data, as it is now.
    ///
    /// # Safety
    /// The list is being indicated by the callback that this runs in, or was retained and not released.
    pub unsafe fn elements(self) -> Vec<Vec<u8>> {
        // SAFETY: the caller guarantees that the list is retained.
        unsafe { read_data(self.0.cast()) }.unwrap_or_default()
    }

    /// The descriptors of a list of stream data, as they are now.
    ///
    /// # Safety
    /// The list has been retained and not been released.
    pub unsafe fn descriptors(self) -> Vec<WSK_BUF> {
        let mut descriptors = Vec::new();
        let mut list: *const WSK_DATA_INDICATION = self.0.cast();
        while !list.is_null() {
            // SAFETY: the caller guarantees that the list is retained.
            let element = unsafe { list.read() };
            descriptors.push(element.Buffer);
            list = element.Next;
        }
        descriptors
    }
}

// SAFETY: the pointer is only a number to other threads; a release calls the provider, which synchronizes.
unsafe impl Send for ListHandle {}
// SAFETY: the pointer is only a number to other threads; its data is read under the contract of `elements`.
unsafe impl Sync for ListHandle {}

/// `WskAcceptEvent`
#[derive(Debug)]
pub struct Accept {
    /// The context of the callback.
    pub at: At,
    /// Its flags.
    pub flags: u32,
    /// The addresses as they were passed, valid during the callback only; there is no identifier.
    pub pointers: CallbackPointers,
    /// The local address.
    pub local: Option<SocketAddr>,
    /// The remote address.
    pub remote: Option<SocketAddr>,
    /// The connection; `None` for the sentinel, and after a refusal.
    pub socket: Option<Socket>,
    /// The outputs, writable while the callback runs.
    pub outputs: Outputs,
    pub(crate) context: Option<GivenRecorder>,
}

impl Accept {
    /// The connection.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn socket(self) -> Socket {
        self.socket.expect("the event carries no socket")
    }
}

/// The recorder of an accepted connection.
#[derive(Debug)]
pub(crate) enum GivenRecorder {
    /// The recorder of the listener.
    Same,
    /// Another one.
    Other(Recorder),
}

/// The two outputs of `WskAcceptEvent`.
#[derive(Debug)]
pub struct Outputs {
    context: Cell<*mut *mut c_void>,
    dispatch: Cell<*mut *const WSK_CLIENT_CONNECTION_DISPATCH>,
}

// SAFETY: the pointers are used during the callback only, by its own thread; afterwards they are null.
unsafe impl Send for Outputs {}
// SAFETY: the pointers are used during the callback only, by its own thread; afterwards they are null.
unsafe impl Sync for Outputs {}

impl Outputs {
    pub(crate) fn new(
        context: *mut *mut c_void,
        dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
    ) -> Self {
        Self { context: Cell::new(context), dispatch: Cell::new(dispatch) }
    }

    /// Writes both outputs: a recorder's, or null. Does nothing once the callback has returned.
    pub fn set(&self, recorder: Option<&Recorder>) {
        let (context, dispatch) = (self.context.get(), self.dispatch.get());
        if context.is_null() || dispatch.is_null() {
            return;
        }
        // SAFETY: the outputs are valid during the callback.
        unsafe { context.write(recorder.map_or(ptr::null_mut(), Recorder::context)) };
        // SAFETY: the outputs are valid during the callback.
        unsafe { dispatch.write(recorder.map_or(ptr::null(), Recorder::connection_table)) };
    }

    pub(crate) fn close(&self) {
        self.context.set(ptr::null_mut());
        self.dispatch.set(ptr::null_mut());
    }
}

/// The answer to `WskAcceptEvent`.
#[derive(Clone, Debug)]
pub struct AcceptAnswer {
    /// The status.
    pub status: NTSTATUS,
    /// The recorder of the connection; `None` writes null outputs.
    pub recorder: Option<Recorder>,
    /// True if the outputs are written.
    pub write: bool,
}

impl AcceptAnswer {
    /// Takes a connection, and refuses the sentinel as Microsoft's sample does.
    pub fn usual(event: &Accept) -> Self {
        if event.socket.is_some() { Self::take() } else { Self::refuse() }
    }

    /// Takes the connection, without events.
    pub fn take() -> Self {
        Self { status: STATUS_SUCCESS, recorder: None, write: true }
    }

    /// Takes the connection and gives it a recorder.
    pub fn take_with(recorder: &Recorder) -> Self {
        Self { recorder: Some(recorder.clone()), ..Self::take() }
    }

    /// Refuses the connection.
    pub fn refuse() -> Self {
        Self { status: STATUS_REQUEST_NOT_ACCEPTED, recorder: None, write: false }
    }

    /// Leaves the outputs as they are.
    #[must_use]
    pub fn without_outputs(self) -> Self {
        Self { write: false, ..self }
    }
}

/// The pointers that were passed to an inspection or abort callback. They are valid during the callback only;
/// tests use them later to check that misuse is detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackPointers {
    /// `InspectID`; null for the sentinel, and for callbacks without one.
    pub id: PWSK_INSPECT_ID,
    /// `LocalAddress`; null for an abort, which has none.
    pub local: PSOCKADDR,
    /// `RemoteAddress`; null for an abort, which has none.
    pub remote: PSOCKADDR,
}

// SAFETY: the pointers are only numbers here; dereferencing them is unsafe for the test that does it.
unsafe impl Send for CallbackPointers {}
// SAFETY: the pointers are only numbers here; dereferencing them is unsafe for the test that does it.
unsafe impl Sync for CallbackPointers {}

/// `WskInspectEvent`
#[derive(Clone, Debug)]
pub struct Inspect {
    /// The context of the callback.
    pub at: At,
    /// The pointers that were passed.
    pub pointers: CallbackPointers,
    /// The local address; `None` for the sentinel.
    pub local: Option<SocketAddr>,
    /// The remote address; `None` for the sentinel.
    pub remote: Option<SocketAddr>,
    /// The identifier; `None` for the sentinel.
    pub id: Option<WSK_INSPECT_ID>,
}

impl Inspect {
    /// The identifier.
    ///
    /// # Panics
    /// For the sentinel.
    #[track_caller]
    pub fn id(&self) -> WSK_INSPECT_ID {
        self.id.expect("the event is the sentinel")
    }
}

/// `WskAbortEvent`
#[derive(Clone, Debug)]
pub struct Abort {
    /// The context of the callback.
    pub at: At,
    /// The pointers that were passed.
    pub pointers: CallbackPointers,
    /// The identifier.
    pub id: Option<WSK_INSPECT_ID>,
}

/// `WskReceiveEvent`
#[derive(Clone, Debug)]
pub struct Receive {
    /// The context of the callback.
    pub at: At,
    /// Its flags.
    pub flags: u32,
    /// The list.
    pub list: ListHandle,
    /// The data of each element; `None` for the sentinel.
    pub elements: Option<Vec<Vec<u8>>>,
    /// `BytesIndicated`
    pub indicated: usize,
    /// `*BytesAccepted` on entry; `None` if the pointer was null.
    pub preset: Option<usize>,
    /// The value written to `*BytesAccepted`.
    pub accepted: Option<usize>,
}

impl Receive {
    /// All the data indicated.
    pub fn bytes(&self) -> Vec<u8> {
        self.elements.iter().flatten().flatten().copied().collect()
    }

    /// Returns true for the sentinel.
    pub fn is_sentinel(&self) -> bool {
        self.elements.is_none()
    }
}

/// The answer to `WskReceiveEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveAnswer {
    /// The status.
    pub status: NTSTATUS,
    /// The value to write to `*BytesAccepted`; `None` leaves it.
    pub accepted: Option<usize>,
}

impl ReceiveAnswer {
    /// Consumes everything, by leaving `*BytesAccepted` at the provider's preset.
    pub fn all() -> Self {
        Self::status(STATUS_SUCCESS)
    }

    /// Consumes this many bytes.
    pub fn part(bytes: usize) -> Self {
        Self { status: STATUS_SUCCESS, accepted: Some(bytes) }
    }

    /// Retains the list until it is released.
    pub fn retain() -> Self {
        Self::status(STATUS_PENDING)
    }

    /// Consumes nothing.
    pub fn decline() -> Self {
        Self::status(STATUS_DATA_NOT_ACCEPTED)
    }

    /// Returns this status.
    pub fn status(status: NTSTATUS) -> Self {
        Self { status, accepted: None }
    }
}

/// One datagram.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Its address as an element of the list, to be released alone.
    pub node: ListHandle,
    /// The data; `None` if the MDL was null.
    pub data: Option<Vec<u8>>,
    /// Its control messages.
    pub control: Vec<u8>,
    /// The sender.
    pub remote: Option<SocketAddr>,
}

/// `WskReceiveFromEvent`
#[derive(Clone, Debug)]
pub struct ReceiveFrom {
    /// The context of the callback.
    pub at: At,
    /// Its flags.
    pub flags: u32,
    /// The list.
    pub list: ListHandle,
    /// The datagrams; `None` for the sentinel.
    pub datagrams: Option<Vec<Datagram>>,
}

/// `WskDisconnectEvent`
#[derive(Clone, Debug)]
pub struct Disconnect {
    /// The context of the callback.
    pub at: At,
    /// Its flags.
    pub flags: u32,
}

impl Disconnect {
    /// Returns true if the connection was reset.
    pub fn abortive(&self) -> bool {
        self.flags & WSK_FLAG_ABORTIVE != 0
    }
}

/// `WskSendBacklogEvent`
#[derive(Clone, Debug)]
pub struct SendBacklog {
    /// The context of the callback.
    pub at: At,
    /// The ideal backlog.
    pub size: usize,
}

/// An event of any kind.
#[derive(Debug)]
pub enum Event {
    /// `WskAcceptEvent`
    Accept(Accept),
    /// `WskInspectEvent`
    Inspect(Inspect),
    /// `WskAbortEvent`
    Abort(Abort),
    /// `WskReceiveEvent`
    Receive(Receive),
    /// `WskReceiveFromEvent`
    ReceiveFrom(ReceiveFrom),
    /// `WskDisconnectEvent`
    Disconnect(Disconnect),
    /// `WskSendBacklogEvent`
    SendBacklog(SendBacklog),
}

impl Event {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Accept(_) => Kind::Accept,
            Self::Inspect(_) => Kind::Inspect,
            Self::Abort(_) => Kind::Abort,
            Self::Receive(_) => Kind::Receive,
            Self::ReceiveFrom(_) => Kind::ReceiveFrom,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::SendBacklog(_) => Kind::SendBacklog,
        }
    }
}

/// Copies the data of a list out.
///
/// # Safety
/// `list` is null or a valid list of mapped indications.
pub(crate) unsafe fn read_data(list: PWSK_DATA_INDICATION) -> Option<Vec<Vec<u8>>> {
    if list.is_null() {
        return None;
    }
    let mut elements = Vec::new();
    let mut next = list;
    // SAFETY: the caller guarantees a valid list of indications.
    while let Some(element) = unsafe { next.as_ref() } {
        // SAFETY: the caller guarantees a valid list of indications.
        elements.push(unsafe { gather(&element.Buffer) });
        next = element.Next;
    }
    Some(elements)
}

/// Copies the datagrams of a list out.
///
/// # Safety
/// `list` is null or a valid list of mapped indications.
pub(crate) unsafe fn read_datagrams(list: PWSK_DATAGRAM_INDICATION) -> Option<Vec<Datagram>> {
    if list.is_null() {
        return None;
    }
    let mut datagrams = Vec::new();
    let mut next = list;
    // SAFETY: the caller guarantees a valid list of indications.
    while let Some(element) = unsafe { next.as_ref() } {
        let data = (!element.Buffer.Mdl.is_null()).then(|| {
            // SAFETY: the caller guarantees a valid list of indications.
            unsafe { gather(&element.Buffer) }
        });
        let control = if element.ControlInfo.is_null() {
            Vec::new()
        } else {
            let length = element.ControlInfoLength as usize;
            // SAFETY: the indication gives the length of its control information.
            unsafe { std::slice::from_raw_parts(element.ControlInfo.cast::<u8>(), length) }.to_vec()
        };
        // SAFETY: an element of a valid list has a valid address.
        let remote = unsafe { read_address(element.RemoteAddress) };
        datagrams.push(Datagram { node: ListHandle(next.cast()), data, control, remote });
        next = element.Next;
    }
    Some(datagrams)
}
