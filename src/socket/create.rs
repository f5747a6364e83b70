//! Creating a socket: `WskSocket`.

use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM, WSK_FLAG_DATAGRAM_SOCKET,
    WSK_FLAG_LISTEN_SOCKET,
};

use super::{ProviderTable, SocketRef, attach};
use crate::client::Provider;
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Op, Outcome, Request, Submission};

/// Parameters of `WskSocket`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketParams {
    pub(crate) category: Category,
    pub(crate) ipv6: bool,
}

/// Category of a socket, with its type and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Listen,
    Datagram,
}

impl Category {
    fn flags(self) -> u32 {
        match self {
            Self::Listen => WSK_FLAG_LISTEN_SOCKET,
            Self::Datagram => WSK_FLAG_DATAGRAM_SOCKET,
        }
    }

    fn protocol(self) -> (u16, u32) {
        match self {
            Self::Listen => (SOCK_STREAM, IPPROTO_TCP),
            Self::Datagram => (SOCK_DGRAM, IPPROTO_UDP),
        }
    }
}

/// The memory of a request for a socket.
pub(super) struct CreateRequest {
    /// Keeps the capture until the IRP has completed (rule REG-21).
    provider: Provider,
    core: SocketRef,
}

impl Request for CreateRequest {
    /// It is made on the client, and there is no socket yet.
    fn close_if_dead(&self, _outcome: Outcome) {}

    /// The socket belongs to the client from here on, also if the future is never polled again.
    fn completed(&mut self, outcome: Outcome) {
        if let Ok(socket) = outcome.result(Operation::Socket) {
            // SAFETY: WSK has just made the socket, for the core of this request, and says so once.
            unsafe { attach(&self.core, socket as *mut _) };
        }
    }

    fn orphaned(self, _outcome: Outcome) {
        // A core without a socket closes nothing.
        self.core.close_later();
        drop(self.provider);
    }
}

/// A socket to be made for a core, and attached to it.
pub(super) struct CreateOperation {
    provider: Provider,
    core: SocketRef,
    params: SocketParams,
}

impl CreateOperation {
    /// Creates the operation; `params` names the category of the core.
    pub(super) fn new(provider: &Provider, core: &SocketRef, params: SocketParams) -> Self {
        Self { provider: provider.clone(), core: core.clone(), params }
    }

    /// Calls `WskSocket`.
    ///
    /// # Safety
    /// `irp` was prepared for a request that keeps the provider and the core until it has completed.
    unsafe fn submit_irp(&self, irp: *mut IRP) -> Submission {
        let Self { provider, core, params } = self;
        let family = if params.ipv6 { AF_INET6 } else { AF_INET };
        let (socket_type, protocol) = params.category.protocol();
        let call = |client, table: &ProviderTable| {
            let create = table.socket()?;
            let context = core.as_ptr().as_ptr().cast();
            // SAFETY: the client is captured; the request keeps the context, which outlives the socket by the
            // rules of `socket`; the table is that of the core's category (rule SOCK-03), which `params`
            // names.
            Some(unsafe {
                create(
                    client,
                    family,
                    socket_type,
                    protocol,
                    params.category.flags(),
                    context,
                    core.dispatch(),
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                    irp,
                )
            })
        };
        // SAFETY: the caller has prepared the IRP, which `call` submits or leaves alone.
        unsafe { provider.submit(irp, call) }
    }
}

impl operation::Operation for CreateOperation {
    type Request = CreateRequest;
    type Output = Result<()>;

    fn start(&mut self, _context: &Context<'_>) -> Poll<core::result::Result<Op<CreateRequest>, Result<()>>> {
        let request = CreateRequest { provider: self.provider.clone(), core: self.core.clone() };
        let Ok(op) = Op::try_new(self.cache(), request) else {
            return Poll::Ready(Err(Err(Error::out_of_memory(Operation::Socket))));
        };
        let call = |irp, _| {
            // SAFETY: `submit` passes an IRP that was prepared for the request.
            unsafe { self.submit_irp(irp) }
        };
        // SAFETY: the operation is new, and `submit_irp` passes the IRP to `WskSocket` alone.
        unsafe { op.submit(call) };
        Poll::Ready(Ok(op))
    }

    fn finish(&mut self, outcome: Outcome, _request: CreateRequest) -> Result<()> {
        outcome.result(Operation::Socket).map(drop)
    }

    fn refuse(&mut self, error: Error) -> Option<Result<()>> {
        Some(Err(error))
    }

    fn name(&self) -> Operation {
        Operation::Socket
    }

    fn cache(&self) -> &Cache {
        self.provider.client().cache()
    }
}
