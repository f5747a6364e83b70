//! Records of events, for a front end to print, count or forward.
//!
//! The gate and the echo service report everything as a [`Record`] to a [`RecordSink`]; how it reaches a
//! person is the affair of the front. With the feature `serde` a record serialises to one object, for
//! instance `{"event":"verdict","id":"1-1","action":"accept"}`.

use core::fmt;
use core::net::SocketAddr;

use core::str::FromStr;

use crate::limits::Reason;
use crate::policy::{Answer, UnknownWord};

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
        /// Address of the client.
        remote: SocketAddr,
        /// The answer.
        action: Inspection,
        /// Reason, if it was rejected.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        reason: Option<Reason>,
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
        /// Accept path.
        by: AcceptBy,
    },
    /// The other side ended a connection.
    Disconnect {
        /// The other side.
        remote: SocketAddr,
        /// Kind of disconnect.
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
    /// A connection was ended from here for this reason, or could not be taken, or there was no asker
    /// about a pended request. If it had been recorded as [`Accepted`](Self::Accepted), there is a
    /// [`Closed`](Self::Closed), too: after this, or before it if there was no memory for its session.
    Dropped {
        /// The other side.
        remote: SocketAddr,
        /// Reason.
        reason: Reason,
    },
    /// The policy was replaced.
    Policy {
        /// Number of networks in the new policy.
        networks: u32,
    },
    /// A value of the configuration cannot be used; the one that is built in, or none of a list, takes its
    /// place.
    #[cfg_attr(feature = "serde", serde(rename = "bad-setting"))]
    BadSetting {
        /// The setting.
        setting: Setting,
        /// The defect.
        problem: Problem,
        /// Entry of a list, counted from 1; 0 for the value as a whole.
        entry: u32,
    },
    /// The service could not be started.
    Failed {
        /// The `NTSTATUS` that says why.
        status: u32,
    },
    /// WSK has abandoned the listener. [`Loaded`](Self::Loaded) follows when the service listens again.
    Died {
        /// The address it listened on.
        local: SocketAddr,
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

/// Answer of `WskInspectEvent`.
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

/// Accept path of a listener.
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

/// Kind of a peer's disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum DisconnectKind {
    /// The peer has sent all of its data, and still receives.
    Graceful,
    /// The peer has reset the connection.
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

impl FromStr for AcceptBy {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "irp" => Ok(Self::Irp),
            "event" => Ok(Self::Event),
            _ => Err(UnknownWord("irp or event")),
        }
    }
}

/// A value of the configuration, by the name it has among the driver's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Setting {
    /// The address to listen on.
    Listen,
    /// Networks to accept.
    Accept,
    /// Networks to reject.
    Reject,
    /// Networks to ask about.
    Ask,
    /// The action for everyone else.
    Default,
    /// Time limit of an answer, in milliseconds.
    VerdictTimeout,
    /// Accept path.
    AcceptBy,
    /// Maximum number of clients.
    MaxClients,
    /// Maximum number of clients from one source.
    MaxPerSource,
    /// Idle time limit of a connection, in milliseconds.
    IdleTimeout,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Listen,
        Self::Accept,
        Self::Reject,
        Self::Ask,
        Self::Default,
        Self::VerdictTimeout,
        Self::AcceptBy,
        Self::MaxClients,
        Self::MaxPerSource,
        Self::IdleTimeout,
    ];

    /// The name of the value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listen => "Listen",
            Self::Accept => "Accept",
            Self::Reject => "Reject",
            Self::Ask => "Ask",
            Self::Default => "Default",
            Self::VerdictTimeout => "VerdictTimeout",
            Self::AcceptBy => "AcceptBy",
            Self::MaxClients => "MaxClients",
            Self::MaxPerSource => "MaxPerSource",
            Self::IdleTimeout => "IdleTimeout",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Defect of a value in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Problem {
    /// The value has another type than the setting.
    WrongType,
    /// The value is too long, or a list has too many entries.
    TooLong,
    /// The value is not text.
    NotText,
    /// The value is not an address with a port.
    NotAnAddress,
    /// The value is neither an address nor a network.
    NotANetwork,
    /// The value is not one of the known words.
    UnknownWord,
    /// The value is out of range.
    OutOfRange,
    /// The network has another action already.
    Contradiction,
    /// The value could not be read.
    Unreadable,
}

impl Problem {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::WrongType,
        Self::TooLong,
        Self::NotText,
        Self::NotAnAddress,
        Self::NotANetwork,
        Self::UnknownWord,
        Self::OutOfRange,
        Self::Contradiction,
        Self::Unreadable,
    ];
}

impl Problem {
    /// Returns the defect, as the end of a sentence that begins with the setting's name.
    pub fn text(self) -> &'static str {
        match self {
            Self::WrongType => "has the wrong type",
            Self::TooLong => "is too long",
            Self::NotText => "is not ASCII text",
            Self::NotAnAddress => "is not an address with a port, such as 0.0.0.0:7007 or [::]:7007",
            Self::NotANetwork => "is not an address or a network, such as 10.0.0.0/8",
            Self::UnknownWord => "is an unknown word",
            Self::OutOfRange => "is out of range",
            Self::Contradiction => "has another action already",
            Self::Unreadable => "cannot be read",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Destination of records.
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
                Record::Inspect { id, remote, action: Inspection::Pend, reason: None },
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
                Record::Inspect { id, remote, action: Inspection::Reject, reason: Some(Reason::Source) },
                concat!(
                    r#"{"event":"inspect","id":"1f-7","remote":"127.0.0.2:5555","#,
                    r#""action":"reject","reason":"source"}"#
                ),
            ),
            (
                Record::Dropped { remote, reason: Reason::Idle },
                r#"{"event":"dropped","remote":"127.0.0.2:5555","reason":"idle"}"#,
            ),
            (Record::Died { local }, r#"{"event":"died","local":"127.0.0.1:40213"}"#),
            (
                Record::Unloaded { violations: 0, leaks: 0 },
                r#"{"event":"unloaded","violations":0,"leaks":0}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&record).expect("serialised"), line);
        }
    }
}
