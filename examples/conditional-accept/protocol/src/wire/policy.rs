//! A policy as bytes.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    Malformed, PROTOCOL_VERSION, decode_action, decode_ip, encode_action, encode_ip, exactly, prefix,
};
use crate::limits::Limits;
use crate::policy::{Action, Net, Policy, PolicyError};

/// Header of a policy: 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PolicyHeader {
    /// [`PROTOCOL_VERSION`].
    pub version: U32,
    /// The action for everyone whom no network names: 1 accept, 2 reject, 3 ask.
    pub default_action: u8,
    /// Zero.
    pub reserved: u8,
    /// Number of networks that follow: up to [`Policy::CAPACITY`].
    pub count: U16,
    /// Maximum number of clients.
    pub clients: U32,
    /// Maximum number of clients from one source; 0 for no limit.
    pub per_source: U32,
    /// Milliseconds that a connection may be silent; 0: for ever.
    pub idle_timeout: U32,
}

/// A network and its action: 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NetBytes {
    /// 4 or 6.
    pub family: u8,
    /// Number of fixed bits of the address.
    pub prefix_length: u8,
    /// 1 accept, 2 reject, 3 ask.
    pub action: u8,
    /// Zero.
    pub reserved: u8,
    /// The address in network order; an IPv4 address is the first four.
    pub address: [u8; 16],
}

/// Returns the encoded size of a policy.
pub fn policy_size(policy: &Policy) -> usize {
    size_of::<PolicyHeader>() + nets_size(policy.rules().len())
}

const fn nets_size(count: usize) -> usize {
    count * size_of::<NetBytes>()
}

/// Writes a policy to the start of `output`; the number of bytes written, or `None` if they do not fit.
pub fn encode_policy(policy: &Policy, output: &mut [u8]) -> Option<usize> {
    let size = policy_size(policy);
    let output = output.get_mut(..size)?;
    let count = U16::new(policy.rules().len() as u16);
    let Limits { clients, per_source, idle_timeout } = policy.limits();
    let header = PolicyHeader {
        version: U32::new(PROTOCOL_VERSION),
        default_action: encode_action(policy.default_action()),
        reserved: 0,
        count,
        clients: U32::new(clients),
        per_source: U32::new(per_source),
        idle_timeout: U32::new(idle_timeout),
    };
    let (first, rest) = output.split_at_mut_checked(size_of::<PolicyHeader>())?;
    header.write_to(first).ok()?;
    for (slot, (net, action)) in rest.chunks_exact_mut(size_of::<NetBytes>()).zip(policy.rules()) {
        let (address, prefix_length) = net.parts();
        let (family, address) = encode_ip(address);
        let bytes = NetBytes { family, prefix_length, action: encode_action(*action), reserved: 0, address };
        bytes.write_to(slot).ok()?;
    }
    Some(size)
}

/// Reads a policy that is all there is.
///
/// # Errors
///
/// When the bytes are no policy of this version: a wrong length, an unknown action or family, too long a
/// prefix, too many networks, a network that is named twice with different actions, or a limit out of its
/// range.
pub fn decode_policy(bytes: &[u8]) -> Result<Policy, Malformed> {
    let mut policy = Policy::new(Action::Reject);
    decode_policy_into(bytes, &mut policy)?;
    Ok(policy)
}

/// [`decode_policy`] into a policy of the caller's that names no network yet, so that there is one copy of it
/// on the stack.
///
/// # Errors
///
/// As for [`decode_policy`]; the policy holds a part of what was read then.
pub fn decode_policy_into(bytes: &[u8], policy: &mut Policy) -> Result<(), Malformed> {
    // Those of version 1 begin with something else, and may be shorter than the header.
    let (version, _) = prefix::<U32>(bytes)?;
    if version.get() != PROTOCOL_VERSION {
        return Err(Malformed::Version(version.get()));
    }
    let (header, nets) = prefix::<PolicyHeader>(bytes)?;
    let count = usize::from(header.count.get());
    if count > Policy::CAPACITY {
        return Err(Malformed::Field("count"));
    }
    if nets.len() != nets_size(count) {
        let expected = size_of::<PolicyHeader>() + nets_size(count);
        return Err(Malformed::Length { expected, found: bytes.len() });
    }
    policy.set_default(decode_action(header.default_action)?);
    let limits = Limits {
        clients: header.clients.get(),
        per_source: header.per_source.get(),
        idle_timeout: header.idle_timeout.get(),
    };
    if let Some(name) = limits.out_of_range() {
        return Err(Malformed::Field(name));
    }
    policy.set_limits(limits);
    for net in nets.chunks_exact(size_of::<NetBytes>()) {
        let bytes = exactly::<NetBytes>(net)?;
        let address = decode_ip(bytes.family, bytes.address)?;
        let net = Net::new(address, bytes.prefix_length).ok_or(Malformed::Field("prefix_length"))?;
        policy.add(net, decode_action(bytes.action)?).map_err(|error| match error {
            PolicyError::Contradiction { .. } => Malformed::Field("action"),
            PolicyError::Full => Malformed::Field("count"),
        })?;
    }
    Ok(())
}
