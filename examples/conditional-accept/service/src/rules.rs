//! The policy in force, which can be replaced at any time, and the clients that count against its limits.

use core::net::IpAddr;
use core::time::Duration;

use gate_protocol::policy::{Action, Policy};
use gate_protocol::{Limits, Reason};
use wsk::memory::{Cache, OutOfMemory, Ref};
use wsk::sync::SpinLock;

use crate::clients::{ClientKind, ClientPermit, ClientTable};

/// The policy in force, shared by the gate and the control device.
///
/// A policy is immutable: a reader keeps the one it has read while another may take its place.
///
/// # IRQL
/// `<= DISPATCH_LEVEL` for everything.
#[derive(Clone, Debug)]
pub struct Rules {
    policy: Ref<SpinLock<Ref<Policy>>>,
    clients: ClientTable,
}

impl Rules {
    /// Puts a policy in force, with no clients there.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(policy: &Policy) -> Result<Self, OutOfMemory> {
        Ok(Self { policy: Ref::try_new(SpinLock::new(share(policy)?))?, clients: ClientTable::try_new()? })
    }

    /// Puts another policy in force, as a whole. What was answered or pended before stays so; the limit on
    /// silence counts for connections that are there, too.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the former policy stays in force then.
    pub fn replace(&self, policy: &Policy) -> Result<(), OutOfMemory> {
        let mut policy = share(policy)?;
        self.policy.with(|current| core::mem::swap(current, &mut policy));
        Ok(())
    }

    /// The policy that is in force now.
    pub fn policy(&self) -> Ref<Policy> {
        self.policy.with(|policy| policy.clone())
    }

    /// Returns the policy's action for a request from `remote`.
    pub fn action(&self, remote: IpAddr) -> Action {
        self.policy().action(remote)
    }

    /// Returns the number of clients and the number of their sources.
    pub fn clients(&self) -> (u32, u32) {
        self.clients.count()
    }

    /// Returns the action for a request from `remote`, or the reason to reject it: the policy or a limit.
    pub(crate) fn look(&self, remote: IpAddr) -> Result<Action, Reason> {
        let policy = self.policy();
        match policy.action(remote) {
            Action::Reject => Err(Reason::Policy),
            Action::Ask => {
                self.clients.check(policy.limits(), remote, ClientKind::Pended).map(|()| Action::Ask)
            }
            Action::Accept => {
                self.clients.check(policy.limits(), remote, ClientKind::Connected).map(|()| Action::Accept)
            }
        }
    }

    /// Acquires a permit for a client from `remote`.
    pub(crate) fn admit(
        &self,
        remote: IpAddr,
        kind: ClientKind,
        cache: &Cache,
    ) -> Result<ClientPermit, Reason> {
        self.clients.acquire(self.policy().limits(), remote, kind, cache)
    }

    /// Returns the idle time limit of a connection; `None` for no limit.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        let limit = self.policy().limits().idle_timeout;
        (limit != Limits::NONE).then(|| Duration::from_millis(limit.into()))
    }
}

/// A policy takes more than a kilobyte: the copy on its way into the pool is on this frame alone.
#[inline(never)]
fn share(policy: &Policy) -> Result<Ref<Policy>, OutOfMemory> {
    Ref::try_new(policy.clone())
}
