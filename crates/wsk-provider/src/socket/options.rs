//! Current option values of a socket.

use std::net::Ipv4Addr;
use std::ptr;
use std::time::Duration;

use wsk_sys::nt::PSECURITY_DESCRIPTOR;
use wsk_sys::{
    IP_MULTICAST_IF, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_TOS, IP_TTL, IPPROTO_IP, IPPROTO_IPV6,
    IPPROTO_TCP, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_IF, IPV6_MULTICAST_LOOP, IPV6_UNICAST_HOPS,
    SO_KEEPALIVE, SO_SNDBUF, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL,
};

use crate::address::Sharing;
use crate::control::table::OptionRow;
use crate::transport::{BindOptions, Tuning};

/// Current option values of a socket.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `SO_CONDITIONAL_ACCEPT`.
    pub(crate) conditional: bool,
    /// `SO_REUSEADDR` and `SO_EXCLUSIVEADDRUSE`.
    pub(crate) sharing: Sharing,
    /// `SO_KEEPALIVE`.
    pub(crate) keep_alive: bool,
    /// `SO_RCVBUF`, once set.
    pub(crate) receive_buffer: Option<usize>,
    /// `SO_BROADCAST`.
    pub(crate) broadcast: bool,
    /// `IPV6_V6ONLY`.
    pub(crate) v6_only: bool,
    /// The cached security descriptor; null for the default.
    pub(crate) descriptor: PSECURITY_DESCRIPTOR,
    /// Other options that were set: level, number and value.
    numbers: Vec<(u32, u32, u32)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            conditional: false,
            sharing: Sharing::Default,
            keep_alive: false,
            receive_buffer: None,
            broadcast: false,
            v6_only: true,
            descriptor: ptr::null_mut(),
            numbers: Vec::new(),
        }
    }
}

impl Options {
    /// Returns the options of a new socket.
    pub(crate) fn with(descriptor: PSECURITY_DESCRIPTOR) -> Self {
        Self { descriptor, ..Self::default() }
    }

    /// Returns the options of a bind; `shared` if another socket of this provider has an overlapping address.
    pub(crate) fn for_bind(&self, shared: bool) -> BindOptions {
        BindOptions {
            v6_only: self.v6_only,
            reuse: self.sharing == Sharing::Reuse,
            share: shared,
            keep_alive: self.keep_alive,
            receive_buffer: self.receive_buffer,
            broadcast: self.broadcast,
            tunings: self.tunings(),
        }
    }

    /// Returns the value of an option without a field of its own.
    pub(crate) fn number(&self, row: &OptionRow) -> u32 {
        self.value_of(row.level, row.code).unwrap_or(row.default)
    }

    /// Sets an option without a field of its own.
    pub(crate) fn set_number(&mut self, level: u32, code: u32, value: u32) {
        match self.numbers.iter_mut().find(|known| (known.0, known.1) == (level, code)) {
            Some(known) => known.2 = value,
            None => self.numbers.push((level, code, value)),
        }
    }

    /// Returns whether a flag without a field of its own is set.
    pub(crate) fn is_on(&self, level: u32, code: u32) -> bool {
        self.value_of(level, code).is_some_and(|value| value != 0)
    }

    fn value_of(&self, level: u32, code: u32) -> Option<u32> {
        self.numbers.iter().find(|known| (known.0, known.1) == (level, code)).map(|known| known.2)
    }

    /// Returns the transport's equivalent of an option; `None` if there is none.
    pub(crate) fn tuning(&self, level: u32, code: u32) -> Option<Tuning> {
        let value = self.value_of(level, code);
        Some(match (level, code, value) {
            (SOL_SOCKET, SO_KEEPALIVE, _) | (IPPROTO_TCP, TCP_KEEPIDLE | TCP_KEEPCNT | TCP_KEEPINTVL, _) => {
                let number = |code| {
                    let default = OptionRow::find(IPPROTO_TCP, code).map_or(0, |row| row.default);
                    self.value_of(IPPROTO_TCP, code).unwrap_or(default)
                };
                let seconds = |code| Duration::from_secs(number(code).into());
                Tuning::KeepAlive {
                    on: self.keep_alive,
                    idle: seconds(TCP_KEEPIDLE),
                    interval: seconds(TCP_KEEPINTVL),
                    count: number(TCP_KEEPCNT),
                }
            }
            (SOL_SOCKET, SO_SNDBUF, Some(bytes)) => Tuning::SendBuffer(bytes as usize),
            (IPPROTO_IP, IP_TOS, Some(value)) => Tuning::TypeOfService(value),
            (IPPROTO_IP, IP_TTL, Some(hops)) => Tuning::TimeToLive(hops),
            (IPPROTO_IP, IP_MULTICAST_TTL, Some(hops)) => Tuning::GroupTimeToLive(hops),
            (IPPROTO_IP, IP_MULTICAST_LOOP, Some(on)) => Tuning::GroupLoop(on != 0),
            (IPPROTO_IP, IP_MULTICAST_IF, Some(value)) => {
                Tuning::GroupInterface(Ipv4Addr::from(value.to_ne_bytes()))
            }
            (IPPROTO_IPV6, IPV6_UNICAST_HOPS, Some(hops)) => Tuning::Hops(hops),
            (IPPROTO_IPV6, IPV6_MULTICAST_HOPS, Some(hops)) => Tuning::GroupHops(hops),
            (IPPROTO_IPV6, IPV6_MULTICAST_LOOP, Some(on)) => Tuning::GroupLoopV6(on != 0),
            (IPPROTO_IPV6, IPV6_MULTICAST_IF, Some(interface)) => Tuning::GroupInterfaceV6(interface),
            _ => return None,
        })
    }

    /// Returns the options that the transport applies at a bind.
    fn tunings(&self) -> Vec<Tuning> {
        let mut tunings: Vec<Tuning> = Vec::new();
        let keep_alive = self.keep_alive.then_some((SOL_SOCKET, SO_KEEPALIVE));
        let set = self.numbers.iter().map(|&(level, code, _)| (level, code));
        for tuning in keep_alive.into_iter().chain(set).filter_map(|(level, code)| self.tuning(level, code)) {
            if !tunings.contains(&tuning) {
                tunings.push(tuning);
            }
        }
        tunings
    }

    /// Returns the options that an accepted connection inherits (OPT-12, OPT-14).
    pub(crate) fn inherited(&self) -> Self {
        Self {
            keep_alive: self.keep_alive,
            receive_buffer: self.receive_buffer,
            numbers: self.numbers.clone(),
            ..Self::default()
        }
    }
}
