//! Reports of a network.

use core::fmt;

use crate::error::Error;

/// Stage of a [`Network`](crate::Network).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Registering with WSK.
    Register,
    /// Waiting for WSK, and capturing it.
    Capture,
    /// Starting the executor and the driver's own function.
    Start,
    /// The driver's own function.
    Serve,
    /// Waiting for tasks to end.
    StopTasks,
    /// Waiting for sockets to close, and for WSK.
    Unload,
}

/// Report of a [`Network`](crate::Network): a failure, or what its end waits for. Displays as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub(super) stage: Stage,
    pub(super) error: Option<Error>,
    pub(super) left: [(usize, &'static str); 2],
}

impl Report {
    /// Returns the stage that it is about.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns the failure, if it is one; otherwise the end of the network waits.
    pub fn error(&self) -> Option<Error> {
        self.error
    }

    /// Returns what the end of the network waits for: how much of each kind, with the name of the kind.
    pub fn left(&self) -> impl Iterator<Item = (usize, &'static str)> + '_ {
        self.left.iter().copied().filter(|(count, _)| *count > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.error {
            return write!(f, "{error}; the network ends");
        }
        f.write_str("the network is stopping; it waits for: ")?;
        for (index, (count, kind)) in self.left().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{kind} ({count})")?;
        }
        Ok(())
    }
}
