//! Making a socket ready for use: it is created, its options are set, and it is bound, each with an IRP.

use core::marker::PhantomData;
use core::mem::size_of;
use core::net::SocketAddr;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{SO_WSK_SECURITY, SOL_SOCKET, WskSetOption};

use super::control::{ControlCode, control_with_irp};
use super::create::{CreateOperation, SocketParams};
use super::table::BindTable;
use super::{SocketRef, reserve};
use crate::address::SockAddr;
use crate::client::{Provider, SecurityDescriptor};
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::options::{OptionSet, Setting};

/// The settings that a builder has gathered.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) provider: Provider,
    pub(crate) security: Option<SecurityDescriptor>,
    pub(crate) options: OptionSet,
}

impl Opening {
    pub(crate) fn new(provider: Provider) -> Self {
        Self { provider, security: None, options: OptionSet::default() }
    }

    /// Makes the socket of `core`, sets the options and binds it; returns the address that it got.
    ///
    /// If it fails or is dropped, the caller closes the socket, as soon as there is one, by dropping its
    /// handle. The core keeps the security descriptor as long as the socket.
    ///
    /// # Safety
    /// `T` is the table of the category that `params` names, which is that of the core.
    pub(crate) async unsafe fn bind<T: BindTable>(
        &mut self,
        core: &SocketRef,
        params: SocketParams,
        local: SocketAddr,
    ) -> Result<SocketAddr> {
        reserve(core).map_err(|_| Error::out_of_memory(Operation::Socket))?;
        Lazy::new(CreateOperation::new(&self.provider, core, params)).await?;
        let mut before = None;
        let mut bound = local;
        // One wait for all of them: each wait in the sources is code and state of its own.
        while let Some(step) = self.next_step(before) {
            // SAFETY: the caller vouches for the table.
            bound = Lazy::new(unsafe { StepOperation::<T>::new(core, step, local) }).await?;
            before = Some(step);
        }
        Ok(bound)
    }

    /// The step after another one: the options come first, then the security descriptor.
    fn next_step(&mut self, before: Option<Step>) -> Option<Step> {
        if let Some(setting) = self.options.take_first() {
            return Some(Step::Set(setting));
        }
        match (before, &self.security) {
            (None | Some(Step::Set(_)), Some(descriptor)) => {
                Some(Step::Security(descriptor.as_raw() as usize))
            }
            (None | Some(Step::Set(_) | Step::Security(_)), _) => Some(Step::Bind),
            (Some(Step::Bind), _) => Some(Step::LocalAddress),
            (Some(Step::LocalAddress), _) => None,
        }
    }
}

/// Creates the operation that reads the address a socket is bound to (`WskGetLocalAddress`).
///
/// # Safety
/// `T` is the table of the socket's category.
pub(crate) unsafe fn local_address<T: BindTable>(socket: &SocketRef) -> StepOperation<T> {
    let unread = SocketAddr::from(([0; 4], 0));
    // SAFETY: the caller vouches for the table.
    unsafe { StepOperation::new(socket, Step::LocalAddress, unread) }
}

const _: () = assert!(cfg!(target_endian = "little"), "a number in a word is read from its first bytes");

/// One call on the socket that was made.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set(Setting),
    Security(usize),
    Bind,
    LocalAddress,
}

impl Step {
    fn operation(self) -> Operation {
        match self {
            Self::Set(_) | Self::Security(_) => Operation::SetOption,
            Self::Bind => Operation::Bind,
            Self::LocalAddress => Operation::LocalAddress,
        }
    }

    /// The option that is set, and its value, of which WSK reads the first bytes.
    fn option(self) -> Option<(ControlCode, usize)> {
        let (level, code, value, input) = match self {
            Self::Set(Setting { level, name, value }) => (level, name, value as usize, size_of::<u32>()),
            Self::Security(address) => (SOL_SOCKET, SO_WSK_SECURITY, address, size_of::<usize>()),
            Self::Bind | Self::LocalAddress => return None,
        };
        let operation = Operation::SetOption;
        Some((ControlCode { operation, request: WskSetOption, code, level, input, output: 0 }, value))
    }
}

/// The memory that WSK reads or writes in a step; it stays in the operation block until completion (rules
/// LIFE-06, LIFE-07).
///
/// The one option whose value is an address, `SO_WSK_SECURITY`, names a descriptor that WSK itself keeps for
/// its users on all threads, until the core, which has a reference on it, gives it back after its operations.
pub(crate) struct StepRequest {
    /// The value of an option.
    value: usize,
    address: SockAddr,
    socket: SocketRef,
}

impl Request for StepRequest {
    fn close_if_dead(&self, outcome: Outcome) {
        self.socket.close_if_dead(outcome);
    }
}

impl StepRequest {
    /// Calls `WskControlSocket`, `WskBind` or `WskGetLocalAddress`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed. `T` is the table of the socket's category.
    unsafe fn submit_irp<T: BindTable>(
        socket: &SocketRef,
        step: Step,
        irp: *mut IRP,
        request: *mut Self,
    ) -> Submission {
        // SAFETY: the request is live; only the address of a field is computed.
        let address = unsafe { &raw mut (*request).address }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let value = unsafe { &raw mut (*request).value }.cast();
        let call = |handle, table: &T| {
            if let Some((what, _)) = step.option() {
                let (function, output) = (table.control_socket(), core::ptr::null_mut());
                // SAFETY: rundown protection is held; the value lives in the request, and is as long as is
                // said.
                return unsafe { control_with_irp(handle, function, what, value, output, irp) };
            }
            if let Step::Bind = step {
                let bind = table.bind()?;
                // SAFETY: the address is of the socket's family (rule BIND-12) and lives in the request.
                return Some(unsafe { bind(handle, address, 0, irp) });
            }
            let get = table.local_address()?;
            // SAFETY: 128 bytes are enough for every family (rule LIFE-07), and they live in the request.
            Some(unsafe { get(handle, address, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone; the caller
        // vouches for the table.
        unsafe { socket.submit(irp, call) }
    }
}

/// A step to come. Its output is the address that was read, or else the one that was bound to.
///
/// # Invariants
/// `T` is the table of the socket's category.
pub(crate) struct StepOperation<T> {
    socket: SocketRef,
    step: Step,
    local: SocketAddr,
    table: PhantomData<fn() -> T>,
}

impl<T: BindTable> StepOperation<T> {
    /// Creates the operation; `local` is the address to bind to.
    ///
    /// # Safety
    /// `T` is the table of the socket's category.
    unsafe fn new(socket: &SocketRef, step: Step, local: SocketAddr) -> Self {
        Self { socket: socket.clone(), step, local, table: PhantomData }
    }
}

impl<T: BindTable> operation::Operation for StepOperation<T> {
    type Request = StepRequest;
    type Output = Result<SocketAddr>;

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<StepRequest>, Result<SocketAddr>>> {
        let Self { ref socket, step, local, .. } = *self;
        let value = step.option().map_or(0, |(_, value)| value);
        let address =
            if let Step::LocalAddress = step { SockAddr::unspecified() } else { SockAddr::from(local) };
        let request = StepRequest { value, address, socket: socket.clone() };
        let Ok(op) = Op::try_new(socket.client().cache(), request) else {
            return Poll::Ready(Err(Err(Error::out_of_memory(step.operation()))));
        };
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it; the table is that of
            // the socket's category by the invariant.
            unsafe { StepRequest::submit_irp::<T>(socket, step, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and the request's memory alone.
        unsafe { op.submit(call) };
        Poll::Ready(Ok(op))
    }

    fn finish(&mut self, outcome: Outcome, request: StepRequest) -> Result<SocketAddr> {
        outcome.result(self.step.operation())?;
        request.address.require(self.step.operation())
    }

    fn refuse(&mut self, error: Error) -> Option<Result<SocketAddr>> {
        Some(Err(error))
    }

    fn name(&self) -> Operation {
        self.step.operation()
    }

    fn cache(&self) -> &Cache {
        self.socket.client().cache()
    }
}
