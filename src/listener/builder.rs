//! Making a listening socket: everything that must precede bind is said before bind, because afterwards there is
//! no builder any more.

use core::mem::size_of;
use core::net::SocketAddr;

use wsk_sys::nt::IRP;
use wsk_sys::{
    IPPROTO_IPV6, IPV6_V6ONLY, SO_CONDITIONAL_ACCEPT, SO_EXCLUSIVEADDRUSE, SO_KEEPALIVE, SO_REUSEADDR,
    SO_WSK_SECURITY, SOL_SOCKET, WSK_FLAG_LISTEN_SOCKET, WskSetOption,
};

use super::handlers::{AbortSlot, AcceptSlot, InspectSlot};
use super::shared::{ListenerHandlers, ListenerRef};
use super::{AbortHandler, AcceptHandler, InspectHandler, Listener};
use crate::address::SockAddr;
use crate::client::{Provider, Recipe, SecurityDescriptor};
use crate::error::{Error, Operation, Result};
use crate::operation::{Op, Outcome, Request, Submission};
use crate::socket::{ControlCode, ListenTable, control_with_irp, reserve};

/// Builder for a [`Listener`]; see [`Provider::listener`].
///
/// What has to precede bind is said here, because afterwards there is no builder any more. The parameters are the types
/// of the handlers, which need not be named.
///
/// ```
/// # use wsk::{Decision, InspectHandler, Inspection, Listener, Provider, Result};
/// /// Accepts connections of this machine only.
/// struct Local;
///
/// impl InspectHandler for Local {
///     fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
///         if request.peer_addr().ip().is_loopback() { request.accept() } else { request.reject() }
///     }
/// }
///
/// async fn listen(provider: &Provider) -> Result<Listener> {
///     provider.listener().inspect(Local).bind(([0, 0, 0, 0], 7007).into()).await
/// }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `bind`"]
pub struct ListenerBuilder<I = (), B = (), A = ()> {
    parts: Parts,
    inspect: I,
    abort: B,
    accept: A,
}

/// The part that does not depend on the handlers.
#[derive(Debug)]
struct Parts {
    provider: Provider,
    security: Option<SecurityDescriptor>,
    settings: Settings,
}

impl ListenerBuilder {
    pub(crate) fn new(provider: Provider) -> Self {
        let parts = Parts { provider, security: None, settings: Settings::default() };
        Self { parts, inspect: (), abort: (), accept: () }
    }
}

impl<A> ListenerBuilder<(), (), A> {
    /// Has every connection request inspected before its handshake (`SO_CONDITIONAL_ACCEPT`).
    ///
    /// This switches off the transport's protection against SYN floods, and its backlog, for this socket: nothing
    /// is accepted on the listener's behalf, so a slow decision can let the peer time out.
    pub fn inspect<H: InspectHandler>(self, handler: H) -> ListenerBuilder<H, (), A> {
        ListenerBuilder { parts: self.parts, inspect: handler, abort: (), accept: self.accept }
    }
}

impl<I: InspectHandler, A> ListenerBuilder<I, (), A> {
    /// Gives the listener a handler for requests that are gone before they became a connection.
    pub fn on_abort<H: AbortHandler>(self, handler: H) -> ListenerBuilder<I, H, A> {
        ListenerBuilder { parts: self.parts, inspect: self.inspect, abort: handler, accept: self.accept }
    }
}

impl<I, B> ListenerBuilder<I, B, ()> {
    /// Gives the listener a handler for connections; its event is off until [`Listener::enable`].
    pub fn on_accept<H: AcceptHandler>(self, handler: H) -> ListenerBuilder<I, B, H> {
        ListenerBuilder { parts: self.parts, inspect: self.inspect, abort: self.abort, accept: handler }
    }
}

impl<I: InspectSlot, B: AbortSlot, A: AcceptSlot> ListenerBuilder<I, B, A> {
    /// Who may share the address (`SO_WSK_SECURITY`). Without it, nobody.
    pub fn security(mut self, descriptor: SecurityDescriptor) -> Self {
        let address = descriptor.as_raw() as usize;
        self.parts.settings.0[Settings::SECURITY] =
            Some(Setting::pointer(SOL_SOCKET, SO_WSK_SECURITY, address));
        // It is kept as long as the socket.
        self.parts.security = Some(descriptor);
        self
    }

    /// Lets the socket bind an address that others share (`SO_REUSEADDR`).
    pub fn reuse_address(mut self) -> Self {
        self.parts.settings.0[Settings::SHARING] = Some(Setting::number(SOL_SOCKET, SO_REUSEADDR, 1));
        self
    }

    /// Keeps everybody else from binding the address (`SO_EXCLUSIVEADDRUSE`).
    pub fn exclusive_address(mut self) -> Self {
        self.parts.settings.0[Settings::SHARING] = Some(Setting::number(SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1));
        self
    }

    /// Has idle accepted connections probed (`SO_KEEPALIVE`, which they inherit).
    pub fn keep_alive(mut self) -> Self {
        self.parts.settings.0[Settings::KEEP_ALIVE] = Some(Setting::number(SOL_SOCKET, SO_KEEPALIVE, 1));
        self
    }

    /// Whether an IPv6 socket leaves IPv4 alone (`IPV6_V6ONLY`, on by default). When off, WSK gives IPv4 peers
    /// IPv4-mapped addresses, which this crate hands out as the IPv4 ones. Ignored for an IPv4 address.
    pub fn v6_only(mut self, only: bool) -> Self {
        self.parts.settings.0[Settings::V6_ONLY] =
            Some(Setting::number(IPPROTO_IPV6, IPV6_V6ONLY, only.into()));
        self
    }

    /// Makes the socket, sets the options, and binds it, which makes it listen (`WskSocket`, `WskControlSocket`,
    /// `WskBind`, `WskGetLocalAddress`). Port 0 has one assigned.
    ///
    /// # Cancel safety
    /// May be dropped at any time; a socket that was made is closed.
    ///
    /// # Errors
    /// `STATUS_ADDRESS_ALREADY_EXISTS` when the address is taken, `STATUS_ACCESS_DENIED` when it may not be shared,
    /// `STATUS_INVALID_ADDRESS_COMPONENT` when it is not local, `STATUS_NOT_SUPPORTED` when the transport cannot do
    /// conditional accept, `STATUS_INSUFFICIENT_RESOURCES`.
    pub async fn bind(self, local: SocketAddr) -> Result<Listener> {
        let Self { parts: Parts { provider, security, mut settings }, inspect, abort, accept } = self;
        if I::SET {
            settings.0[Settings::CONDITIONAL] = Some(Setting::number(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1));
        }
        let handlers = ListenerHandlers { inspect, abort, accept };
        let core = ListenerRef::try_new(provider.client(), handlers, security)
            .map_err(|_| Error::out_of_memory(Operation::Socket))?;
        make(provider, core, settings, local).await
    }
}

/// Makes the socket of a listener. The same for all handlers, so that there is one copy of it.
async fn make(
    provider: Provider,
    core: ListenerRef,
    mut settings: Settings,
    local: SocketAddr,
) -> Result<Listener> {
    if !local.is_ipv6() {
        settings.0[Settings::V6_ONLY] = None;
    }
    reserve(core.socket()).map_err(|_| Error::out_of_memory(Operation::Socket))?;
    let recipe = Recipe { flags: WSK_FLAG_LISTEN_SOCKET, ipv6: local.is_ipv6() };
    provider.create(core.socket(), recipe).await?;
    // From here on, leaving early drops the listener, which closes the socket.
    let mut listener = Listener { core, local };

    // One wait for all of them: each wait in the sources is code and state of its own.
    let options = core::iter::from_fn(|| settings.next()).map(Step::Set);
    for step in options.chain([Step::Bind, Step::LocalAddress]) {
        listener.local = StepRequest::run(&listener.core, step, local).await?;
    }
    Ok(listener)
}

/// The options that are to be set before bind, each in its place in their order.
#[derive(Clone, Copy, Debug, Default)]
struct Settings([Option<Setting>; Self::COUNT]);

impl Settings {
    const CONDITIONAL: usize = 0;
    const SECURITY: usize = 1;
    const SHARING: usize = 2;
    const KEEP_ALIVE: usize = 3;
    const V6_ONLY: usize = 4;
    const COUNT: usize = 5;

    /// Takes the first that is still there.
    fn next(&mut self) -> Option<Setting> {
        self.0.iter_mut().find_map(Option::take)
    }
}

/// An option and its value.
#[derive(Clone, Copy, Debug)]
struct Setting {
    level: u32,
    code: u32,
    value: usize,
    /// How many bytes of the value WSK reads: the first ones, which hold a small number's, as the target is little
    /// endian.
    length: usize,
}

impl Setting {
    fn number(level: u32, code: u32, value: u32) -> Self {
        Self { level, code, value: value as usize, length: size_of::<u32>() }
    }

    fn pointer(level: u32, code: u32, value: usize) -> Self {
        Self { level, code, value, length: size_of::<usize>() }
    }

    fn option(self) -> ControlCode {
        ControlCode {
            operation: Operation::SetOption,
            request: WskSetOption,
            code: self.code,
            level: self.level,
            input: self.length,
            output: 0,
        }
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "a number in a word is read from its first bytes");

/// What is done with the socket that was made, with an IRP each (rule OPT-02).
#[derive(Clone, Copy, Debug)]
enum Step {
    Set(Setting),
    Bind,
    LocalAddress,
}

impl Step {
    fn operation(self) -> Operation {
        match self {
            Self::Set(_) => Operation::SetOption,
            Self::Bind => Operation::Bind,
            Self::LocalAddress => Operation::LocalAddress,
        }
    }
}

/// What WSK reads or writes in a step; it stays in the operation block until completion (rules LIFE-06, LIFE-07).
///
/// The one option whose value is an address, `SO_WSK_SECURITY`, names a descriptor that WSK itself keeps for its users on all
/// threads, until the listener, which has a reference on it, gives it back after its operations.
struct StepRequest {
    /// The value of an option.
    value: usize,
    address: SockAddr,
    listener: ListenerRef,
}

impl Request for StepRequest {
    fn close_if_dead(&self, outcome: Outcome) {
        self.listener.close_if_dead(outcome);
    }
}

impl StepRequest {
    /// Does one step; gives the address that was read, or else `local`, which is bound to.
    async fn run(listener: &ListenerRef, step: Step, local: SocketAddr) -> Result<SocketAddr> {
        let value = if let Step::Set(setting) = step { setting.value } else { 0 };
        let address =
            if let Step::LocalAddress = step { SockAddr::unspecified() } else { SockAddr::from(local) };
        let request = Self { value, address, listener: listener.clone() };
        let op = Op::try_new(listener.client().cache(), request)
            .map_err(|_| Error::out_of_memory(step.operation()))?;
        let call = |irp, request| {
            // SAFETY: `run` passes the request, and an IRP that was prepared for it.
            unsafe { Self::submit_irp(listener, step, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and the request's memory alone.
        let run = unsafe { op.run(call) };
        let (outcome, request) = run.await;
        outcome.result(step.operation())?;
        request.address.require(step.operation())
    }

    /// Calls `WskControlSocket`, `WskBind` or `WskGetLocalAddress`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has completed.
    unsafe fn submit_irp(
        listener: &ListenerRef,
        step: Step,
        irp: *mut IRP,
        request: *mut Self,
    ) -> Submission {
        // SAFETY: the request is live; only the address of a field is computed.
        let address = unsafe { &raw mut (*request).address }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let value = unsafe { &raw mut (*request).value }.cast();
        let call = |handle, table: &ListenTable| match step {
            Step::Set(setting) => {
                let (what, output) = (setting.option(), core::ptr::null_mut());
                // SAFETY: rundown protection is held; the value lives in the request, and is as long as the setting says.
                unsafe { control_with_irp(handle, table.control_socket(), what, value, output, irp) }
            }
            Step::Bind => {
                let bind = table.bind()?;
                // SAFETY: the address is of the socket's family (rule BIND-12) and lives in the request.
                Some(unsafe { bind(handle, address, 0, irp) })
            }
            Step::LocalAddress => {
                let get = table.local_address()?;
                // SAFETY: 128 bytes are enough for every family (rule LIFE-07), and they live in the request.
                Some(unsafe { get(handle, address, irp) })
            }
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { listener.submit(irp, call) }
    }
}
