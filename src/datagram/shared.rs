//! The shared state of a datagram socket.

use core::ffi::c_void;

use wsk_sys::WSK_SOCKET;
use wsk_sys::nt::{IRP, NTSTATUS};

use crate::client::{ClientShared, SecurityDescriptor};
use crate::memory::{OutOfMemory, Ref};
use crate::operation::Submission;
use crate::socket::{Core, DatagramTable, Socket, SocketRef};
use crate::sync::SpinLock;

#[repr(C)]
struct DatagramCore {
    socket: Socket,
    /// Kept until the socket has closed, because WSK may use it until then (rule LIFE-12).
    security: SpinLock<Option<SecurityDescriptor>>,
}

// SAFETY: `repr(C)`, and the socket is the first field; `DatagramRef::try_new` makes it with the `Lifetime`
// of this type.
unsafe impl Core for DatagramCore {
    /// No event has a handler (rule SOCK-03).
    const DISPATCH: *const c_void = core::ptr::null();

    fn socket(&self) -> &Socket {
        &self.socket
    }

    unsafe fn closed(&self) {
        let security = self.security.lock().take();
        drop(security);
    }
}

/// A reference on a datagram socket.
///
/// # Invariants
/// It refers to a [`DatagramCore`].
#[derive(Clone)]
pub(super) struct DatagramRef(SocketRef);

impl DatagramRef {
    /// A datagram socket that WSK has not made yet, and whose close is not
    /// [reserved](crate::socket::reserve).
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(super) fn try_new(
        client: &Ref<ClientShared>,
        security: Option<SecurityDescriptor>,
    ) -> Result<Self, OutOfMemory> {
        let make = |security| DatagramCore {
            socket: Socket::new::<DatagramCore>(client.clone()),
            security: SpinLock::new(security),
        };
        let core = Ref::try_make(None, security, make).map_err(|(error, _)| error)?;
        // INVARIANT: the core was just made.
        Ok(Self(core.into()))
    }

    /// The reference, as one on a socket of any kind.
    pub(super) fn socket(&self) -> &SocketRef {
        &self.0
    }

    /// Makes one WSK call that submits `irp`.
    ///
    /// # Safety
    /// An operation has just prepared the IRP. `call` submits it to WSK, or returns `None` and leaves it
    /// alone.
    pub(super) unsafe fn submit(
        &self,
        irp: *mut IRP,
        call: impl FnOnce(*mut WSK_SOCKET, &DatagramTable) -> Option<NTSTATUS>,
    ) -> Submission {
        // SAFETY: the socket is a datagram socket by the invariant; the rest is the caller's promise about
        // the IRP.
        unsafe { self.0.submit(irp, call) }
    }
}

impl core::ops::Deref for DatagramRef {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}
