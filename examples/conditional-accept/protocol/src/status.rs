//! State and counters of the service.

use core::fmt;
use core::net::SocketAddr;

use crate::limits::Limits;
use crate::record::AcceptBy;

/// The life of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Phase {
    /// The service waits for WSK, or binds: for the first time, or again because the listener has died.
    Starting,
    /// The service listens.
    Listening,
    /// The service could not start; [`Status::error`] has the reason.
    Failed,
    /// The driver is being unloaded.
    Stopping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Listening => "listening",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        })
    }
}

/// A look at the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Status {
    /// Phase of the service.
    pub phase: Phase,
    /// The `NTSTATUS` with which starting failed; 0 otherwise.
    pub error: u32,
    /// The address it listens on, or is to listen on.
    pub local: SocketAddr,
    /// Accept path.
    pub accept_by: AcceptBy,
    /// Time limit of an answer to a question, in milliseconds; then the request is rejected.
    pub verdict_timeout: u32,
    /// The limits in force.
    pub limits: Limits,
    /// Counts of events since the driver was loaded.
    pub counters: Counters,
}

/// Defines the counters: their order here is their order on the wire.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of events.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Number of counters.
            pub const COUNT: usize = Self::NAMES.len();
            /// Their names, in order.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Their values, in order.
            pub const fn values(&self) -> [u64; Self::COUNT] {
                [$(self.$name),*]
            }

            /// The counters with these values, in order.
            pub const fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }
        }
    };
}

counters! {
    /// Requests that the policy accepted.
    accepted,
    /// Requests that were rejected, for whatever reason.
    rejected,
    /// Requests that were pended.
    pended,
    /// Pended requests that were answered with accept.
    answered_accept,
    /// Pended requests that were answered with reject, by a program or because no answer came in time.
    answered_reject,
    /// Pended requests whose answer did not come in time; `answered_reject` counts them too.
    timed_out,
    /// Requests whose client gave up before a connection came of them.
    aborted,
    /// Connections that were delivered.
    connections,
    /// Connections that are open now.
    open,
    /// Disconnections in good order by the other side.
    graceful,
    /// Resets by the other side.
    abortive,
    /// Bytes that came on connections that have been closed.
    received,
    /// Bytes that were sent on connections that have been closed.
    sent,
    /// Questions that wait for an answer now.
    questions,
    /// Handles of the control device that are open now.
    handles,
    /// Records that some watcher missed because it did not fetch them in time.
    records_lost,
    /// Clients that are there now: connections and pended requests.
    clients,
    /// Sources that they come from.
    sources,
    /// Clients that were refused because there were as many, or as many pended requests, as there may be.
    refused_full,
    /// Clients that were refused because there were as many of their source as there may be.
    refused_source,
    /// Clients that were refused because there was no memory for them.
    refused_memory,
    /// Connections that were closed because they were silent for too long.
    dropped_idle,
}
