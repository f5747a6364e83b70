//! The captured provider: where sockets come from.

use core::ffi::c_void;
use core::fmt;
use core::mem::size_of;
use core::net::SocketAddr;
use core::ptr::NonNull;
use core::time::Duration;

use wsk_sys::nt::{IRP, NTSTATUS, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    PFN_WSK_CONTROL_CLIENT, PWSK_CLIENT, STATUS_NOT_SUPPORTED, WSK_CACHE_SD, WSK_PROVIDER_NPI,
    WSK_RELEASE_SD, nt_success,
};

use super::{ClientShared, Node, Pause};
use crate::connection::{Connect, ConnectionBuilder};
use crate::datagram::DatagramBuilder;
use crate::error::{Error, Operation, Result};
use crate::irql::Passive;
use crate::listener::ListenerBuilder;
use crate::memory::{Cache, Ref, RefCount};
use crate::operation::{Refusal, Submission, complete_here, keep_image};
use crate::socket::{ProviderTable, Table as _};

/// WSK's functions, captured (`WskCaptureProviderNPI`). Clones share one capture, which is released when the
/// last one was dropped: soon after, by the client's reaper thread, so that clones may be dropped anywhere.
///
/// Sockets keep working after it is released; only making new ones needs it.
#[derive(Clone)]
pub struct Provider {
    captured: Handle<Captured>,
}

/// Something of WSK's that is given back by a call, which [`Handle`] leaves to the reaper.
trait Lease: Send + Sync + Sized + 'static {
    /// Whose reaper it is.
    fn client(&self) -> &Ref<ClientShared>;

    /// Makes the call. Called once, at `PASSIVE_LEVEL` outside of callbacks and completion routines.
    fn end(&self);
}

/// One of several handles on a lease. The last one that is dropped, wherever that is, has the reaper end it.
///
/// # Invariants
/// Each handle is counted in `handles`.
struct Handle<T: Lease>(Ref<Leased<T>>);

#[repr(C)]
struct Leased<T> {
    /// Queued by the last handle.
    node: Node,
    handles: RefCount,
    lease: T,
}

impl<T: Lease> Handle<T> {
    /// The first handle; without memory, the lease comes back.
    fn try_new(lease: T, cache: &Cache) -> core::result::Result<Self, T> {
        let make = |lease| Leased { node: Node::new(end::<T>), handles: RefCount::one(), lease };
        Ref::try_make(Some(cache), lease, make).map(Self).map_err(|(_, lease)| lease)
    }
}

impl<T: Lease> core::ops::Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.lease
    }
}

impl<T: Lease> Clone for Handle<T> {
    fn clone(&self) -> Self {
        self.0.handles.acquire();
        Self(self.0.clone())
    }
}

impl<T: Lease> Drop for Handle<T> {
    fn drop(&mut self) {
        if !self.0.handles.release() {
            return;
        }
        let queued = Ref::into_raw(self.0.clone());
        // SAFETY: a counted reference is never null.
        let node = unsafe { NonNull::new_unchecked(queued.cast_mut().cast::<Node>()) };
        // SAFETY: there is one last handle, so the node is queued once; the reference just leaked keeps it
        // until it was run. It is the first field.
        unsafe { self.0.lease.client().reap(node) };
    }
}

/// # Safety
/// `node` is that of a [`Leased`] `T`, queued with a reference.
unsafe fn end<T: Lease>(node: NonNull<Node>) {
    // SAFETY: the node is the first field, and the queue owned this reference.
    let leased = unsafe { Ref::<Leased<T>>::from_raw(node.as_ptr().cast_const().cast()) };
    leased.lease.end();
}

/// One capture.
struct Captured {
    client: Ref<ClientShared>,
    npi: WSK_PROVIDER_NPI,
}

// SAFETY: the client handle and the table are usable from any thread until the release.
unsafe impl Send for Captured {}
// SAFETY: a shared capture gives the client handle and the table, which any number of threads may use.
unsafe impl Sync for Captured {}

impl Lease for Captured {
    fn client(&self) -> &Ref<ClientShared> {
        &self.client
    }

    fn end(&self) {
        // SAFETY: this value is one capture, and its lease ends once.
        unsafe { self.client.release() };
    }
}

impl Provider {
    pub(super) fn capture(
        client: &Ref<ClientShared>,
        timeout: Duration,
        passive: Passive<'_>,
    ) -> Result<Self> {
        let npi = client.capture(timeout, passive)?;
        let captured = Captured { client: client.clone(), npi };
        match Handle::try_new(captured, client.cache()) {
            Ok(captured) => Ok(Self { captured }),
            Err(captured) => {
                captured.end();
                Err(Error::out_of_memory(Operation::Capture))
            }
        }
    }

    /// Returns the builder of a listening socket.
    pub fn listener(&self) -> ListenerBuilder {
        ListenerBuilder::new(self.clone())
    }

    /// Returns the builder of a datagram socket.
    pub fn datagram(&self) -> DatagramBuilder {
        DatagramBuilder::new(self.clone())
    }

    /// Connects to an address, from a local address that WSK chooses (`WskSocketConnect`). The connection has
    /// no event handlers; see [`Provider::connector`] for those, and for a local address.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the attempt is cancelled, and a connection that comes in spite of it is
    /// closed.
    ///
    /// # Errors
    /// The same as those of [`ConnectionBuilder::connect`].
    ///
    /// ```
    /// # use wsk::{Buffer, Provider, Result};
    /// # async fn example(provider: &Provider) -> Result<()> {
    /// let mut connection = provider.connect(([192, 0, 2, 1], 7007).into()).await?;
    /// let (sent, _) = connection.send(Buffer::try_from_slice(b"hello")?).await;
    /// sent?;
    /// connection.shutdown().await
    /// # }
    /// ```
    pub fn connect(&self, to: SocketAddr) -> Connect {
        self.connector().connect(to)
    }

    /// Returns the builder of an outgoing connection.
    pub fn connector(&self) -> ConnectionBuilder {
        ConnectionBuilder::new(self.clone())
    }

    /// Waits up to a quarter of a second before something is tried again that has failed with an error that
    /// [passes](Error::is_transient): all that pause go on together, so one that joins others waits for less.
    /// It needs no memory, which may be what was out; see [`Listener::pause`](crate::Listener::pause). When
    /// the client unloads it ends at once. The future does not keep the capture.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub fn pause(&self) -> Pause {
        Pause::new(self.client().clone())
    }

    pub(crate) fn client(&self) -> &Ref<ClientShared> {
        &self.captured.client
    }

    /// Makes one WSK call through the client's table, which submits `irp`.
    ///
    /// # Safety
    /// An operation has just prepared the IRP. `call` submits it to WSK, or returns `None` and leaves it
    /// alone.
    pub(crate) unsafe fn submit(
        &self,
        irp: *mut IRP,
        call: impl FnOnce(PWSK_CLIENT, &ProviderTable) -> Option<NTSTATUS>,
    ) -> Submission {
        // SAFETY: the caller has prepared the IRP; the capture keeps the client from letting its device go.
        if unsafe { keep_image(irp, self.client().device()) }.is_err() {
            return Submission::Refused(Refusal::OUT_OF_MEMORY);
        }
        if call(self.captured.npi.Client, &self.table()).is_none() {
            // This WSK does not have the function. The I/O manager may hold memory for the IRP, so that is
            // completed. SAFETY: the IRP was prepared, and WSK was not given it.
            unsafe { complete_here(irp, STATUS_NOT_SUPPORTED) };
        }
        Submission::Pending
    }

    /// The client's table, which is there as long as the capture.
    fn table(&self) -> ProviderTable {
        // SAFETY: the table is that of a client, whose capture this value keeps.
        unsafe { ProviderTable::new(self.captured.npi.Dispatch.cast()) }
    }

    /// Has WSK keep a copy of a security descriptor, for [`ListenerBuilder::security`] (`WSK_CACHE_SD`).
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Whatever WSK answers, or `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// # Safety
    /// `descriptor` points to a valid security descriptor.
    pub unsafe fn cache_security_descriptor(
        &self,
        _passive: Passive<'_>,
        descriptor: PSECURITY_DESCRIPTOR,
    ) -> Result<SecurityDescriptor> {
        let mut input = descriptor;
        let mut cached: PSECURITY_DESCRIPTOR = core::ptr::null_mut();
        let mut written = 0_usize;
        let status = self.control_client(|control| {
            // SAFETY: the handle is captured, both buffers are pointer-sized and live during the call, which
            // completes inline because it takes no IRP (rules CTL-06, CTL-12).
            unsafe {
                control(
                    self.captured.npi.Client,
                    WSK_CACHE_SD,
                    size_of::<PSECURITY_DESCRIPTOR>(),
                    (&raw mut input).cast::<c_void>(),
                    size_of::<PSECURITY_DESCRIPTOR>(),
                    (&raw mut cached).cast::<c_void>(),
                    &raw mut written,
                    core::ptr::null_mut(),
                )
            }
        });
        if !nt_success(status) {
            return Err(Error::new(Operation::ControlClient, status));
        }
        let held = CachedDescriptor { provider: self.clone(), cached };
        match Handle::try_new(held, self.client().cache()) {
            Ok(held) => Ok(SecurityDescriptor { held }),
            Err(held) => {
                held.end();
                Err(Error::out_of_memory(Operation::ControlClient))
            }
        }
    }

    fn control_client(&self, call: impl FnOnce(PFN_WSK_CONTROL_CLIENT) -> i32) -> i32 {
        self.table().control_client().map_or(STATUS_NOT_SUPPORTED, call)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

/// A security descriptor that WSK keeps (`WSK_CACHE_SD`). It is given back (`WSK_RELEASE_SD`) when the last
/// clone was dropped: soon after, by the client's reaper thread, so that clones may be dropped anywhere. Each
/// keeps a capture, like a [`Provider`].
#[derive(Clone)]
pub struct SecurityDescriptor {
    held: Handle<CachedDescriptor>,
}

impl SecurityDescriptor {
    pub(crate) fn as_raw(&self) -> PSECURITY_DESCRIPTOR {
        self.held.cached
    }
}

impl fmt::Debug for SecurityDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecurityDescriptor").field(&self.held.cached).finish()
    }
}

struct CachedDescriptor {
    provider: Provider,
    cached: PSECURITY_DESCRIPTOR,
}

// SAFETY: the descriptor is WSK's and may be named from any thread.
unsafe impl Send for CachedDescriptor {}
// SAFETY: a shared value gives the descriptor's address, which any number of threads may name.
unsafe impl Sync for CachedDescriptor {}

impl Lease for CachedDescriptor {
    fn client(&self) -> &Ref<ClientShared> {
        self.provider.client()
    }

    fn end(&self) {
        let mut cached = self.cached;
        let _ = self.provider.control_client(|control| {
            // SAFETY: the descriptor is a cached one, nobody names it any more, and it is released once (rule
            // CTL-07).
            unsafe {
                control(
                    self.provider.captured.npi.Client,
                    WSK_RELEASE_SD,
                    size_of::<PSECURITY_DESCRIPTOR>(),
                    (&raw mut cached).cast::<c_void>(),
                    0,
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                )
            }
        });
    }
}
