//! Control messages of a datagram: those that its socket has requested and the host provides.

use std::net::IpAddr;

use wsk_sys::{
    IP_ECN, IP_PKTINFO, IP_RECVTOS, IP_TOS, IPPROTO_IP, IPPROTO_IPV6, IPV6_ECN, IPV6_PKTINFO,
    write_control_message,
};

use crate::socket::Options;
use crate::transport::Received;

/// Room for all messages that a datagram can have.
const ROOM: usize = 128;
/// Congestion notification bits of a type of service.
const ECN: u8 = 0b11;

/// Control messages that a socket has requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    packet: bool,
    packet_v6: bool,
    service: bool,
    ecn: bool,
    ecn_v6: bool,
}

impl Wanted {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            packet: options.is_on(IPPROTO_IP, IP_PKTINFO),
            packet_v6: options.is_on(IPPROTO_IPV6, IPV6_PKTINFO),
            service: options.is_on(IPPROTO_IP, IP_RECVTOS),
            ecn: options.is_on(IPPROTO_IP, IP_ECN),
            ecn_v6: options.is_on(IPPROTO_IPV6, IPV6_ECN),
        }
    }
}

/// The control messages of one datagram, in memory that is aligned for them.
#[derive(Debug, Default)]
pub(super) struct ControlInfo {
    words: Box<[u64]>,
    length: usize,
}

impl ControlInfo {
    /// Creates the requested messages from the host's data about a datagram.
    pub(super) fn new(wanted: Wanted, received: &Received) -> Self {
        if wanted == Wanted::default() {
            return Self::default();
        }
        let (mut bytes, mut length) = ([0_u8; ROOM], 0);
        let mut add = |level: u32, kind: u32, data: &[u8]| {
            // There is room for all of them.
            let taken = write_control_message(&mut bytes[length..], level as i32, kind as i32, data);
            length += taken.unwrap_or(0);
        };
        // An IPv4 datagram on a dual-stack socket has IPv4 messages.
        let v4 = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        };
        let interface = received.interface.to_ne_bytes();
        match received.to.map(|to| (to, v4(to))) {
            Some((_, Some(ip))) if wanted.packet => {
                add(IPPROTO_IP, IP_PKTINFO, &[ip.octets(), interface].concat());
            }
            Some((IpAddr::V6(ip), _)) if wanted.packet_v6 => {
                add(IPPROTO_IPV6, IPV6_PKTINFO, &[&ip.octets()[..], &interface].concat());
            }
            _ => {}
        }
        if let Some(service) = received.service {
            let as_v4 = v4(received.from.ip()).is_some();
            let ecn = u32::from(service & ECN).to_ne_bytes();
            if as_v4 && wanted.service {
                add(IPPROTO_IP, IP_TOS, &u32::from(service).to_ne_bytes());
            }
            if as_v4 && wanted.ecn {
                add(IPPROTO_IP, IP_ECN, &ecn);
            }
            if !as_v4 && wanted.ecn_v6 {
                add(IPPROTO_IPV6, IPV6_ECN, &ecn);
            }
        }
        let chunks = bytes[..length].chunks(size_of::<u64>());
        let words = chunks.map(|chunk| {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self { words: words.collect(), length }
    }

    /// The bytes of all messages.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Returns their address; null if there are none.
    pub(super) fn as_ptr(&mut self) -> *mut u8 {
        if self.length == 0 { std::ptr::null_mut() } else { self.words.as_mut_ptr().cast() }
    }

    /// A copy of them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.truncate(self.length);
        bytes
    }
}
