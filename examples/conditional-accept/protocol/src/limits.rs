//! Limits on the number of clients and on idle time.

use core::fmt;
use core::ops::RangeInclusive;

/// The limits of the service. They are part of a [`Policy`](crate::Policy), and replaced with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Limits {
    /// Maximum number of clients, connections and pended requests together; further ones are rejected. Pended
    /// requests take at most half of them, rounded up.
    pub clients: u32,
    /// Maximum number of clients from one source: an IPv4 address, or an IPv6 network of 64 bits, which is
    /// one subnet within which a host chooses its addresses freely. A subscriber often has more of these, 256
    /// in a /56 or 65,536 in a /48, and counts as that many sources; [`clients`](Self::clients) bounds them
    /// together. [`NONE`](Self::NONE) for no limit.
    pub per_source: u32,
    /// Time in milliseconds after which an idle connection is closed. It is idle while nothing arrives and no
    /// piece of what is sent back, of up to 8 KiB, is taken as a whole. [`NONE`](Self::NONE) for no limit.
    pub idle_timeout: u32,
}

impl Limits {
    /// In place of a number: there is no such limit.
    pub const NONE: u32 = 0;

    /// Default limits: 4096 clients, which take some tens of megabytes of non-paged memory; 64 from one
    /// source, enough for an office behind one address; and two minutes of idle time.
    pub const DEFAULT: Self = Self { clients: 4096, per_source: 64, idle_timeout: 120_000 };

    /// Range of [`clients`](Self::clients).
    pub const CLIENTS: RangeInclusive<u32> = 1..=65_536;
    /// Range of [`per_source`](Self::per_source), [`NONE`](Self::NONE) included.
    pub const PER_SOURCE: RangeInclusive<u32> = 0..=65_536;
    /// Range of [`idle_timeout`](Self::idle_timeout), [`NONE`](Self::NONE) included: at most a day.
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

/// Reason that a client was rejected or lost its connection.
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
    /// The connection was idle for too long.
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
