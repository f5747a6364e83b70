//! Encoding of the control device's requests. Integers are little-endian; structures have a fixed size and no
//! unnamed padding; reserved fields are zero when written and ignored when read.
//!
//! | control code | input | output | when it completes |
//! |---|---|---|---|
//! | [`IOCTL_STATUS`] | none | [`StatusBytes`] | at once |
//! | [`IOCTL_GET_POLICY`] | none | [`PolicyHeader`], then [`NetBytes`] for each network | at once |
//! | [`IOCTL_SET_POLICY`] | the same | none | at once |
//! | [`IOCTL_NEXT_RECORDS`] | none | [`RecordsHeader`], then [`RecordBytes`] each | with new records |
//! | [`IOCTL_NEXT_QUESTION`] | none | [`QuestionBytes`] | with a question |
//! | [`IOCTL_ANSWER`] | [`AnswerBytes`] | none | at once |
//!
//! The two that wait are *inverted calls*: a program leaves one with the driver, which completes it when it
//! has something to say. A question belongs to the handle whose call brought it; closing the handle answers
//! it with reject, and so does the time-out. The first [`IOCTL_NEXT_RECORDS`] of a handle begins with the
//! oldest record that is still kept, so that a program that comes late sees how the service was started.
//!
//! Whatever bytes come, decoding gives a value or a [`Malformed`]: the driver uses it on what programs send,
//! and programs on what a driver of another version sends.

mod policy;
mod question;
mod record;
mod status;

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use policy::{NetBytes, PolicyHeader, decode_policy, decode_policy_into, encode_policy, policy_size};
pub use question::{AnswerBytes, Question, QuestionAnswer, QuestionBytes};
pub use record::{RecordBytes, RecordsHeader, TimedRecord, decode_records};
pub use status::StatusBytes;

/// The device's name in user mode.
pub const DEVICE_PATH: &str = r"\\.\ConditionalAccept";

/// The version of everything here; [`StatusBytes`] and [`PolicyHeader`] begin with it. A driver refuses a
/// policy of another version, and a program asks for the status first, to say which versions do not go
/// together.
///
/// Version 2 has limits in policies and in the status, reasons, and records of dropped connections. A driver
/// of version 1, whose policies had no version, takes a policy of this one for one of a wrong length.
pub const PROTOCOL_VERSION: u32 = 2;

const FILE_DEVICE_NETWORK: u32 = 0x12;
const METHOD_BUFFERED: u32 = 0;
const FILE_READ_ACCESS: u32 = 1;
const FILE_WRITE_ACCESS: u32 = 2;

/// `CTL_CODE`.
const fn control_code(function: u32, access: u32) -> u32 {
    (FILE_DEVICE_NETWORK << 16) | (access << 14) | (function << 2) | METHOD_BUFFERED
}

/// Returns the status of the service.
pub const IOCTL_STATUS: u32 = control_code(0x800, FILE_READ_ACCESS);
/// Returns the policy in force.
pub const IOCTL_GET_POLICY: u32 = control_code(0x801, FILE_READ_ACCESS);
/// Replace the policy, as a whole; requests that were answered or pended before stay so.
pub const IOCTL_SET_POLICY: u32 = control_code(0x802, FILE_WRITE_ACCESS);
/// Wait for records.
pub const IOCTL_NEXT_RECORDS: u32 = control_code(0x803, FILE_READ_ACCESS);
/// Wait for a connection request that has to be answered.
pub const IOCTL_NEXT_QUESTION: u32 = control_code(0x804, FILE_READ_ACCESS | FILE_WRITE_ACCESS);
/// Answer one.
pub const IOCTL_ANSWER: u32 = control_code(0x805, FILE_WRITE_ACCESS);

/// Bytes that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// There are not as many as what they stand for takes.
    Length {
        /// Expected number of bytes; the smallest if there are several.
        expected: usize,
        /// Actual number of bytes.
        found: usize,
    },
    /// This field has a value that stands for nothing.
    Field(&'static str),
    /// They are of another version of the protocol.
    Version(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => write!(f, "{found} bytes instead of {expected}"),
            Self::Field(name) => write!(f, "field `{name}` has an invalid value"),
            Self::Version(version) => write!(f, "version {version} where {PROTOCOL_VERSION} is expected"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Reads a structure that is all there is.
fn exactly<T: FromBytes + Immutable + KnownLayout + Unaligned>(bytes: &[u8]) -> Result<&T, Malformed> {
    T::ref_from_bytes(bytes).map_err(|_| Malformed::Length { expected: size_of::<T>(), found: bytes.len() })
}

/// Reads a structure and what follows it.
fn prefix<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    bytes: &[u8],
) -> Result<(&T, &[u8]), Malformed> {
    T::ref_from_prefix(bytes).map_err(|_| Malformed::Length { expected: size_of::<T>(), found: bytes.len() })
}

/// An address with a port: 28 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AddressBytes {
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub reserved: u8,
    /// The port.
    pub port: U16,
    /// IPv6: the flow information.
    pub flow: U32,
    /// IPv6: the scope.
    pub scope: U32,
    /// The address in network order; an IPv4 address is the first four.
    pub address: [u8; 16],
}

impl From<SocketAddr> for AddressBytes {
    fn from(address: SocketAddr) -> Self {
        let (family, octets) = encode_ip(address.ip());
        let (flow, scope) = match address {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(v6) => (v6.flowinfo(), v6.scope_id()),
        };
        let port = U16::new(address.port());
        Self { family, reserved: 0, port, flow: U32::new(flow), scope: U32::new(scope), address: octets }
    }
}

impl TryFrom<&AddressBytes> for SocketAddr {
    type Error = Malformed;

    fn try_from(bytes: &AddressBytes) -> Result<Self, Malformed> {
        let port = bytes.port.get();
        match decode_ip(bytes.family, bytes.address)? {
            IpAddr::V4(v4) => Ok((v4, port).into()),
            IpAddr::V6(v6) => Ok(SocketAddrV6::new(v6, port, bytes.flow.get(), bytes.scope.get()).into()),
        }
    }
}

/// The family, and the address in network order.
fn encode_ip(address: IpAddr) -> (u8, [u8; 16]) {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            (4, octets)
        }
        IpAddr::V6(v6) => (6, v6.octets()),
    }
}

fn decode_ip(family: u8, octets: [u8; 16]) -> Result<IpAddr, Malformed> {
    let [a, b, c, d, ..] = octets;
    match family {
        4 => Ok(IpAddr::from([a, b, c, d])),
        6 => Ok(Ipv6Addr::from(octets).into()),
        _ => Err(Malformed::Field("family")),
    }
}

/// Gives the values of an enumeration their numbers, from 1 on: zero, what a forgotten field holds, means
/// nothing.
macro_rules! numbers {
    ($encode:ident, $decode:ident, $ty:ty, $field:literal: $($variant:ident = $number:literal),+ $(,)?) => {
        pub(crate) const fn $encode(value: $ty) -> u8 {
            match value {
                $(<$ty>::$variant => $number),+
            }
        }
        pub(crate) const fn $decode(number: u8) -> Result<$ty, Malformed> {
            match number {
                $($number => Ok(<$ty>::$variant),)+
                _ => Err(Malformed::Field($field)),
            }
        }
    };
}
use numbers;

use crate::limits::Reason;
use crate::policy::{Action, Answer};
use crate::record::AcceptBy;

numbers!(encode_action, decode_action, Action, "action": Accept = 1, Reject = 2, Ask = 3);
numbers!(encode_answer, decode_answer, Answer, "answer": Accept = 1, Reject = 2);
numbers!(
    encode_reason, decode_reason, Reason, "reason":
    Policy = 1, Full = 2, Source = 3, Memory = 4, Idle = 5
);
numbers!(encode_accept_by, decode_accept_by, AcceptBy, "accept_by": Irp = 1, Event = 2);

#[cfg(test)]
mod tests;
