//! The error of ending something that is still in use.

use core::fmt;

/// Error of [`Executor::stop`](crate::executor::Executor::stop) and [`Client::unload`](crate::Client::unload)
/// when the time was not enough. It holds what is to end, so that the driver can wait again; it must not
/// unload before that has succeeded.
///
/// Displays what is left, in one line.
#[derive(Debug)]
#[must_use = "a driver must not unload while this is left"]
pub struct StillBusy<T> {
    pub(crate) inner: T,
    pub(crate) left: [Left; 2],
}

/// A number of things of one kind that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) count: usize,
    /// Their name, in the plural.
    pub(crate) kind: &'static str,
}

impl<T> StillBusy<T> {
    /// Returns what is to end, to wait for it again.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Returns how much is left of each kind, with the name of the kind, for kinds of which anything is.
    pub fn left(&self) -> impl Iterator<Item = (usize, &'static str)> + '_ {
        self.left.iter().filter(|left| left.count > 0).map(|left| (left.count, left.kind))
    }
}

impl<T> fmt::Display for StillBusy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("still in use: ")?;
        for (index, (count, kind)) in self.left().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{kind} ({count})")?;
        }
        f.write_str("; wait again, and do not unload before")
    }
}

impl<T: fmt::Debug> core::error::Error for StillBusy<T> {}
