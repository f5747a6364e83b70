//! The status as bytes.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    AddressBytes, Malformed, PROTOCOL_VERSION, decode_accept_by, encode_accept_by, exactly, numbers,
};
use crate::limits::Limits;
use crate::status::{Counters, Phase, Status};

numbers!(encode_phase, decode_phase, Phase, "phase": Starting = 1, Listening = 2, Failed = 3, Stopping = 4);

/// A [`Status`]: 56 bytes, and 8 for each counter.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct StatusBytes {
    /// [`PROTOCOL_VERSION`].
    pub version: U32,
    /// 1 starting, 2 listening, 3 failed, 4 stopping.
    pub phase: u8,
    /// 1 by `WskAccept`, 2 by `WskAcceptEvent`.
    pub accept_by: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The `NTSTATUS` with which starting failed.
    pub error: U32,
    /// Milliseconds that an answer may take.
    pub verdict_timeout: U32,
    /// The address it listens on.
    pub local: AddressBytes,
    /// Maximum number of clients.
    pub clients: U32,
    /// Maximum number of clients from one source.
    pub per_source: U32,
    /// Milliseconds that a connection may be silent.
    pub idle_timeout: U32,
    /// The [`Counters`], in their order.
    pub counters: [U64; Counters::COUNT],
}

impl From<&Status> for StatusBytes {
    fn from(status: &Status) -> Self {
        Self {
            version: U32::new(PROTOCOL_VERSION),
            phase: encode_phase(status.phase),
            accept_by: encode_accept_by(status.accept_by),
            reserved: [0; 2],
            error: U32::new(status.error),
            verdict_timeout: U32::new(status.verdict_timeout),
            local: status.local.into(),
            clients: U32::new(status.limits.clients),
            per_source: U32::new(status.limits.per_source),
            idle_timeout: U32::new(status.limits.idle_timeout),
            counters: status.counters.values().map(U64::new),
        }
    }
}

impl Status {
    /// Reads a status that is all there is.
    ///
    /// # Errors
    ///
    /// When the bytes are no status of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = exactly::<StatusBytes>(bytes)?;
        if bytes.version.get() != PROTOCOL_VERSION {
            return Err(Malformed::Version(bytes.version.get()));
        }
        Ok(Self {
            phase: decode_phase(bytes.phase)?,
            error: bytes.error.get(),
            local: (&bytes.local).try_into()?,
            accept_by: decode_accept_by(bytes.accept_by)?,
            verdict_timeout: bytes.verdict_timeout.get(),
            limits: Limits {
                clients: bytes.clients.get(),
                per_source: bytes.per_source.get(),
                idle_timeout: bytes.idle_timeout.get(),
            },
            counters: Counters::from_values(bytes.counters.map(U64::get)),
        })
    }
}
