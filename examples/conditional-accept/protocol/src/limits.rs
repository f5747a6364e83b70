//! How many clients there may be, and how long one may stay silent.

use core::fmt;
use core::ops::RangeInclusive;

/// The limits of the service. They are part of a [`Policy`](crate::Policy), and replaced with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Limits {
    /// How many clients there may be, connections and pended requests together; who comes then is refused. Pended requests
    /// are half of them at most, rounded up.
    pub clients: u32,
    /// How many of them may come from one source: an IPv4 address, or an IPv6 network of 64 bits: one subnet, within which a host
    /// chooses its addresses freely. A subscriber often has more of these, 256 in a /56 or 65,536 in a /48, and counts as as many
    /// sources; [`clients`](Self::clients) bounds what they take. [`NONE`](Self::NONE) for as many as there may be at all.
    pub per_source: u32,
    /// How many milliseconds a connection may be silent: nothing comes, and no piece of what is to be sent, of up to 8 KiB, is taken
    /// as a whole. Then it is closed. [`NONE`](Self::NONE) for ever.
    pub idle_timeout: u32,
}

impl Limits {
    /// In place of a number: there is no such limit.
    pub const NONE: u32 = 0;

    /// What a server has without being told otherwise: 4096 clients, which take some tens of megabytes of non-paged memory; 64
    /// of one source, which serves an office behind one address; and two minutes of silence.
    pub const DEFAULT: Self = Self { clients: 4096, per_source: 64, idle_timeout: 120_000 };

    /// What [`clients`](Self::clients) can be.
    pub const CLIENTS: RangeInclusive<u32> = 1..=65_536;
    /// What [`per_source`](Self::per_source) can be, [`NONE`](Self::NONE) included.
    pub const PER_SOURCE: RangeInclusive<u32> = 0..=65_536;
    /// What [`idle_timeout`](Self::idle_timeout) can be, [`NONE`](Self::NONE) included: a day at most.
    pub const IDLE_TIMEOUT: RangeInclusive<u32> = 0..=86_400_000;

    /// The name of the first limit that is out of its range.
    pub fn out_of_range(&self) -> Option<&'static str> {
        let Self { clients, per_source, idle_timeout } = self;
        [
            ("clients", Self::CLIENTS.contains(clients)),
            ("per_source", Self::PER_SOURCE.contains(per_source)),
            ("idle_timeout", Self::IDLE_TIMEOUT.contains(idle_timeout)),
        ]
        .into_iter()
        .find_map(|(name, good)| (!good).then_some(name))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a client is refused, or lost its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Reason {
    /// The policy rejects where it comes from.
    Policy,
    /// There are as many clients, or pended requests, as there may be.
    Full,
    /// There are as many of its source as there may be.
    Source,
    /// There is no memory for it.
    Memory,
    /// It was silent for too long.
    Idle,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Full => "full",
            Self::Source => "source",
            Self::Memory => "memory",
            Self::Idle => "idle",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_range() {
        assert_eq!(Limits::DEFAULT.out_of_range(), None);
        let none = Limits { per_source: Limits::NONE, idle_timeout: Limits::NONE, ..Limits::DEFAULT };
        assert_eq!(none.out_of_range(), None);
        assert_eq!(Limits { clients: 0, ..none }.out_of_range(), Some("clients"));
        assert_eq!(Limits { clients: 65_537, ..none }.out_of_range(), Some("clients"));
        assert_eq!(Limits { per_source: 65_537, ..none }.out_of_range(), Some("per_source"));
        assert_eq!(Limits { idle_timeout: 86_400_001, ..none }.out_of_range(), Some("idle_timeout"));
    }
}
