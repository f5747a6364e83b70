//! What happened, as records that a front prints, counts or sends on.
//!
//! The gate and the echo service report everything as a [`Record`] to a [`RecordSink`]; how it reaches a person
//! is the affair of the front. With the feature `serde` a record serialises to one object, for instance
//! `{"event":"verdict","id":"1-1","action":"accept"}`.

use core::fmt;
use core::net::SocketAddr;

use crate::policy::Answer;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "event", rename_all = "lowercase"))]
pub enum Record {
    /// The service listens.
    Loaded {
        /// The address it listens on.
        local: SocketAddr,
    },
    /// A connection request arrived and was answered, or pended.
    Inspect {
        /// The request.
        id: RequestId,
        /// Who asks.
        remote: SocketAddr,
        /// The answer.
        action: Inspection,
    },
    /// A pended request was answered.
    Verdict {
        /// The request.
        id: RequestId,
        /// The answer.
        action: Answer,
    },
    /// A request was dropped before a connection came of it.
    Abort {
        /// The request.
        id: RequestId,
    },
    /// A connection was delivered.
    Accepted {
        /// The other side.
        remote: SocketAddr,
        /// How it was delivered.
        by: AcceptBy,
    },
    /// The other side ended a connection.
    Disconnect {
        /// The other side.
        remote: SocketAddr,
        /// How it was ended.
        kind: DisconnectKind,
    },
    /// A connection was closed here.
    Closed {
        /// The other side.
        remote: SocketAddr,
        /// Bytes that came from there.
        received: u64,
        /// Bytes that were sent there.
        sent: u64,
    },
    /// The service is gone, and so is all it had.
    Unloaded {
        /// Breaches of the contract that the checker saw.
        violations: u64,
        /// Objects that were never freed.
        leaks: u64,
    },
}

/// The name of a connection request under inspection: the contents of its `WSK_INSPECT_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// `Key`.
    pub key: u64,
    /// `SerialNumber`.
    pub serial: u32,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.key, self.serial)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How `WskInspectEvent` answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Inspection {
    /// `WskInspectAccept`.
    Accept,
    /// `WskInspectReject`.
    Reject,
    /// `WskInspectPend`.
    Pend,
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Pend => "pend",
        })
    }
}

/// How connections are taken from the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum AcceptBy {
    /// By `WskAccept` requests.
    Irp,
    /// By `WskAcceptEvent`.
    Event,
}

impl fmt::Display for AcceptBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Irp => "irp",
            Self::Event => "event",
        })
    }
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum DisconnectKind {
    /// It has sent all it had to send; it still receives.
    Graceful,
    /// It is gone.
    Abortive,
}

impl fmt::Display for DisconnectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graceful => "graceful",
            Self::Abortive => "abortive",
        })
    }
}

/// Where records go.
pub trait RecordSink: Send + Sync + 'static {
    /// Takes a record.
    ///
    /// # IRQL
    ///
    /// Called at up to `DISPATCH_LEVEL`, from event callbacks too: it must not wait.
    fn record(&self, record: Record);
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    /// The lines that the issue of this example promises, word for word.
    #[test]
    fn records_serialise_as_promised() {
        let id = RequestId { key: 0x1f, serial: 7 };
        let local = "127.0.0.1:40213".parse().expect("an address");
        let remote = "127.0.0.2:5555".parse().expect("an address");
        let v6 = "[::1]:9".parse().expect("an address");
        for (record, line) in [
            (Record::Loaded { local }, r#"{"event":"loaded","local":"127.0.0.1:40213"}"#),
            (
                Record::Inspect { id, remote, action: Inspection::Pend },
                r#"{"event":"inspect","id":"1f-7","remote":"127.0.0.2:5555","action":"pend"}"#,
            ),
            (
                Record::Verdict { id, action: Answer::Accept },
                r#"{"event":"verdict","id":"1f-7","action":"accept"}"#,
            ),
            (Record::Abort { id }, r#"{"event":"abort","id":"1f-7"}"#),
            (
                Record::Accepted { remote, by: AcceptBy::Irp },
                r#"{"event":"accepted","remote":"127.0.0.2:5555","by":"irp"}"#,
            ),
            (
                Record::Disconnect { remote: v6, kind: DisconnectKind::Graceful },
                r#"{"event":"disconnect","remote":"[::1]:9","kind":"graceful"}"#,
            ),
            (
                Record::Closed { remote, received: 3, sent: 3 },
                r#"{"event":"closed","remote":"127.0.0.2:5555","received":3,"sent":3}"#,
            ),
            (
                Record::Unloaded { violations: 0, leaks: 0 },
                r#"{"event":"unloaded","violations":0,"leaks":0}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&record).expect("serialised"), line);
        }
    }
}
