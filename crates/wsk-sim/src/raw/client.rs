//! A client: registration, capture, and the functions of the captured provider.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fmt;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use wsk_sys::nt::{NTSTATUS, PEPROCESS, PSECURITY_DESCRIPTOR};
use wsk_sys::*;

use super::recorder::Recorder;
use super::socket::{Answer, Category, Shape, Socket, event_control};
use super::{Buffer, CAddress, PoolBox, Request, status_text};

/// The timeout of the first capture of the provider, in milliseconds.
const CAPTURE_TIMEOUT: u32 = 5_000;

/// A registered client. Dropping it releases captures and deregisters.
///
/// # Invariants
/// The registration block stays where it is until deregistration has returned.
pub struct Client {
    registration: PoolBox<UnsafeCell<WSK_REGISTRATION>>,
    npi: Mutex<Option<WSK_PROVIDER_NPI>>,
    captures: AtomicU32,
    registered: AtomicBool,
    dispatch: PoolBox<WSK_CLIENT_DISPATCH>,
}

// SAFETY: the registration functions may be called from any thread; the provider synchronizes the block.
unsafe impl Send for Client {}
// SAFETY: the provider synchronizes the registration block; the rest is atomic.
unsafe impl Sync for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("registration", &self.registration.get())
            .field("captures", &self.captures)
            .finish_non_exhaustive()
    }
}

/// Parameters of `WskSocket`; the defaults are those of most drivers.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// `AddressFamily`
    pub family: ADDRESS_FAMILY,
    /// `SocketType`
    pub socket_type: u16,
    /// `Protocol`
    pub protocol: u32,
    /// `Flags`
    pub flags: u32,
    /// The category that the flags stand for.
    pub category: Category,
    /// Table and context; `None` passes null.
    pub recorder: Option<Recorder>,
    /// `OwningProcess`
    pub process: PEPROCESS,
    /// `SecurityDescriptor`
    pub security: PSECURITY_DESCRIPTOR,
}

impl SocketOptions {
    /// An IPv4 socket of a category, without events.
    pub fn new(category: Category) -> Self {
        let (socket_type, protocol) = match category {
            Category::Datagram => (SOCK_DGRAM, IPPROTO_UDP),
            _ => (SOCK_STREAM, IPPROTO_TCP),
        };
        Self {
            family: AF_INET,
            socket_type,
            protocol,
            flags: category.flag(),
            category,
            recorder: None,
            process: ptr::null_mut(),
            security: ptr::null_mut(),
        }
    }

    /// Adds a recorder of events.
    #[must_use]
    pub fn recorder(self, recorder: &Recorder) -> Self {
        Self { recorder: Some(recorder.clone()), ..self }
    }

    /// Selects IPv6.
    #[must_use]
    pub fn v6(self) -> Self {
        Self { family: AF_INET6, ..self }
    }
}

impl Client {
    /// Registers a client of version 1.0 and captures the provider.
    #[track_caller]
    pub fn new() -> Self {
        let client = Self::registered(MAKE_WSK_VERSION(1, 0)).expect("WskRegister");
        if let Err(status) = client.capture(CAPTURE_TIMEOUT) {
            panic!("WskCaptureProviderNPI: {}", status_text(status));
        }
        client
    }

    /// Registers a client of a version, without capturing the provider.
    pub fn registered(version: u16) -> Result<Self, NTSTATUS> {
        let client = Self {
            registration: PoolBox::new(UnsafeCell::new(WSK_REGISTRATION::zeroed())),
            npi: Mutex::new(None),
            captures: AtomicU32::new(0),
            registered: AtomicBool::new(false),
            dispatch: PoolBox::new(WSK_CLIENT_DISPATCH {
                Version: version,
                Reserved: 0,
                WskClientEvent: None,
            }),
        };
        let mut npi = WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: client.dispatch.as_ptr() };
        // SAFETY: table and block live in the client until deregistration has returned.
        let status = unsafe { WskRegister(&raw mut npi, client.registration()) };
        if status != STATUS_SUCCESS {
            return Err(status);
        }
        client.registered.store(true, Ordering::Relaxed);
        Ok(client)
    }

    /// The registration block.
    pub fn registration(&self) -> *mut WSK_REGISTRATION {
        self.registration.get()
    }

    /// `WskCaptureProviderNPI`; on success the captured provider is the one the client uses.
    pub fn capture(&self, timeout: u32) -> Result<(), NTSTATUS> {
        let mut npi = WSK_PROVIDER_NPI { Client: ptr::null_mut(), Dispatch: ptr::null() };
        // SAFETY: the block is registered, or the provider recognizes that it is not.
        let status = unsafe { WskCaptureProviderNPI(self.registration(), timeout, &raw mut npi) };
        if status != STATUS_SUCCESS {
            return Err(status);
        }
        self.captures.fetch_add(1, Ordering::Relaxed);
        *self.npi.lock() = Some(npi);
        Ok(())
    }

    /// `WskReleaseProviderNPI`
    pub fn release(&self) {
        let _ =
            self.captures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        // SAFETY: the block is registered, or the provider recognizes that it is not.
        unsafe { WskReleaseProviderNPI(self.registration()) };
    }

    /// `WskQueryProviderCharacteristics`
    pub fn query(&self) -> Result<WSK_PROVIDER_CHARACTERISTICS, NTSTATUS> {
        let mut characteristics = WSK_PROVIDER_CHARACTERISTICS::default();
        // SAFETY: the block is registered, or the provider recognizes that it is not.
        let status =
            unsafe { WskQueryProviderCharacteristics(self.registration(), &raw mut characteristics) };
        if status == STATUS_SUCCESS { Ok(characteristics) } else { Err(status) }
    }

    /// `WskDeregister`; it waits until captures are released and sockets are closed.
    pub fn deregister(&self) {
        self.registered.store(false, Ordering::Relaxed);
        // SAFETY: the block is registered, or the provider recognizes that it is not.
        unsafe { WskDeregister(self.registration()) };
    }

    /// Leaves the client registered for ever.
    pub fn forget(self) {
        std::mem::forget(self);
    }

    /// The captured provider, which may have been released since.
    ///
    /// # Panics
    /// If none was ever captured.
    pub fn npi(&self) -> WSK_PROVIDER_NPI {
        self.npi.lock().expect("the provider was not captured")
    }

    /// The captured provider's table.
    pub fn dispatch(&self) -> &'static WSK_PROVIDER_DISPATCH {
        // SAFETY: the tables of the provider are constant.
        unsafe { &*self.npi().Dispatch }
    }

    // Sockets -----------------------------------------------------------------------------------------------

    /// Starts `WskSocket`.
    pub fn open(&self, options: &SocketOptions) -> Request {
        self.open_with(Request::new(), options)
    }

    /// Starts `WskSocket` with this request.
    pub fn open_with(&self, request: Request, options: &SocketOptions) -> Request {
        let context = options.recorder.as_ref().map_or(ptr::null_mut(), Recorder::context);
        let dispatch =
            options.recorder.as_ref().map_or(ptr::null(), |recorder| recorder.table(options.category));
        // SAFETY: the request keeps the recorder, and the socket keeps it after that.
        unsafe { self.open_as(request, options, context, dispatch) }
    }

    /// Starts `WskSocket` with this request, context and table.
    ///
    /// # Safety
    /// The table, if there is one, is of the category, outlives the socket, and its callbacks accept the
    /// context; or it is memory that the checker recognizes as invalid.
    pub unsafe fn open_as(
        &self,
        request: Request,
        options: &SocketOptions,
        context: *mut c_void,
        dispatch: *const c_void,
    ) -> Request {
        let function = self.dispatch().WskSocket.expect("the table has WskSocket");
        let client = self.npi().Client;
        let shape = Shape { category: options.category, recorder: options.recorder.clone() };
        request.yielding(shape).submit("WskSocket", |irp| {
            // SAFETY: the caller guarantees table and context; the client is the captured one.
            unsafe {
                function(
                    client,
                    options.family,
                    options.socket_type,
                    options.protocol,
                    options.flags,
                    context,
                    dispatch,
                    options.process,
                    ptr::null_mut(),
                    options.security,
                    irp,
                )
            }
        })
    }

    /// An IPv4 socket of a category, with a recorder.
    #[track_caller]
    pub fn socket(&self, category: Category, recorder: &Recorder) -> Socket {
        self.open(&SocketOptions::new(category).recorder(recorder)).socket()
    }

    /// An IPv4 listening socket, with a recorder.
    #[track_caller]
    pub fn listener(&self, recorder: &Recorder) -> Socket {
        self.socket(Category::Listen, recorder)
    }

    /// An IPv4 listening socket bound to the loopback address, with a recorder; and the address.
    #[track_caller]
    pub fn bound_listener(&self, recorder: &Recorder) -> (Socket, SocketAddr) {
        let listener = self.listener(recorder);
        let address = listener.bind_localhost();
        (listener, address)
    }

    /// The same with conditional accept.
    #[track_caller]
    pub fn conditional_listener(&self, recorder: &Recorder) -> (Socket, SocketAddr) {
        let listener = self.listener(recorder);
        listener.conditional_accept();
        let address = listener.bind_localhost();
        (listener, address)
    }

    /// An IPv4 connection socket, with a recorder.
    #[track_caller]
    pub fn connection(&self, recorder: &Recorder) -> Socket {
        self.socket(Category::Connection, recorder)
    }

    /// An IPv4 connection socket connected to `address` from the loopback address.
    #[track_caller]
    pub fn connected(&self, address: SocketAddr, recorder: &Recorder) -> Socket {
        let socket = self.connection(recorder);
        socket.bind(super::LOCALHOST).ok();
        socket.connect(address).ok();
        socket
    }

    /// An IPv4 datagram socket, with a recorder.
    #[track_caller]
    pub fn datagram(&self, recorder: &Recorder) -> Socket {
        self.socket(Category::Datagram, recorder)
    }

    /// Starts `WskSocketConnect`.
    pub fn socket_connect(
        &self,
        request: Request,
        local: SocketAddr,
        remote: SocketAddr,
        flags: u32,
        recorder: Option<&Recorder>,
    ) -> Request {
        let function = self.dispatch().WskSocketConnect.expect("the table has WskSocketConnect");
        let client = self.npi().Client;
        let (local, remote) = (CAddress::new(local), CAddress::new(remote));
        let (local_pointer, remote_pointer) = (local.as_ptr(), remote.as_ptr());
        let context = recorder.map_or(ptr::null_mut(), Recorder::context);
        let dispatch = recorder.map_or(ptr::null(), Recorder::connection_table);
        request.yielding(Shape::connection(recorder)).keep((local, remote)).submit(
            "WskSocketConnect",
            |irp| {
                // SAFETY: the request keeps addresses and recorder; the client is the captured one.
                unsafe {
                    function(
                        client,
                        SOCK_STREAM,
                        IPPROTO_TCP,
                        local_pointer,
                        remote_pointer,
                        flags,
                        context,
                        dispatch,
                        ptr::null_mut(),
                        ptr::null_mut(),
                        ptr::null_mut(),
                        irp,
                    )
                }
            },
        )
    }

    // Control -----------------------------------------------------------------------------------------------

    /// `WskControlClient` without an IRP. `input` and `output` of `None` pass null.
    pub fn control_now(&self, code: u32, input: Option<&[u8]>, output: Option<usize>) -> Answer {
        let output = output.map(Buffer::new);
        let size = Arc::new(PoolBox::new(0_usize));
        let request = self.control(Request::null(), code, input, output.as_ref(), Some(Arc::clone(&size)));
        let output = output.map(|buffer| buffer.read()).unwrap_or_default();
        Answer { status: request.returned(), size: **size, output }
    }

    /// Starts `WskControlClient`.
    pub fn control(
        &self,
        request: Request,
        code: u32,
        input: Option<&[u8]>,
        output: Option<&Buffer>,
        size: Option<Arc<PoolBox<usize>>>,
    ) -> Request {
        let function = self.dispatch().WskControlClient.expect("the table has WskControlClient");
        let client = self.npi().Client;
        let input = input.map(Buffer::of);
        let (input_size, input_pointer) = Self::range(input.as_ref());
        let (output_size, output_pointer) = Self::range(output);
        let size_pointer = size.as_ref().map_or(ptr::null_mut(), |size| size.as_ptr());
        request.keep((input, output.cloned(), size)).submit("WskControlClient", |irp| {
            // SAFETY: the request keeps the buffers; the client is the captured one.
            unsafe {
                function(
                    client,
                    code,
                    input_size,
                    input_pointer,
                    output_size,
                    output_pointer,
                    size_pointer,
                    irp,
                )
            }
        })
    }

    fn range(buffer: Option<&Buffer>) -> (usize, *mut c_void) {
        buffer.map_or((0, ptr::null_mut()), |buffer| (buffer.len(), buffer.address()))
    }

    /// `WSK_CACHE_SD`; the cached copy is released with [`release_descriptor`](Self::release_descriptor).
    ///
    /// # Safety
    /// `descriptor` points to a whole security descriptor.
    pub unsafe fn cache_descriptor(
        &self,
        descriptor: PSECURITY_DESCRIPTOR,
    ) -> Result<PSECURITY_DESCRIPTOR, NTSTATUS> {
        let input = (descriptor.expose_provenance()).to_ne_bytes();
        let answer = self.control_now(WSK_CACHE_SD, Some(&input), Some(size_of::<PSECURITY_DESCRIPTOR>()));
        if answer.status != STATUS_SUCCESS {
            return Err(answer.status);
        }
        let address = usize::from_ne_bytes(answer.output.try_into().expect("a pointer"));
        Ok(ptr::with_exposed_provenance_mut(address))
    }

    /// `WSK_RELEASE_SD`
    pub fn release_descriptor(&self, descriptor: PSECURITY_DESCRIPTOR) -> NTSTATUS {
        let input = (descriptor.expose_provenance()).to_ne_bytes();
        self.control_now(WSK_RELEASE_SD, Some(&input), None).status
    }

    /// `WSK_SET_STATIC_EVENT_CALLBACKS`
    pub fn static_events(&self, mask: u32) -> NTSTATUS {
        let input = event_control(&NPI_WSK_INTERFACE_ID, mask);
        self.control_now(WSK_SET_STATIC_EVENT_CALLBACKS, Some(&input), None).status
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed already. The client stays registered, and so its block and table stay.
            let block = PoolBox::new(UnsafeCell::new(WSK_REGISTRATION::zeroed()));
            std::mem::forget(std::mem::replace(&mut self.registration, block));
            let table = WSK_CLIENT_DISPATCH { Version: 0, Reserved: 0, WskClientEvent: None };
            std::mem::forget(std::mem::replace(&mut self.dispatch, PoolBox::new(table)));
            return;
        }
        while self.captures.load(Ordering::Relaxed) != 0 {
            self.release();
        }
        if self.registered.load(Ordering::Relaxed) {
            self.deregister();
        }
    }
}
