//! The policy in force, which can be replaced at any moment.

use core::net::IpAddr;

use gate_protocol::policy::{Action, Policy};
use wsk::memory::{OutOfMemory, Ref};
use wsk::sync::SpinLock;

/// The policy in force, shared by the gate that asks it and whoever replaces it.
///
/// A policy never changes: whoever looks at one keeps it, while another one may take its place.
///
/// # IRQL
/// `<= DISPATCH_LEVEL` for everything.
#[derive(Clone, Debug)]
pub struct Rules(Ref<SpinLock<Ref<Policy>>>);

impl Rules {
    /// Puts a policy in force.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(policy: &Policy) -> Result<Self, OutOfMemory> {
        Ref::try_new(SpinLock::new(share(policy)?)).map(Self)
    }

    /// Puts another policy in force, as a whole. What was answered or pended before stays so.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the former policy stays in force then.
    pub fn replace(&self, policy: &Policy) -> Result<(), OutOfMemory> {
        let mut policy = share(policy)?;
        self.0.with(|current| core::mem::swap(current, &mut policy));
        Ok(())
    }

    /// The policy that is in force now.
    pub fn policy(&self) -> Ref<Policy> {
        self.0.with(|policy| policy.clone())
    }

    /// What the policy says to a request from `remote`.
    pub fn action(&self, remote: IpAddr) -> Action {
        self.policy().action(remote)
    }
}

/// A policy takes more than a kilobyte: the copy on its way into the pool is on this frame alone.
#[inline(never)]
fn share(policy: &Policy) -> Result<Ref<Policy>, OutOfMemory> {
    Ref::try_new(policy.clone())
}
