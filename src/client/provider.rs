//! The captured provider: where sockets come from.

use core::ffi::c_void;
use core::fmt;
use core::mem::size_of;
use core::time::Duration;

use wsk_sys::nt::PSECURITY_DESCRIPTOR;
use wsk_sys::{
    AF_INET, AF_INET6, IPPROTO_TCP, PFN_WSK_CONTROL_CLIENT, SOCK_STREAM, STATUS_NOT_SUPPORTED, WSK_CACHE_SD,
    WSK_PROVIDER_NPI, WSK_RELEASE_SD, nt_success,
};

use super::{ClientShared, Pause};
use crate::error::{Error, Operation, Result};
use crate::irql::Passive;
use crate::listener::ListenerBuilder;
use crate::memory::Ref;
use crate::operation::{Op, Outcome, Refusal, Request, Submission};
use crate::socket::{Core, CoreRef, Socket, attach};

/// WSK's functions, captured (`WskCaptureProviderNPI`). Clones share one capture, which the last one releases.
///
/// Sockets keep working after it is released; only making new ones needs it.
#[derive(Clone)]
pub struct Provider {
    captured: Ref<Captured>,
}

/// One capture.
struct Captured {
    client: Ref<ClientShared>,
    npi: WSK_PROVIDER_NPI,
}

// SAFETY: the client handle and the table are usable from any thread until the release.
unsafe impl Send for Captured {}
// SAFETY: as for `Send`.
unsafe impl Sync for Captured {}

impl Drop for Captured {
    fn drop(&mut self) {
        self.client.release();
    }
}

impl Provider {
    pub(super) fn capture(
        client: &Ref<ClientShared>,
        timeout: Duration,
        passive: Passive<'_>,
    ) -> Result<Self> {
        let npi = client.capture(timeout, passive)?;
        // When memory is out, dropping the value releases the capture again.
        let captured = Captured { client: client.clone(), npi };
        match Ref::try_new_in(captured, client.cache()) {
            Ok(captured) => Ok(Self { captured }),
            Err((_, _released)) => Err(Error::out_of_memory(Operation::Capture)),
        }
    }

    /// Begins to make a listening socket.
    pub fn listener(&self) -> ListenerBuilder {
        ListenerBuilder::new(self.clone())
    }

    /// Waits a quarter of a second, about, before something is tried again that has failed with an error that
    /// [passes](Error::is_transient). It needs no memory, which may be what was out; see
    /// [`Listener::pause`](crate::Listener::pause). When the client unloads it ends at once. The future does not keep the capture.
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

    /// Makes the socket of `core` (`WskSocket`) and attaches it.
    pub(crate) async fn create<C: Core>(&self, core: &Ref<C>, recipe: Recipe) -> Result<()> {
        let request = CreateRequest { provider: self.clone(), core: CoreRef::new(core.clone()) };
        let op = Op::try_new(self.client().cache(), request)
            .map_err(|_| Error::out_of_memory(Operation::Socket))?;
        let call = |irp, _| {
            // SAFETY: `run` passes an IRP that was prepared; the request owns the core, and WSK does from completion on.
            unsafe { self.hand_over(core, &recipe, irp) }
        };
        // SAFETY: the operation is new, and `hand_over` passes the IRP to `WskSocket` alone.
        let (outcome, _) = unsafe { op.run(call) }.await;
        outcome.result(Operation::Socket).map(drop)
    }

    /// Calls `WskSocket`.
    ///
    /// # Safety
    /// `irp` was prepared, and `core` lives until it has completed, and then until the socket is closed. The table of
    /// `recipe` is static, and the one for a core of this type and for the category that the flags name.
    unsafe fn hand_over<C: Core>(
        &self,
        core: &Ref<C>,
        recipe: &Recipe,
        irp: *mut wsk_sys::nt::IRP,
    ) -> Submission {
        let npi = &self.captured.npi;
        // SAFETY: the table is valid while the capture lives, and this member was always there.
        let Some(create) = (unsafe { (*npi.Dispatch).WskSocket }) else {
            return Submission::Refused(Refusal::NO_FUNCTION);
        };
        let family = if recipe.ipv6 { AF_INET6 } else { AF_INET };
        // SAFETY: the client handle is captured, the context outlives the socket by the rules of `socket`, the
        // table is that of the category (rule SOCK-03), and the IRP was prepared by the operation.
        let _ = unsafe {
            create(
                npi.Client,
                family,
                SOCK_STREAM,
                IPPROTO_TCP,
                recipe.flags,
                Ref::as_ptr(core).cast_mut().cast(),
                recipe.dispatch,
                core::ptr::null_mut(),
                core::ptr::null_mut(),
                core::ptr::null_mut(),
                irp,
            )
        };
        Submission::Handed
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
        descriptor: PSECURITY_DESCRIPTOR,
        _passive: Passive<'_>,
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
        match Ref::try_new_in(held, self.client().cache()) {
            Ok(held) => Ok(SecurityDescriptor { held }),
            Err((_, _released)) => Err(Error::out_of_memory(Operation::ControlClient)),
        }
    }

    fn control_client(&self, call: impl FnOnce(PFN_WSK_CONTROL_CLIENT) -> i32) -> i32 {
        // SAFETY: the table is valid while the capture lives, and this member was always there.
        let control = unsafe { (*self.captured.npi.Dispatch).WskControlClient };
        control.map_or(STATUS_NOT_SUPPORTED, call)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

/// What `WskSocket` is asked for.
pub(crate) struct Recipe {
    /// `WSK_FLAG_LISTEN_SOCKET` or `WSK_FLAG_CONNECTION_SOCKET`.
    pub(crate) flags: u32,
    pub(crate) ipv6: bool,
    /// The client table of that category.
    pub(crate) dispatch: *const c_void,
}

// SAFETY: the table is a static.
unsafe impl Send for Recipe {}
// SAFETY: as for `Send`.
unsafe impl Sync for Recipe {}

struct CreateRequest<C: Core> {
    /// Keeps the capture until the IRP has completed (rule REG-21).
    provider: Provider,
    core: CoreRef<C>,
}

impl<C: Core> Request for CreateRequest<C> {
    fn socket(&self) -> Option<&Socket> {
        // It is made on the client.
        None
    }

    /// The socket belongs to the client from here on, also if the future is never polled again.
    fn completed(&mut self, outcome: Outcome) {
        if let Ok(socket) = outcome.result(Operation::Socket) {
            // SAFETY: WSK has just made the socket, for the core of this request, and says so once.
            unsafe { attach(&self.core, socket as *mut _) };
        }
    }

    fn orphaned(self, _outcome: Outcome) {
        // A core without a socket closes nothing.
        self.core.socket().close_later();
        drop(self.provider);
    }
}

/// A security descriptor that WSK keeps (`WSK_CACHE_SD`); the last clone gives it back (`WSK_RELEASE_SD`).
#[derive(Clone)]
pub struct SecurityDescriptor {
    held: Ref<CachedDescriptor>,
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
// SAFETY: as for `Send`.
unsafe impl Sync for CachedDescriptor {}

impl Drop for CachedDescriptor {
    fn drop(&mut self) {
        let mut cached = self.cached;
        let _ = self.provider.control_client(|control| {
            // SAFETY: the descriptor is a cached one, nobody names it any more, and it is released once (rule CTL-07).
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
