//! The options of a socket as they stand.

use std::ptr;

use wsk_sys::nt::PSECURITY_DESCRIPTOR;

use crate::address::Sharing;
use crate::transport::BindOptions;

/// The options of a socket as they stand.
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
        }
    }
}

impl Options {
    /// How to take an address, `shared` saying that another socket of this provider holds one that overlaps.
    pub(crate) fn for_bind(&self, shared: bool) -> BindOptions {
        BindOptions {
            v6_only: self.v6_only,
            reuse: self.sharing == Sharing::Reuse,
            share: shared,
            keep_alive: self.keep_alive,
            receive_buffer: self.receive_buffer,
            broadcast: self.broadcast,
        }
    }

    /// What an accepted connection inherits (OPT-12, OPT-14).
    pub(crate) fn inherited(&self) -> Self {
        Self { keep_alive: self.keep_alive, receive_buffer: self.receive_buffer, ..Self::default() }
    }
}
