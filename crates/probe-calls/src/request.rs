//! Requests: an IRP with all the memory that its call may touch.
//!
//! ```text
//!   Request::new ──parts──► Request ──submit──► Pending ──settle──► Answer, and the block is freed
//!                              │                   │ dropped: cancelled, waited for
//!                              └ dropped: freed    └ refused, the IRP not completed: kept by the client
//! ```
//!
//! # Invariants
//! - A [`Request`] owns its block alone: no call has its IRP.
//! - The block of a [`Pending`] is the provider's to touch until the completion routine has set `done`; it
//!   sets it last. Only the routine writes `record` before that, and it is not read.
//! - A block of the provider's is never freed. Leaking one, by `forget` or otherwise, is safe.

use core::ffi::c_void;
use core::mem::{ManuallyDrop, size_of};
use core::ptr::{self, NonNull};

use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, KEVENT, MDL, NTSTATUS};
use wsk_sys::{
    PADDRINFOEXW, SOCKADDR_STORAGE, STATUS_INSUFFICIENT_RESOURCES, STATUS_MORE_PROCESSING_REQUIRED,
    STATUS_PENDING, STATUS_SUCCESS, WSK_BUF, WSK_INSPECT_ID, nt_success,
};

use crate::client::Client;
use crate::socket::Socket;

/// The tag of this crate's pool.
pub(crate) const TAG: u32 = u32::from_le_bytes(*b"WskP");
/// The time that a request may take, in milliseconds.
const TIMEOUT: u32 = 2_000;
/// The size of the data of a request in bytes.
pub(crate) const DATA: usize = 64;

/// The end of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its IRP was completed.
    Completed,
    /// Its IRP was completed after it was cancelled.
    Cancelled,
    /// It failed, and its IRP was not completed.
    Untouched,
    /// It was made without an IRP.
    NoIrp,
}

/// The answer of a call.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) returned: NTSTATUS,
    pub(crate) ended: Ended,
    pub(crate) status: NTSTATUS,
    pub(crate) information: usize,
    pub(crate) is_socket: bool,
    pub(crate) pending_returned: bool,
    pub(crate) irql: u8,
}

impl Answer {
    /// The answer of a call without an IRP.
    pub(crate) fn without_irp(returned: NTSTATUS) -> Self {
        let record = Record { status: returned, information: 0, pending_returned: false, irql: 0 };
        Self::new(returned, Ended::NoIrp, record)
    }

    fn new(returned: NTSTATUS, ended: Ended, record: Record) -> Self {
        let Record { status, information, pending_returned, irql } = record;
        Self { returned, ended, status, information, is_socket: false, pending_returned, irql }
    }

    /// Returns true if the call succeeded.
    pub(crate) fn succeeded(&self) -> bool {
        match self.ended {
            Ended::Completed | Ended::Cancelled => self.status == STATUS_SUCCESS,
            Ended::Untouched => false,
            Ended::NoIrp => nt_success(self.returned) && self.returned != STATUS_PENDING,
        }
    }

    /// `Ok` if it succeeded.
    pub(crate) fn ok(self) -> Result<Self, NTSTATUS> {
        if self.succeeded() { Ok(self) } else { Err(self.status) }
    }
}

/// Observations of the completion routine.
#[derive(Clone, Copy)]
struct Record {
    status: NTSTATUS,
    information: usize,
    pending_returned: bool,
    irql: u8,
}

/// The memory that a call may read and write.
#[repr(C)]
pub(crate) struct Parts {
    /// A local or remote address.
    pub(crate) address: SOCKADDR_STORAGE,
    /// Bytes, for options as well as for transfers.
    pub(crate) data: [u8; DATA],
    /// The part of `data` that is transferred.
    pub(crate) buffer: WSK_BUF,
    /// An identifier.
    pub(crate) id: WSK_INSPECT_ID,
    /// A number that the call writes.
    pub(crate) size: usize,
    /// `*ControlLength`, which is zero.
    pub(crate) control_length: u32,
    /// `*ControlFlags`.
    pub(crate) control_flags: u32,
    /// A name, and what it stands for.
    pub(crate) name: wsk_sys::nt::UNICODE_STRING,
    pub(crate) name_text: [u16; 16],
    pub(crate) addresses: PADDRINFOEXW,
}

/// # Invariants
/// `irp` and `mdl` are this block's own; the MDL describes `parts.data`.
struct Block {
    irp: *mut IRP,
    mdl: *mut MDL,
    done: KEVENT,
    record: Record,
    parts: Parts,
    /// The next block that a client keeps.
    next: Option<Request>,
}

/// A request that the caller owns.
pub(crate) struct Request(NonNull<Block>);

impl Request {
    /// A request with empty parts.
    pub(crate) fn new() -> Result<Self, NTSTATUS> {
        let block = allocate::<Block>().ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
        // SAFETY: all of the block is numbers and pointers, for which zeroes are a value; `None` is a null
        // pointer.
        unsafe { block.write_bytes(0, 1) };
        let request = Self(block);
        let raw = block.as_ptr();
        // SAFETY: an IRP for one driver below; any IRQL up to DISPATCH will do.
        let irp = unsafe { nt::IoAllocateIrp(1, 0) };
        // SAFETY: the block is alive and this request's own.
        let data = unsafe { &raw mut (*raw).parts.data };
        // SAFETY: no IRP is given, so nothing but the new MDL is touched.
        let mdl = unsafe { nt::IoAllocateMdl(data.cast(), DATA as u32, 0, 0, ptr::null_mut()) };
        // SAFETY: the block is alive and this request's own; `Drop` frees what was allocated.
        unsafe { (*raw).irp = irp };
        // SAFETY: the block is alive and this request's own; `Drop` frees what was allocated.
        unsafe { (*raw).mdl = mdl };
        if irp.is_null() || mdl.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        // SAFETY: the MDL is fresh and describes non-paged pool.
        unsafe { nt::MmBuildMdlForNonPagedPool(mdl) };
        // SAFETY: the block is alive and this request's own.
        let done = unsafe { &raw mut (*raw).done };
        // SAFETY: the event stays where it is until the block is freed.
        unsafe { nt::KeInitializeEvent(done, nt::NOTIFICATION_EVENT, 0) };
        Ok(request)
    }

    /// The memory for the parameters of the call.
    pub(crate) fn parts(&mut self) -> &mut Parts {
        // SAFETY: the block is alive, and this request's own by the invariant.
        unsafe { &mut (*self.0.as_ptr()).parts }
    }

    /// With an address.
    pub(crate) fn address(mut self, address: &SOCKADDR_STORAGE) -> Self {
        self.parts().address = *address;
        self
    }

    /// With bytes at the start of the data, and a buffer of that length.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        let parts = self.parts();
        for (to, from) in parts.data.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.length(bytes.len())
    }

    /// With a buffer of this length.
    pub(crate) fn length(mut self, length: usize) -> Self {
        // SAFETY: the block is alive, and this request's own by the invariant.
        let mdl = unsafe { (*self.0.as_ptr()).mdl };
        self.parts().buffer = WSK_BUF { Mdl: mdl, Offset: 0, Length: length.min(DATA) };
        self
    }

    /// Makes the call.
    ///
    /// # Safety
    /// `call` makes one call of the provider with the IRP, and gives it nothing to touch later but what lies
    /// in the parts or lives as long as the client. It does not read or write the parts once the call was
    /// made.
    pub(crate) unsafe fn submit(
        self,
        client: &Client,
        call: impl FnOnce(*mut Parts, *mut IRP) -> NTSTATUS,
    ) -> Pending<'_> {
        let raw = self.0.as_ptr();
        // SAFETY: the block is alive and this request's own.
        let irp = unsafe { (*raw).irp };
        // SAFETY: the IRP is fresh, has a location, and the block is alive until the routine has run.
        unsafe { nt::io_set_completion_routine(irp, completed, raw.cast()) };
        // SAFETY: the block is alive; nothing is read.
        let parts = unsafe { &raw mut (*raw).parts };
        let returned = call(parts, irp);
        Pending { request: ManuallyDrop::new(self), client, returned, reserve: None }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let raw = self.0.as_ptr();
        // SAFETY: the block is alive, and this request's own by the invariant.
        let block = unsafe { &mut *raw };
        let (irp, mdl) = (block.irp, block.mdl);
        drop(block.next.take());
        if !mdl.is_null() {
            // SAFETY: the MDL is the block's, and no call has it.
            unsafe { nt::IoFreeMdl(mdl) };
        }
        if !irp.is_null() {
            // SAFETY: the IRP is the block's, and no call has it.
            unsafe { nt::IoFreeIrp(irp) };
        }
        // SAFETY: the block is not shared.
        unsafe { free(self.0) };
    }
}

/// The completion routine.
unsafe extern "system" fn completed(
    _device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    context: *mut c_void,
) -> NTSTATUS {
    let block = context.cast::<Block>();
    let record = Record {
        // SAFETY: the IRP is complete, and this driver's again.
        status: unsafe { nt::irp_status(irp) },
        // SAFETY: the IRP is complete, and this driver's again.
        information: unsafe { nt::irp_information(irp) },
        // SAFETY: the IRP is complete, and this driver's again.
        pending_returned: unsafe { nt::irp_pending_returned(irp) },
        // SAFETY: this is kernel code.
        irql: unsafe { nt::KeGetCurrentIrql() },
    };
    // SAFETY: by the invariant, only the routine accesses the record before the event is set.
    unsafe { (*block).record = record };
    // SAFETY: the block is alive until the event is set.
    let done = unsafe { &raw mut (*block).done };
    // SAFETY: the event is initialized and alive; the block is not touched once it is set.
    unsafe { nt::KeSetEvent(done, nt::IO_NO_INCREMENT, 0) };
    STATUS_MORE_PROCESSING_REQUIRED
}

/// A call that was made, whether it has ended or not.
pub(crate) struct Pending<'c> {
    request: ManuallyDrop<Request>,
    client: &'c Client,
    returned: NTSTATUS,
    /// The category of the socket that the call may give, and a request for closing it.
    reserve: Option<(u32, Request)>,
}

impl<'c> Pending<'c> {
    /// The call gives a socket of this category if it succeeds; the request is for closing it.
    pub(crate) fn gives_socket(mut self, category: u32, reserve: Request) -> Self {
        self.reserve = Some((category, reserve));
        self
    }

    /// Returns true if the call is pending.
    pub(crate) fn is_pending(&self) -> bool {
        // SAFETY: the event is alive as long as the block.
        let done = unsafe { &raw mut (*self.request.0.as_ptr()).done };
        // SAFETY: it is initialized.
        unsafe { nt::KeReadStateEvent(done) == 0 }
    }

    /// Waits up to two seconds without canceling.
    pub(crate) fn linger(&self) {
        // SAFETY: the block is alive; only an address is computed.
        let done = unsafe { &raw mut (*self.request.0.as_ptr()).done };
        // SAFETY: the event is initialized, and alive as long as the block.
        unsafe { wait(done, Some(TIMEOUT)) };
    }

    /// Cancels it and waits.
    pub(crate) fn cancel(self) -> (Answer, Option<Socket<'c>>) {
        self.settle_within(0)
    }

    /// Waits up to two seconds, and then cancels it.
    pub(crate) fn settle(self) -> (Answer, Option<Socket<'c>>) {
        self.settle_within(TIMEOUT)
    }

    /// The same with another bound, in milliseconds.
    pub(crate) fn settle_within(self, bound: u32) -> (Answer, Option<Socket<'c>>) {
        let (answer, socket, _) = ManuallyDrop::new(self).end(Some(bound));
        (answer, socket)
    }

    /// Waits up to two seconds, for a call that must succeed.
    pub(crate) fn ok(self) -> Result<Option<Socket<'c>>, NTSTATUS> {
        let (answer, socket) = self.settle();
        answer.ok()?;
        Ok(socket)
    }

    /// Waits up to two seconds; returns the request as well, for what the call wrote.
    pub(crate) fn finish(self) -> (Answer, Option<Request>) {
        let (answer, _, request) = ManuallyDrop::new(self).end(Some(TIMEOUT));
        (answer, request)
    }

    /// Waits until it has ended: closing a socket is not cancelled.
    pub(crate) fn until_ended(self) {
        drop(ManuallyDrop::new(self).end(None));
    }

    /// Ends the call. Called once; `self` is not used afterwards.
    fn end(&mut self, bound: Option<u32>) -> (Answer, Option<Socket<'c>>, Option<Request>) {
        let raw = self.request.0.as_ptr();
        // SAFETY: the block is alive; only an address is computed.
        let done = unsafe { &raw mut (*raw).done };
        // SAFETY: the event is initialized, and alive as long as the block.
        let mut ended = if unsafe { wait(done, bound) } { Ended::Completed } else { Ended::Cancelled };
        if ended == Ended::Cancelled {
            // SAFETY: the block is alive, and its IRP is written once, when it is made.
            let irp = unsafe { (*raw).irp };
            // SAFETY: the IRP is alive until the block is freed, completed or not.
            unsafe { nt::IoCancelIrp(irp) };
            // One that was refused need not be completed; one that was taken always is.
            let bound = if nt_success(self.returned) { None } else { Some(TIMEOUT) };
            // SAFETY: the event is initialized, and alive as long as the block.
            if !unsafe { wait(done, bound) } {
                ended = Ended::Untouched;
            }
        }
        // SAFETY: this function is called once.
        let request = unsafe { ManuallyDrop::take(&mut self.request) };
        let reserve = self.reserve.take();
        if ended == Ended::Untouched {
            self.client.keep(request);
            let record = Record { status: self.returned, information: 0, pending_returned: false, irql: 0 };
            return (Answer::new(self.returned, ended, record), None, None);
        }
        // SAFETY: the event is set, so the block is ours again.
        let record = unsafe { (*raw).record };
        let mut answer = Answer::new(self.returned, ended, record);
        let given = reserve.filter(|_| answer.succeeded());
        let socket = given.and_then(|(category, reserve)| {
            // SAFETY: the IRP of a successful call that gives a socket of the category has its address.
            unsafe { Socket::from_information(record.information, category, self.client, reserve) }
        });
        answer.is_socket = socket.is_some();
        (answer, socket, Some(request))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        drop(self.end(Some(0)));
    }
}

impl Request {
    /// Puts this in front of a list.
    pub(crate) fn link(self, next: Option<Self>) -> Self {
        // SAFETY: the provider has refused the call; only this list knows the block.
        unsafe { (*self.0.as_ptr()).next = next };
        self
    }
}

/// Waits for an event; false if `bound` milliseconds have passed.
///
/// # Safety
/// The event is initialized and stays alive.
pub(crate) unsafe fn wait(event: *mut KEVENT, bound: Option<u32>) -> bool {
    let mut timeout = bound.map_or(0, |bound| -(i64::from(bound) * 10_000));
    let timeout = if bound.is_some() { &raw mut timeout } else { ptr::null_mut() };
    // SAFETY: the caller guarantees an initialized event; the timeout is a local.
    let status =
        unsafe { nt::KeWaitForSingleObject(event.cast(), nt::EXECUTIVE, nt::KERNEL_MODE, 0, timeout) };
    status == STATUS_SUCCESS
}

/// Non-paged memory for one value.
pub(crate) fn allocate<T>() -> Option<NonNull<T>> {
    const { assert!(align_of::<T>() <= 16, "pool blocks are aligned to 16 bytes") };
    // SAFETY: non-paged pool may be asked for here.
    let block = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, size_of::<T>(), TAG) };
    NonNull::new(block.cast())
}

/// Frees a block.
///
/// # Safety
/// The block came from [`allocate`], and is not used any more.
pub(crate) unsafe fn free<T>(block: NonNull<T>) {
    // SAFETY: the caller guarantees a block of `allocate` that is not used any more.
    unsafe { nt::ExFreePoolWithTag(block.as_ptr().cast(), TAG) };
}
