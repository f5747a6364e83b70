//! The callbacks: their observations and answers.
//!
//! There is one recorder for each client. It is the context of every socket, so it is alive until the client
//! has deregistered, which waits for the sockets. Callbacks come at any IRQL up to `DISPATCH_LEVEL`, in any
//! thread: all of it is atomic, and the event wakes the scene, which waits at `PASSIVE_LEVEL`.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize};

use wsk_sys::nt::{self, KEVENT, NTSTATUS};
use wsk_sys::*;

use crate::request::wait;

/// The time that a callback waits for another thread, in units of 100 ns: five seconds. On a loaded machine
/// the thread may get little of it; the provider detects a held callback by that. Windows lets a DPC run
/// longer.
const HOLD: u64 = 50_000_000;
/// The time that a scene waits for a callback, in milliseconds.
const TIMEOUT: u32 = 2_000;

/// Observations of the callbacks.
pub(crate) struct Recorder {
    changed: UnsafeCell<KEVENT>,
    irql: AtomicU8,
    // Inspections.
    key: AtomicUsize,
    serial: AtomicU32,
    inspected: AtomicU32,
    /// The next inspection stays in its callback until `released`.
    hold: AtomicBool,
    released: AtomicBool,
    left: AtomicU32,
    aborted_key: AtomicUsize,
    aborted_serial: AtomicU32,
    aborted: AtomicU32,
    // Data.
    received: AtomicU32,
    indicated: AtomicUsize,
    accepted_at_entry: AtomicUsize,
    /// Data is answered with success and nothing accepted.
    accept_nothing: AtomicBool,
}

// SAFETY: the event is used by the kernel's functions alone, and all else is atomic.
unsafe impl Sync for Recorder {}

impl Recorder {
    /// A recorder before [`Recorder::prepare`]. Zero is a valid value of every field.
    pub(crate) const fn new() -> Self {
        Self {
            // SAFETY: an event is made of numbers and pointers, for which zeroes are a value.
            changed: UnsafeCell::new(unsafe { core::mem::zeroed() }),
            irql: AtomicU8::new(0),
            key: AtomicUsize::new(0),
            serial: AtomicU32::new(0),
            inspected: AtomicU32::new(0),
            hold: AtomicBool::new(false),
            released: AtomicBool::new(false),
            left: AtomicU32::new(0),
            aborted_key: AtomicUsize::new(0),
            aborted_serial: AtomicU32::new(0),
            aborted: AtomicU32::new(0),
            received: AtomicU32::new(0),
            indicated: AtomicUsize::new(0),
            accepted_at_entry: AtomicUsize::new(0),
            accept_nothing: AtomicBool::new(false),
        }
    }

    /// Initializes the recorder at its final address.
    pub(crate) fn prepare(&self) {
        // SAFETY: no thread waits yet, and the recorder does not move from now on.
        unsafe { nt::KeInitializeEvent(self.changed.get(), nt::SYNCHRONIZATION_EVENT, 0) };
    }

    /// The identifier of the last request that was inspected.
    pub(crate) fn id(&self) -> WSK_INSPECT_ID {
        WSK_INSPECT_ID { Key: self.key.load(SeqCst), SerialNumber: self.serial.load(SeqCst) }
    }

    /// The IRQL of the last callback.
    pub(crate) fn irql(&self) -> u8 {
        self.irql.load(SeqCst)
    }

    /// The number of inspected requests.
    pub(crate) fn inspected(&self) -> u32 {
        self.inspected.load(SeqCst)
    }

    /// The number of callbacks for inspection that have returned.
    pub(crate) fn left(&self) -> u32 {
        self.left.load(SeqCst)
    }

    /// The bytes of the last indication of data, and the value of `*BytesAccepted` on entry.
    pub(crate) fn data(&self) -> (usize, usize) {
        (self.indicated.load(SeqCst), self.accepted_at_entry.load(SeqCst))
    }

    pub(crate) fn hold_next(&self) {
        self.released.store(false, SeqCst);
        self.hold.store(true, SeqCst);
    }

    pub(crate) fn release(&self) {
        self.released.store(true, SeqCst);
    }

    pub(crate) fn accept_nothing(&self) {
        self.accept_nothing.store(true, SeqCst);
    }

    /// Waits for more inspections than there were; false after two seconds.
    pub(crate) fn await_inspection(&self, before: u32) -> bool {
        self.wait_for(|| self.inspected() > before)
    }

    /// Waits until as many callbacks for inspection have returned as were called.
    pub(crate) fn await_return(&self) -> bool {
        self.wait_for(|| self.left() == self.inspected())
    }

    /// Waits for the abort of a request.
    pub(crate) fn await_abort(&self, id: WSK_INSPECT_ID) -> bool {
        let is_last =
            || self.aborted_key.load(SeqCst) == id.Key && self.aborted_serial.load(SeqCst) == id.SerialNumber;
        self.wait_for(|| self.aborted.load(SeqCst) > 0 && is_last())
    }

    /// Waits for data.
    pub(crate) fn await_data(&self) -> bool {
        self.wait_for(|| self.received.load(SeqCst) > 0)
    }

    /// Each change sets the event after it is made, so a look after a wait sees it. Only the scene's thread
    /// waits.
    fn wait_for(&self, happened: impl Fn() -> bool) -> bool {
        while !happened() {
            // SAFETY: the event is initialized, and alive as long as the recorder.
            if !unsafe { wait(self.changed.get(), Some(TIMEOUT)) } {
                return happened();
            }
        }
        true
    }

    fn change(&self) {
        // SAFETY: this is kernel code.
        self.irql.store(unsafe { nt::KeGetCurrentIrql() }, SeqCst);
        // SAFETY: the event is initialized, and alive as long as the recorder.
        unsafe { nt::KeSetEvent(self.changed.get(), nt::IO_NO_INCREMENT, 0) };
    }

    /// Holds a callback, for [`HOLD`] at most: the other thread may need this processor.
    fn stay(&self) {
        let until = now().saturating_add(HOLD);
        while !self.released.load(SeqCst) && now() < until {
            core::hint::spin_loop();
        }
    }
}

fn now() -> u64 {
    // SAFETY: this is kernel code.
    unsafe { nt::KeQueryInterruptTime() }
}

/// The recorder behind a context.
///
/// # Safety
/// `context` is that of a socket of this crate.
unsafe fn recorder<'a>(context: *mut c_void) -> &'a Recorder {
    // SAFETY: the context of every socket is the client's recorder, which outlives the socket.
    unsafe { &*context.cast_const().cast::<Recorder>() }
}

unsafe extern "system" fn inspect_event(
    context: *mut c_void,
    _local: PSOCKADDR,
    _remote: PSOCKADDR,
    id: PWSK_INSPECT_ID,
) -> WSK_INSPECT_ACTION {
    if id.is_null() {
        return WskInspectReject;
    }
    // SAFETY: WSK passes the context of a socket.
    let recorder = unsafe { recorder(context) };
    // SAFETY: the identifier is readable during the callback.
    let id = unsafe { id.read() };
    recorder.key.store(id.Key, SeqCst);
    recorder.serial.store(id.SerialNumber, SeqCst);
    let hold = recorder.hold.swap(false, SeqCst);
    recorder.inspected.fetch_add(1, SeqCst);
    recorder.change();
    if hold {
        recorder.stay();
    }
    recorder.left.fetch_add(1, SeqCst);
    recorder.change();
    WskInspectPend
}

unsafe extern "system" fn abort_event(context: *mut c_void, id: PWSK_INSPECT_ID) -> NTSTATUS {
    if id.is_null() {
        return STATUS_SUCCESS;
    }
    // SAFETY: WSK passes the context of a socket.
    let recorder = unsafe { recorder(context) };
    // SAFETY: the identifier is readable during the callback.
    let id = unsafe { id.read() };
    recorder.aborted_key.store(id.Key, SeqCst);
    recorder.aborted_serial.store(id.SerialNumber, SeqCst);
    recorder.aborted.fetch_add(1, SeqCst);
    recorder.change();
    STATUS_SUCCESS
}

/// Refuses the connection: no scene uses one that is accepted by event.
unsafe extern "system" fn accept_event(
    _context: *mut c_void,
    _flags: u32,
    _local: PSOCKADDR,
    _remote: PSOCKADDR,
    _socket: PWSK_SOCKET,
    _accepted_context: *mut *mut c_void,
    _accepted_dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
) -> NTSTATUS {
    STATUS_REQUEST_NOT_ACCEPTED
}

unsafe extern "system" fn receive_event(
    context: *mut c_void,
    _flags: u32,
    data: PWSK_DATA_INDICATION,
    indicated: usize,
    accepted: *mut usize,
) -> NTSTATUS {
    if data.is_null() || accepted.is_null() {
        return STATUS_SUCCESS;
    }
    // SAFETY: WSK passes the context of a socket.
    let recorder = unsafe { recorder(context) };
    recorder.indicated.store(indicated, SeqCst);
    // SAFETY: the number is readable and writable during the callback.
    recorder.accepted_at_entry.store(unsafe { accepted.read() }, SeqCst);
    let nothing = recorder.accept_nothing.load(SeqCst);
    if nothing {
        // SAFETY: the number is readable and writable during the callback.
        unsafe { accepted.write(0) };
    }
    recorder.received.fetch_add(1, SeqCst);
    recorder.change();
    if nothing { STATUS_SUCCESS } else { STATUS_DATA_NOT_ACCEPTED }
}

unsafe extern "system" fn disconnect_event(_context: *mut c_void, _flags: u32) -> NTSTATUS {
    STATUS_SUCCESS
}

unsafe extern "system" fn backlog_event(_context: *mut c_void, _ideal: usize) -> NTSTATUS {
    STATUS_SUCCESS
}

unsafe extern "system" fn receive_from_event(
    _context: *mut c_void,
    _flags: u32,
    _data: PWSK_DATAGRAM_INDICATION,
) -> NTSTATUS {
    STATUS_DATA_NOT_ACCEPTED
}

/// For `SIO_WSK_SET_RECEIVE_EX_CALLBACK`.
pub(crate) unsafe extern "system" fn receive_ex_event(
    _context: *mut c_void,
    _flags: u32,
    _data: PWSK_DATA_INDICATION,
    _control: PCMSGHDR,
    _control_length: u32,
    _indicated: usize,
    _accepted: *mut usize,
) -> NTSTATUS {
    STATUS_DATA_NOT_ACCEPTED
}

/// All callbacks of a listener.
pub(crate) static LISTEN: WSK_CLIENT_LISTEN_DISPATCH = WSK_CLIENT_LISTEN_DISPATCH {
    WskAcceptEvent: Some(accept_event),
    WskInspectEvent: Some(inspect_event),
    WskAbortEvent: Some(abort_event),
};
/// Without `WskInspectEvent`.
pub(crate) static NO_INSPECT: WSK_CLIENT_LISTEN_DISPATCH =
    WSK_CLIENT_LISTEN_DISPATCH { WskInspectEvent: None, ..LISTEN_TABLE };
/// Without `WskAbortEvent`.
pub(crate) static NO_ABORT: WSK_CLIENT_LISTEN_DISPATCH =
    WSK_CLIENT_LISTEN_DISPATCH { WskAbortEvent: None, ..LISTEN_TABLE };
/// Without `WskAcceptEvent`.
pub(crate) static NO_ACCEPT: WSK_CLIENT_LISTEN_DISPATCH =
    WSK_CLIENT_LISTEN_DISPATCH { WskAcceptEvent: None, ..LISTEN_TABLE };
/// All callbacks of a connection.
pub(crate) static CONNECTION: WSK_CLIENT_CONNECTION_DISPATCH = WSK_CLIENT_CONNECTION_DISPATCH {
    WskReceiveEvent: Some(receive_event),
    WskDisconnectEvent: Some(disconnect_event),
    WskSendBacklogEvent: Some(backlog_event),
};
/// The callback of a datagram socket.
pub(crate) static DATAGRAM: WSK_CLIENT_DATAGRAM_DISPATCH =
    WSK_CLIENT_DATAGRAM_DISPATCH { WskReceiveFromEvent: Some(receive_from_event) };
/// The callbacks of a stream socket.
pub(crate) static STREAM: WSK_CLIENT_STREAM_DISPATCH =
    WSK_CLIENT_STREAM_DISPATCH { Listen: ptr::addr_of!(LISTEN), Connect: ptr::addr_of!(CONNECTION) };

const LISTEN_TABLE: WSK_CLIENT_LISTEN_DISPATCH = WSK_CLIENT_LISTEN_DISPATCH {
    WskAcceptEvent: Some(accept_event),
    WskInspectEvent: Some(inspect_event),
    WskAbortEvent: Some(abort_event),
};
