//! One connection request under inspection, inside its callback.

use core::fmt;
use core::marker::PhantomData;
use core::net::SocketAddr;

use wsk_sys::WSK_INSPECT_ID;

use super::pending::Record;
use super::shared::ListenerRef;
use super::{Endpoints, InspectToken};
use crate::address;
use crate::error::{Error, Operation};
use crate::memory::Ref;

/// Names a connection request from its inspection until it is delivered, rejected or aborted; the value may
/// be used again for a later request (`WSK_INSPECT_ID`).
///
/// Compared by its two fields, never by bytes (rule INSP-27). Displays as `key-serial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InspectId {
    key: usize,
    serial: u32,
}

impl InspectId {
    pub(crate) fn from_raw(id: &WSK_INSPECT_ID) -> Self {
        Self { key: id.Key, serial: id.SerialNumber }
    }

    pub(super) fn to_raw(self) -> WSK_INSPECT_ID {
        WSK_INSPECT_ID { Key: self.key, SerialNumber: self.serial }
    }

    /// The `Key` field.
    pub fn key(self) -> usize {
        self.key
    }

    /// The `SerialNumber` field.
    pub fn serial(self) -> u32 {
        self.serial
    }
}

impl fmt::Display for InspectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.key, self.serial)
    }
}

/// A connection request that waits for an answer. It is used up by answering, and the answer goes back to WSK
/// as the result of the handler, so that a request has exactly one answer (rule INSP-10).
pub struct Inspection<'a> {
    pub(super) listener: &'a ListenerRef,
    pub(super) id: InspectId,
    pub(super) endpoints: Endpoints,
    pub(super) _callback: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl<'a> Inspection<'a> {
    /// The request's ID.
    pub fn id(&self) -> InspectId {
        self.id
    }

    /// The address the request came to; an IPv4 one also where the socket is an IPv6 one
    /// ([`address::canonical`]).
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.endpoints.local)
    }

    /// As [`Self::local_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_local_addr(&self) -> SocketAddr {
        self.endpoints.local
    }

    /// The address the request came from; an IPv4 one also where the socket is an IPv6 one
    /// ([`address::canonical`]).
    pub fn peer_addr(&self) -> SocketAddr {
        address::canonical(self.endpoints.peer)
    }

    /// As [`Self::peer_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_peer_addr(&self) -> SocketAddr {
        self.endpoints.peer
    }

    /// Lets the connection be established (`WskInspectAccept`).
    pub fn accept(self) -> Decision<'a> {
        Decision { answer: Answer::Accept, _callback: PhantomData }
    }

    /// Drops the request (`WskInspectReject`).
    pub fn reject(self) -> Decision<'a> {
        Decision { answer: Answer::Reject, _callback: PhantomData }
    }

    /// Leaves the request undecided (`WskInspectPend`). The token decides it, from any thread, at any time;
    /// it owns all that needs, its IRP included. A token that is dropped rejects.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; the inspection comes back, to be accepted or rejected at once.
    // A frame of its own is smaller code than a part of the caller's.
    #[inline(never)]
    pub fn pend(self) -> core::result::Result<(Decision<'a>, InspectToken), (Error, Self)> {
        match Record::try_new(self.listener, self.id, self.endpoints) {
            Ok(record) => {
                // Listed before the callback returns: an abort may run the moment it has (rule INSP-26).
                self.listener.pending().insert(&record);
                let token = InspectToken::new(record.clone());
                Ok((Decision { answer: Answer::Pend(record), _callback: PhantomData }, token))
            }
            Err(_) => Err((Error::out_of_memory(Operation::InspectComplete), self)),
        }
    }
}

impl fmt::Debug for Inspection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection")
            .field("id", &self.id)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// The answer to one [`Inspection`]; it can only be had by answering.
#[must_use = "the handler returns it"]
pub struct Decision<'a> {
    pub(super) answer: Answer,
    /// Ties the answer to its own callback: the lifetime is invariant and every call has its own.
    _callback: PhantomData<fn(&'a ()) -> &'a ()>,
}

pub(super) enum Answer {
    Accept,
    Reject,
    Pend(Ref<Record>),
}

impl fmt::Debug for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.answer {
            Answer::Accept => "Accept",
            Answer::Reject => "Reject",
            Answer::Pend(_) => "Pend",
        })
    }
}
