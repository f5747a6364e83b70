//! A registration with its capture, and the functions of the captured provider.
//!
//! # Invariants
//! The block stays where it is from registration until deregistration has returned. Deregistration waits for
//! every socket of the registration; after it no callback runs, and no request of the client is under way.

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::recorder::{self, Recorder};
use crate::request::{Answer, Pending, Request, allocate, free};
use crate::socket::{Socket, loopback};

/// The time that a client waits for the provider, in milliseconds.
const CAPTURE: u32 = 10_000;

static DISPATCH: WSK_CLIENT_DISPATCH =
    WSK_CLIENT_DISPATCH { Version: MAKE_WSK_VERSION(1, 0), Reserved: 0, WskClientEvent: None };

/// A client; each scene has its own.
pub(crate) struct Client {
    block: NonNull<Block>,
    npi: WSK_PROVIDER_NPI,
    /// Requests that were refused and not completed.
    kept: Cell<Option<Request>>,
}

struct Block {
    registration: WSK_REGISTRATION,
    recorder: Recorder,
}

/// The parameters of a socket.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) flags: u32,
    pub(crate) dispatch: *const c_void,
    pub(crate) datagram: bool,
    /// No protocol is named.
    pub(crate) unnamed: bool,
}

impl Kind {
    const fn stream(flags: u32, dispatch: *const c_void) -> Self {
        Self { flags, dispatch, datagram: false, unnamed: false }
    }

    pub(crate) const fn basic() -> Self {
        Self::stream(WSK_FLAG_BASIC_SOCKET, ptr::null())
    }

    pub(crate) fn listen(dispatch: &'static WSK_CLIENT_LISTEN_DISPATCH) -> Self {
        Self::stream(WSK_FLAG_LISTEN_SOCKET, ptr::from_ref(dispatch).cast())
    }

    pub(crate) fn connection() -> Self {
        Self::stream(WSK_FLAG_CONNECTION_SOCKET, ptr::addr_of!(recorder::CONNECTION).cast())
    }

    pub(crate) fn stream_socket() -> Self {
        Self::stream(WSK_FLAG_STREAM_SOCKET, ptr::addr_of!(recorder::STREAM).cast())
    }

    pub(crate) fn datagram() -> Self {
        let dispatch = ptr::addr_of!(recorder::DATAGRAM).cast();
        Self { flags: WSK_FLAG_DATAGRAM_SOCKET, dispatch, datagram: true, unnamed: false }
    }
}

impl Client {
    /// Registers a client and captures the provider.
    pub(crate) fn new() -> Result<Self, NTSTATUS> {
        let block = allocate::<Block>().ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
        let content = Block { registration: WSK_REGISTRATION::zeroed(), recorder: Recorder::new() };
        // SAFETY: the memory is fresh and of that size.
        unsafe { block.write(content) };
        // SAFETY: the block is alive; only the recorder is looked at.
        unsafe { &(*block.as_ptr()).recorder }.prepare();
        // SAFETY: the block is alive, and only an address is computed.
        let registration = unsafe { &raw mut (*block.as_ptr()).registration };
        let mut client = WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: &raw const DISPATCH };
        // SAFETY: the table is constant, and the block stays until deregistration has returned.
        let status = unsafe { WskRegister(&raw mut client, registration) };
        if status != STATUS_SUCCESS {
            // SAFETY: the block is not shared.
            unsafe { free(block) };
            return Err(status);
        }
        let mut npi = WSK_PROVIDER_NPI { Client: ptr::null_mut(), Dispatch: ptr::null() };
        // SAFETY: the block is registered.
        let status = unsafe { WskCaptureProviderNPI(registration, CAPTURE, &raw mut npi) };
        if status != STATUS_SUCCESS {
            // SAFETY: the block is registered, and nothing is captured.
            unsafe { WskDeregister(registration) };
            // SAFETY: the provider does not use it any more.
            unsafe { free(block) };
            return Err(status);
        }
        Ok(Self { block, npi, kept: Cell::new(None) })
    }

    fn registration(&self) -> *mut WSK_REGISTRATION {
        // SAFETY: the block is alive as long as the client.
        unsafe { &raw mut (*self.block.as_ptr()).registration }
    }

    /// The observations of the callbacks.
    pub(crate) fn recorder(&self) -> &Recorder {
        // SAFETY: the block is alive as long as the client, and the recorder is only shared.
        unsafe { &(*self.block.as_ptr()).recorder }
    }

    /// The context of sockets.
    pub(crate) fn context(&self) -> *mut c_void {
        ptr::from_ref(self.recorder()).cast_mut().cast()
    }

    /// Keeps a request that was refused, without its IRP being completed, until nothing of this client is
    /// under way.
    pub(crate) fn keep(&self, request: Request) {
        let next = self.kept.take();
        self.kept.set(Some(request.link(next)));
    }

    // Sockets -----------------------------------------------------------------------------------------------

    /// Starts `WskSocket`.
    pub(crate) fn socket(&self, kind: Kind) -> Result<Pending<'_>, NTSTATUS> {
        self.socket_of(self.npi.Client, kind)
    }

    /// Starts `WskSocket` with a null client.
    pub(crate) fn socket_of_null(&self, kind: Kind) -> Result<Pending<'_>, NTSTATUS> {
        self.socket_of(ptr::null_mut(), kind)
    }

    fn socket_of(&self, client: PWSK_CLIENT, kind: Kind) -> Result<Pending<'_>, NTSTATUS> {
        // SAFETY: the table is constant while it is captured.
        let function = unsafe { (*self.npi.Dispatch).WskSocket }.ok_or(STATUS_NOT_IMPLEMENTED)?;
        let (socket_type, protocol) =
            if kind.datagram { (SOCK_DGRAM, IPPROTO_UDP) } else { (SOCK_STREAM, IPPROTO_TCP) };
        let protocol = if kind.unnamed { 0 } else { protocol };
        let (context, reserve) = (self.context(), Request::new()?);
        let (process, thread, security) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let call = |_, irp| {
            // SAFETY: the table of the kind is constant, and the context outlives the socket.
            unsafe {
                function(
                    client,
                    AF_INET,
                    socket_type,
                    protocol,
                    kind.flags,
                    context,
                    kind.dispatch,
                    process,
                    thread,
                    security,
                    irp,
                )
            }
        };
        // SAFETY: one call, which is given nothing else to touch.
        Ok(unsafe { Request::new()?.submit(self, call) }.gives_socket(kind.flags, reserve))
    }

    /// Makes a socket.
    pub(crate) fn open(&self, kind: Kind) -> Result<Socket<'_>, NTSTATUS> {
        self.socket(kind)?.ok()?.ok_or(STATUS_UNSUCCESSFUL)
    }

    /// Makes one and binds it to a port of the loopback address, which is returned.
    pub(crate) fn open_bound(&self, kind: Kind) -> Result<(Socket<'_>, u16), NTSTATUS> {
        let socket = self.open(kind)?;
        socket.bind(&loopback(0))?.ok()?;
        let port = socket.port()?;
        Ok((socket, port))
    }

    /// Makes a connection through a listener: the side that was accepted, and the one that has connected.
    pub(crate) fn pair(&self) -> Result<(Socket<'_>, Socket<'_>), NTSTATUS> {
        let (listener, port) = self.open_bound(Kind::listen(&recorder::LISTEN))?;
        let (connection, _) = self.open_bound(Kind::connection())?;
        let accept = listener.accept()?;
        connection.connect(&loopback(port))?.ok()?;
        let accepted = accept.ok()?.ok_or(STATUS_UNSUCCESSFUL)?;
        Ok((accepted, connection))
    }

    // The client object -------------------------------------------------------------------------------------

    /// `WSK_SET_STATIC_EVENT_CALLBACKS`
    pub(crate) fn static_events(&self, mask: u32) -> Result<Answer, NTSTATUS> {
        // SAFETY: the table is constant while it is captured.
        let function = unsafe { (*self.npi.Dispatch).WskControlClient }.ok_or(STATUS_NOT_IMPLEMENTED)?;
        let mut control =
            WSK_EVENT_CALLBACK_CONTROL { NpiId: &raw const NPI_WSK_INTERFACE_ID, EventMask: mask };
        let (size, none) = (size_of_val(&control), ptr::null_mut());
        // SAFETY: without an IRP the call is over when it returns, and the input is a local.
        let status = unsafe {
            function(
                self.npi.Client,
                WSK_SET_STATIC_EVENT_CALLBACKS,
                size,
                (&raw mut control).cast(),
                0,
                none,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        Ok(Answer::without_irp(status))
    }

    /// Starts `WskControlClient` without input and output.
    pub(crate) fn control(&self, code: u32) -> Result<Pending<'_>, NTSTATUS> {
        // SAFETY: the table is constant while it is captured.
        let function = unsafe { (*self.npi.Dispatch).WskControlClient }.ok_or(STATUS_NOT_IMPLEMENTED)?;
        let (client, none) = (self.npi.Client, ptr::null_mut());
        let call = |_, irp| {
            // SAFETY: there are no buffers.
            unsafe { function(client, code, 0, none, 0, none, ptr::null_mut(), irp) }
        };
        // SAFETY: one call, which is given nothing else to touch.
        Ok(unsafe { Request::new()?.submit(self, call) })
    }

    /// Starts `WskGetAddressInfo` for a short name, without a process.
    pub(crate) fn resolve(&self, name: &str) -> Result<Pending<'_>, NTSTATUS> {
        // SAFETY: the table is constant while it is captured.
        let function = unsafe { (*self.npi.Dispatch).WskGetAddressInfo }.ok_or(STATUS_NOT_IMPLEMENTED)?;
        let client = self.npi.Client;
        let mut request = Request::new()?;
        let parts = request.parts();
        // The last unit stays zero.
        let room = parts.name_text.len() - 1;
        let mut length = 0;
        for (to, from) in parts.name_text.iter_mut().take(room).zip(name.encode_utf16()) {
            *to = from;
            length += 2;
        }
        parts.name.Length = length;
        parts.name.MaximumLength = length + 2;
        parts.name.Buffer = parts.name_text.as_mut_ptr();
        let call = |parts: *mut crate::request::Parts, irp| {
            // SAFETY: the parts are alive; only an address is computed.
            let name = unsafe { &raw mut (*parts).name };
            // SAFETY: the parts are alive, and only an address is computed.
            let result = unsafe { &raw mut (*parts).addresses };
            let (nothing, process, thread) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            // SAFETY: name and result lie in the parts.
            unsafe {
                function(
                    client,
                    name,
                    nothing,
                    0,
                    ptr::null_mut(),
                    ptr::null_mut(),
                    result,
                    process,
                    thread,
                    irp,
                )
            }
        };
        // SAFETY: one call, which is given the parts and nothing else.
        Ok(unsafe { request.submit(self, call) })
    }

    /// Frees the result of a name resolution.
    pub(crate) fn free_addresses(&self, request: &mut Request) {
        // SAFETY: the table is constant while it is captured.
        let function = unsafe { (*self.npi.Dispatch).WskFreeAddressInfo };
        let addresses = core::mem::replace(&mut request.parts().addresses, ptr::null_mut());
        if let (Some(function), false) = (function, addresses.is_null()) {
            // SAFETY: the list came from this client, and is freed once.
            unsafe { function(self.npi.Client, addresses) };
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: one was captured.
        unsafe { WskReleaseProviderNPI(self.registration()) };
        // SAFETY: the block is registered, and this thread holds nothing of it any more.
        unsafe { WskDeregister(self.registration()) };
        drop(self.kept.take());
        // SAFETY: neither the provider nor a callback uses the block any more.
        unsafe { free(self.block) };
    }
}
