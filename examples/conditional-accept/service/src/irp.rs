//! Requests of the control device: IRPs that belong to this driver, each completed exactly once.
//!
//! ```text
//!   IRP_MJ_DEVICE_CONTROL ──► Request ── complete ─────────────────────────► returned to the I/O manager
//!                                │                                              ▲           ▲
//!                              insert ──► CancelSafeQueue ── remove_matching ───┘           │
//!                                               └── IoCancelIrp: the cancel routine removes it
//! ```
//!
//! A [`Request`] owns its IRP, and completing it consumes it. While a request waits, its IRP's cancel routine
//! decides who owns it: the thread that takes the routine out of the IRP completes the IRP.

mod queue;

use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use wsk_sys::STATUS_UNSUCCESSFUL;
use wsk_sys::nt::{self, IRP, NTSTATUS};

pub(crate) use queue::{CancelSafeQueue, PendingCall, QueueOwner, RejectedCall};

/// Number of threads that run driver code for an IRP.
static ACTIVE_CALLS: AtomicUsize = AtomicUsize::new(0);

/// Guard of a dispatch or cancel routine that runs. Declare it first in the routine, so that it is dropped
/// last.
///
/// On Windows no such routine runs when a driver is unloaded. Wine unloads drivers whose device is open, and
/// a routine that is on its way out would return to where the image was. So the unload waits until
/// [`count`](Self::count) is zero.
#[derive(Debug)]
pub struct ActiveCall(());

impl ActiveCall {
    /// Counts the calling thread until the guard is dropped.
    pub fn enter() -> Self {
        ACTIVE_CALLS.fetch_add(1, Ordering::SeqCst);
        Self(())
    }

    /// Returns the number of such routines that run.
    pub fn count() -> usize {
        ACTIVE_CALLS.load(Ordering::SeqCst)
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        ACTIVE_CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A device control request (`METHOD_BUFFERED`) that this driver has to complete.
///
/// Input and output share one buffer, as they do in the IRP: so what is needed of the input is read first,
/// and then the output is written over it. Dropped, a request completes with `STATUS_UNSUCCESSFUL`.
///
/// # Invariants
/// `irp` is a live IRP whose current stack location is this driver's. This value alone completes it. Until
/// then `buffer` points to as many readable and writable bytes as the longer of `input` and `output` says,
/// and nobody else uses them.
pub struct Request {
    irp: NonNull<IRP>,
    code: u32,
    buffer: NonNull<u8>,
    input: usize,
    output: usize,
}

// SAFETY: an IRP and its system buffer belong to no thread; this value is their only owner.
unsafe impl Send for Request {}
// SAFETY: a shared request gives nothing but its numbers and a shared view of the input.
unsafe impl Sync for Request {}

impl Request {
    /// Takes over an IRP that `DispatchDeviceControl` was given: its control code,
    /// `AssociatedIrp.SystemBuffer`, `InputBufferLength` and `OutputBufferLength`.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// - `irp` is the live IRP that the dispatch routine was called with; from here on only the result
    ///   touches or completes it, and the dispatch routine returns what becomes of the result.
    /// - `buffer` is its system buffer, in non-paged memory: it holds the longer of the two lengths. It may
    ///   be null if both are zero.
    pub unsafe fn new(
        irp: NonNull<IRP>,
        code: u32,
        buffer: *mut u8,
        input_length: usize,
        output_length: usize,
    ) -> Self {
        let (buffer, input, output) = match NonNull::new(buffer) {
            Some(buffer) => (buffer, input_length, output_length),
            None => (NonNull::dangling(), 0, 0),
        };
        Self { irp, code, buffer, input, output }
    }

    /// The control code.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// Returns the input.
    pub fn input(&self) -> &[u8] {
        // SAFETY: the buffer holds as many bytes, and `&self` excludes writers.
        unsafe { core::slice::from_raw_parts(self.buffer.as_ptr(), self.input) }
    }

    /// Returns the output buffer, of which [`complete`](Self::complete) returns the first bytes. It begins
    /// with the input.
    pub fn output(&mut self) -> &mut [u8] {
        // SAFETY: the buffer holds as many bytes, and `&mut self` is the only access to it.
        unsafe { core::slice::from_raw_parts_mut(self.buffer.as_ptr(), self.output) }
    }

    /// Returns the size of the output buffer.
    pub fn room(&self) -> usize {
        self.output
    }

    /// Completes the request (`IoCompleteRequest`); `information` bytes of the output go back. Returns
    /// `status`, which is what the dispatch routine returns if this is called in it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, without a spin lock.
    pub fn complete(self, status: NTSTATUS, information: usize) -> NTSTATUS {
        let irp = ManuallyDrop::new(self).irp.as_ptr();
        // SAFETY: this value owned the IRP, which is alive until it is completed below.
        unsafe { nt::set_irp_status(irp, status) };
        // SAFETY: this value owned the IRP, which is alive until it is completed below.
        unsafe { nt::set_irp_information(irp, information) };
        // SAFETY: this value owned the IRP and is consumed, so nothing uses the IRP after this.
        unsafe { nt::IofCompleteRequest(irp, nt::IO_NO_INCREMENT as i8) };
        status
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let Self { irp, code, buffer, input, output } = *self;
        let request = Self { irp, code, buffer, input, output };
        request.complete(STATUS_UNSUCCESSFUL, 0);
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { irp, code, input, output, .. } = self;
        write!(f, "Request({irp:p}, {code:#X}, {input} bytes in, room for {output} out)")
    }
}
