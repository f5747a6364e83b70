//! The control device by overlapped I/O. Each request has its own event, so a wait for it can end at a time
//! limit, or with the event that [`Device::stop`] sets.
//!
//! ```text
//!   DeviceIoControl ──completed──────────────────────────────────────► result
//!          └─pending──► wait for (request, stop, time) ──request─────► result
//!                          └─stop, time──► CancelIoEx ──► wait again ─► result, or taken back
//!                          └─every second: is the driver to be unloaded? then taken back, too
//! ```
//!
//! What the system may still write to (`OVERLAPPED` and output buffer) is on the heap and owned by the
//! request; in the one case that a driver keeps a request in spite of its cancellation, it is never freed.

use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_GEN_FAILURE, ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, ERROR_SERVICE_NOT_ACTIVE, GetLastError,
    HANDLE, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, FILE_SHARE_READ, FILE_SHARE_WRITE};
use windows_sys::Win32::System::IO::{CancelIoEx, DeviceIoControl, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, SetEvent, WaitForMultipleObjects};

use super::service::Service;
use super::{Device, RequestError, WaitLimit};
use crate::error::Error;

/// Interval of checks whether the driver is being unloaded.
const LOOK: Duration = Duration::from_secs(1);

/// Time that the driver may take to complete a cancelled request.
const CANCEL: Duration = Duration::from_secs(5);

/// The open device.
#[derive(Debug)]
pub(super) struct ControlDevice {
    file: File,
    stop: Event,
    service: Option<Service>,
}

impl ControlDevice {
    pub(super) fn open(path: &str) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
            .custom_flags(FILE_FLAG_OVERLAPPED)
            .open(path)
            .map_err(|error| {
                Error::opening(error.raw_os_error().map_or(ERROR_GEN_FAILURE, |code| code as u32))
            })?;
        let stop = Event::new().map_err(|code| Error::Windows { doing: "cannot create an event", code })?;
        Ok(Self { file, stop, service: Service::open() })
    }
}

impl Device for ControlDevice {
    fn request(
        &self,
        code: u32,
        input: &[u8],
        output: &mut [u8],
        limit: WaitLimit,
    ) -> Result<usize, RequestError> {
        // Where requests are completed at once, no wait would ever see it.
        if matches!(limit, WaitLimit::Until(_)) && self.stop.is_set() {
            return Err(RequestError::Ended);
        }
        let request = Request::new(&self.file, output.len()).map_err(RequestError::Code)?;
        match request.start(code, input) {
            Err(ERROR_IO_PENDING) => {
                if let Err(error) = self.wait(&request.parts.event, limit) {
                    request.cancel();
                    if wait(&request.parts.event, None, Instant::now().checked_add(CANCEL))
                        != WaitOutcome::Done
                    {
                        request.abandon();
                        return Err(error);
                    }
                    if request.result() == Err(ERROR_OPERATION_ABORTED) {
                        return Err(error);
                    }
                    // It was completed just before it was cancelled; what came must not be lost.
                }
            }
            started => started.map_err(RequestError::Code)?,
        }
        let written = request.result().map_err(RequestError::Code)?.min(output.len());
        request.read(&mut output[..written]);
        Ok(written)
    }

    fn stop(&self) {
        self.stop.set();
    }
}

impl ControlDevice {
    /// Waits for a request's end, or for that of the patience.
    fn wait(&self, done: &Event, limit: WaitLimit) -> Result<(), RequestError> {
        let (stop, end) = match limit {
            WaitLimit::Short(limit) => (None, Instant::now().checked_add(limit)),
            WaitLimit::Until(end) => (Some(&self.stop), end),
        };
        loop {
            let look = Instant::now().checked_add(LOOK);
            match wait(done, stop, end.into_iter().chain(look).min()) {
                WaitOutcome::Done => return Ok(()),
                WaitOutcome::Stopped => return Err(RequestError::Ended),
                WaitOutcome::Time if end.is_some_and(|end| end <= Instant::now()) => {
                    return Err(RequestError::Ended);
                }
                WaitOutcome::Time if self.service.as_ref().is_some_and(Service::is_stopping) => {
                    return Err(RequestError::Code(ERROR_SERVICE_NOT_ACTIVE));
                }
                WaitOutcome::Time => {}
            }
        }
    }
}

/// An event that stays set once it is.
#[derive(Debug)]
struct Event(OwnedHandle);

impl Event {
    fn new() -> Result<Self, u32> {
        // SAFETY: no name and no security attributes are given; both may be null.
        let event = unsafe { CreateEventW(null(), 1, 0, null()) };
        if event.is_null() {
            return Err(last_error());
        }
        // SAFETY: the handle was just created, and this value is its only owner.
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(event) }))
    }

    fn set(&self) {
        // SAFETY: the handle is one of an event, and open. Setting an event that exists does not fail.
        unsafe { SetEvent(self.raw()) };
    }

    fn is_set(&self) -> bool {
        wait(self, None, Some(Instant::now())) == WaitOutcome::Done
    }

    fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }
}

/// Memory that a pending request shares with the system.
struct Parts {
    overlapped: UnsafeCell<OVERLAPPED>,
    event: Event,
    output: UnsafeCell<Box<[u8]>>,
}

/// A request.
///
/// # Invariants
///
/// The parts do not move. From [`Request::start`] until the request is over, only the system touches
/// `overlapped` and what `output` owns. It is over before the request is dropped.
struct Request<'d> {
    device: &'d File,
    parts: Box<Parts>,
}

impl<'d> Request<'d> {
    fn new(device: &'d File, output: usize) -> Result<Self, u32> {
        let event = Event::new()?;
        let overlapped = OVERLAPPED { hEvent: event.raw(), ..OVERLAPPED::default() };
        let output = vec![0; output].into_boxed_slice();
        let parts = Parts { overlapped: overlapped.into(), event, output: output.into() };
        Ok(Self { device, parts: Box::new(parts) })
    }

    /// Gives the request to the driver: it is over then, or under way ([`ERROR_IO_PENDING`]), or was refused.
    fn start(&self, code: u32, input: &[u8]) -> Result<(), u32> {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        // SAFETY: no request is pending yet, and this value owns the buffers.
        let output: &mut [u8] = unsafe { &mut *self.parts.output.get() };
        let (size, output) = (length(output.len()), output.as_mut_ptr());
        // SAFETY: the handle is open. The input is read before the call returns, as these requests are
        // buffered. The output and OVERLAPPED live as long as the request, and are as long as they are said
        // to be.
        let done = unsafe {
            DeviceIoControl(
                self.device.as_raw_handle(),
                code,
                input.as_ptr().cast(),
                length(input.len()),
                output.cast(),
                size,
                null_mut(),
                self.parts.overlapped.get(),
            )
        };
        if done == 0 { Err(last_error()) } else { Ok(()) }
    }

    fn cancel(&self) {
        // SAFETY: the handle is open, and the request lives. If it is over already, the call finds nothing to
        // cancel.
        unsafe { CancelIoEx(self.device.as_raw_handle(), self.parts.overlapped.get()) };
    }

    /// Returns the number of bytes of output. The request is complete.
    fn result(&self) -> Result<usize, u32> {
        let mut written = 0;
        // SAFETY: the handle is open, the request lives, and the call does not wait.
        let done = unsafe {
            GetOverlappedResult(self.device.as_raw_handle(), self.parts.overlapped.get(), &raw mut written, 0)
        };
        if done == 0 { Err(last_error()) } else { Ok(written as usize) }
    }

    /// Copies what came. The request is over, and has written at least as much.
    fn read(&self, output: &mut [u8]) {
        // SAFETY: the request is complete, so the system no longer writes to the buffer.
        let came: &[u8] = unsafe { &*self.parts.output.get() };
        output.copy_from_slice(&came[..output.len()]);
    }

    /// Leaves what the system may still write to where it is.
    fn abandon(self) {
        Box::leak(self.parts);
    }
}

/// Reason that a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitOutcome {
    Done,
    Stopped,
    Time,
}

/// Waits for `event`, `stop` or the time limit.
fn wait(event: &Event, stop: Option<&Event>, end: Option<Instant>) -> WaitOutcome {
    let handles = [event.raw(), stop.unwrap_or(event).raw()];
    let count = if stop.is_some() { 2 } else { 1 };
    let limit = end.map_or(INFINITE, |end| {
        let left = end.saturating_duration_since(Instant::now());
        // A part of a millisecond is waited for as a whole one: the time is not up before it is.
        u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(INFINITE - 1).min(INFINITE - 1)
    });
    // SAFETY: as many handles as are said, all of them of open events.
    match unsafe { WaitForMultipleObjects(count, handles.as_ptr(), 0, limit) } {
        WAIT_OBJECT_0 => WaitOutcome::Done,
        WAIT_TIMEOUT => WaitOutcome::Time,
        // Only the other event is left: a wait for handles that are open does not fail.
        _ => WaitOutcome::Stopped,
    }
}

fn last_error() -> u32 {
    // SAFETY: the call reads a value of this thread.
    unsafe { GetLastError() }
}
