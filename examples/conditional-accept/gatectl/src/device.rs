//! The control device as an interface that takes requests as bytes.

#[cfg(windows)]
mod service;
#[cfg(windows)]
mod windows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Something that takes requests: the driver's device, or a test's script.
pub trait Device: Send + Sync {
    /// Sends the request `code` with `input`, and waits until it is completed. Returns how many bytes of
    /// `output` it has written.
    ///
    /// # Errors
    ///
    /// [`RequestError::Ended`] if the wait ended first, as `limit` says: the request has been taken back
    /// then, and nothing has come of it. [`RequestError::Code`] if the request failed.
    fn request(
        &self,
        code: u32,
        input: &[u8],
        output: &mut [u8],
        limit: WaitLimit,
    ) -> Result<usize, RequestError>;

    /// Ends every wait that is [`WaitLimit::Until`] something; later requests of this kind are not made any
    /// more.
    fn stop(&self);
}

/// Limit on the wait for a request's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitLimit {
    /// A fixed time, for requests that complete at once.
    Short(Duration),
    /// Until this time, if any, or until [`Device::stop`].
    Until(Option<Instant>),
}

/// A request that was not completed with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The wait ended first.
    Ended,
    /// The request failed with this Windows error code.
    Code(u32),
}

/// Opens the driver's control device.
///
/// # Errors
///
/// When there is none, or it may not be opened; off Windows always.
pub fn open() -> Result<Arc<dyn Device>, Error> {
    #[cfg(windows)]
    return Ok(Arc::new(windows::ControlDevice::open(gate_protocol::wire::DEVICE_PATH)?));
    #[cfg(not(windows))]
    Err(Error::NotWindows)
}
