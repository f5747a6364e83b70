//! Logic of the control device: everything a driver does with its device besides its creation.
//!
//! ```text
//!   IRP_MJ_CREATE          Control::open ──► Handle, kept in FsContext (Handle::into_context)
//!   IRP_MJ_DEVICE_CONTROL  Request::new ─► Handle::device_control ─┬─ status, policy, answer ─► completed
//!                                                                  ├─ next records ──► journal ─┐ pended
//!                                                                  └─ next question ► questions ┘
//!   IRP_MJ_CLEANUP         Handle::cleanup: its calls end, what it held is rejected
//!   IRP_MJ_CLOSE           Handle::close; it cleans up if that was not done, as in Wine
//!   DriverUnload           Control::stopping, Network::stop, Control::shut_down;
//!                          Control::close_handles, and the device is deleted
//!
//!   Service ── Record ──► Control ──► journal            asker ─► questions ─► program ─► questions ─► asker
//! ```
//!
//! Input from user mode is decoded by [`gate_protocol::wire`] alone:
//!
//! | defect | status |
//! |---|---|
//! | unknown control code | `STATUS_INVALID_DEVICE_REQUEST` |
//! | input of another length | `STATUS_INVALID_BUFFER_SIZE` |
//! | invalid value, or another version | `STATUS_INVALID_PARAMETER` |
//! | output buffer too small | `STATUS_BUFFER_TOO_SMALL` |
//! | no question with this number, or another handle holds it | `STATUS_NOT_FOUND` |
//! | too many pending calls of the handle | `STATUS_DEVICE_BUSY` |
//! | out of memory, or too many handles are open | `STATUS_INSUFFICIENT_RESOURCES` |
//! | the handle is closed, the call is cancelled, or the driver is unloaded | `STATUS_CANCELLED` |
//!
//! Calls that wait at unload end with `STATUS_CANCELLED`, too, which programs see as
//! `ERROR_OPERATION_ABORTED`. That happens in Wine only, as Windows does not unload a driver whose device is
//! open. `STATUS_DELETE_PENDING` would be more specific, but programs see it as `ERROR_ACCESS_DENIED`, which
//! has another meaning. Once the device is being deleted there is no handle behind a file object, and the
//! driver rejects requests by itself.
//!
//! # IRQL
//! Functions run at `<= DISPATCH_LEVEL` and do not wait, unless marked otherwise.

use core::ffi::c_void;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use gate_protocol::policy::{Action, Policy};
use gate_protocol::record::{AcceptBy, Record, RecordSink};
use gate_protocol::status::{Counters, Phase, Status};
use gate_protocol::wire::{
    self, IOCTL_ANSWER, IOCTL_GET_POLICY, IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY,
    IOCTL_STATUS, Malformed, QuestionAnswer, StatusBytes,
};
use wsk::Passive;
use wsk::memory::{OutOfMemory, Ref};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    STATUS_BUFFER_TOO_SMALL, STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_BUFFER_SIZE,
    STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER, STATUS_NOT_FOUND, STATUS_SUCCESS,
};
use zerocopy::IntoBytes as _;

mod files;

use self::files::{Files, Link};
use crate::clock;
use crate::irp::Request;
use crate::journal::{self, Cursor, Journal};
use crate::parameters::Parameters;
use crate::questions::{self, QuestionQueue};
use crate::rules::Rules;
use crate::service::{Asker, Settings};

/// Limit on open handles. Each new record and each answered question walks their pended calls at
/// `DISPATCH_LEVEL`, so their number must be bounded.
pub const MAX_HANDLES: u64 = 256;

/// Address in the status of a service without an address to listen on.
const UNSPECIFIED: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);

/// State shared by a driver's device and its service. Clones share it. As a [`RecordSink`] it keeps the
/// records.
#[derive(Clone, Debug)]
pub struct Control(Ref<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Ref<Journal>,
    questions: QuestionQueue,
    rules: Rules,
    listen: Option<SocketAddr>,
    accept_by: AcceptBy,
    files: Files,
    /// Handles that are open.
    handles: AtomicU64,
    /// The number of the next handle. No handle has the number 0.
    next_number: AtomicU64,
}

impl Control {
    /// Makes what a driver with these parameters needs, before there is a device or a service. The time of
    /// its records begins now.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is left then.
    pub fn try_new(parameters: &Parameters) -> Result<Self, OutOfMemory> {
        let Parameters { listen, verdict_timeout, accept_by, .. } = *parameters;
        let status = Status {
            phase: Phase::Starting,
            error: 0,
            local: listen.unwrap_or(UNSPECIFIED),
            accept_by,
            verdict_timeout,
            limits: parameters.policy.limits(),
            counters: Counters::default(),
        };
        let inner = Inner {
            journal: Journal::try_new(status)?,
            questions: QuestionQueue::try_new(Duration::from_millis(verdict_timeout.into()))?,
            rules: Rules::try_new(&parameters.policy)?,
            listen,
            accept_by,
            files: Files::new(),
            handles: AtomicU64::new(0),
            next_number: AtomicU64::new(1),
        };
        Ref::try_new(inner).map(Self)
    }

    /// Returns the settings for [`serve`](crate::serve), with which programs are asked
    /// about pended requests. The service's sink is a clone of this value. `None` if the parameters have no
    /// address to listen on.
    pub fn settings(&self) -> Option<Settings> {
        let Inner { questions, rules, listen, accept_by, .. } = &*self.0;
        let asker = Asker::Programs(questions.clone());
        let (listen, accept_by) = ((*listen)?, *accept_by);
        Some(Settings { listen, policy: rules.clone(), asker, accept_by })
    }

    /// Puts the policy that these bytes are in force.
    // A policy takes more than a kilobyte of stack, which the other requests need not have.
    #[inline(never)]
    fn set_policy(&self, bytes: &[u8]) -> Result<(), NTSTATUS> {
        let mut policy = Policy::new(Action::Reject);
        wire::decode_policy_into(bytes, &mut policy).map_err(refuse)?;
        self.0.rules.replace(&policy).map_err(|OutOfMemory| STATUS_INSUFFICIENT_RESOURCES)?;
        self.record(Record::Policy { networks: policy.rules().len() as u32 });
        Ok(())
    }

    /// Opens a handle of the device.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`: [`MAX_HANDLES`] are open, or memory is out.
    pub fn open(&self) -> Result<Handle, NTSTATUS> {
        let handles = &self.0.handles;
        let one_more = |open| (open < MAX_HANDLES).then_some(open + 1);
        handles
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| STATUS_INSUFFICIENT_RESOURCES)?;
        let open = Open {
            control: self.clone(),
            number: self.0.next_number.fetch_add(1, Ordering::Relaxed),
            closed: AtomicBool::new(false),
            cursor: Cursor::new(),
            shares: Shares::default(),
            link: Link::new(),
        };
        Ref::try_new(open).map(Handle).map_err(|OutOfMemory| {
            handles.fetch_sub(1, Ordering::Relaxed);
            STATUS_INSUFFICIENT_RESOURCES
        })
    }

    /// Returns the status of the service.
    pub fn status(&self) -> Status {
        let mut status = self.0.journal.status();
        (status.counters.questions, status.counters.timed_out) = self.0.questions.counts();
        status.counters.handles = self.0.handles.load(Ordering::Relaxed);
        status.limits = self.0.rules.policy().limits();
        let (clients, sources) = self.0.rules.clients();
        (status.counters.clients, status.counters.sources) = (clients.into(), sources.into());
        status
    }

    /// Records that the driver is being unloaded. Pending operations continue until
    /// [`Network::stop`](wsk::Network::stop).
    pub fn stopping(&self) {
        self.0.journal.stopping();
    }

    /// Ends all calls that wait, rejects all questions, and accepts no more of either. After this the driver
    /// owns no request of the device, and open handles get `STATUS_CANCELLED` for calls that would wait, as
    /// long as the device exists.
    ///
    /// Call it when the service is down, before the device is deleted.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`. It waits for nothing but completions and cancellations that other processors are in.
    pub fn shut_down(&self, passive: Passive<'_>) {
        let Inner { journal, questions, .. } = &*self.0;
        questions.close();
        journal.close();
        while questions.unfinished() + journal.unfinished_calls() != 0 {
            clock::pause(passive);
        }
    }

    /// Closes the handles that are still in the list: no file object will. Call it when no pointer of
    /// [`Handle::into_context`] is used any more.
    ///
    /// # Safety
    /// Those pointers are not used again.
    pub unsafe fn close_handles(&self) {
        while let Some(open) = self.0.files.pop() {
            Handle(open).cleanup();
        }
    }
}

impl RecordSink for Control {
    fn record(&self, record: Record) {
        self.0.journal.record(record);
    }
}

/// Open handle of the device: the context of a `FILE_OBJECT`.
#[derive(Debug)]
pub struct Handle(Ref<Open>);

/// # Invariants
/// `cursor` is used under the lock of the journal only.
#[derive(Debug)]
pub(crate) struct Open {
    control: Control,
    number: u64,
    /// Set before the lines are searched for what belongs to the handle, and looked at whenever something is
    /// added to them.
    closed: AtomicBool,
    cursor: Cursor,
    shares: Shares,
    /// In the list of those that file objects hold.
    link: Link,
}

/// Resources that a handle uses. Each handle has its own share, so that none can take that of others.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Calls that wait for records; under the lock of the journal.
    pub(crate) records: AtomicU32,
    /// Calls that wait for questions; under the lock of the question queue.
    pub(crate) questions: AtomicU32,
    /// Questions that it holds; under the lock of the question queue.
    pub(crate) held: AtomicU32,
}

impl Open {
    pub(crate) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Returns whether both are the same handle.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }
}

impl Handle {
    /// Gives the handle up as a pointer for `FsContext`; [`Handle::close`] takes it back.
    pub fn into_context(self) -> *mut c_void {
        let control = self.0.control.clone();
        control.0.files.add(self.0).cast_mut().cast()
    }

    /// `IRP_MJ_CLOSE`: takes back a handle that [`Handle::into_context`] gave up. It is cleaned up if it was
    /// not, because in Wine there is no `IRP_MJ_CLEANUP`.
    ///
    /// # Safety
    /// `context` came from [`Handle::into_context`]. It is taken back once, and not after
    /// [`Control::close_handles`].
    pub unsafe fn close(context: *mut c_void) {
        // SAFETY: the caller says that the handle is still given up, so it is there.
        let handle = unsafe { Self::of_context(context) };
        // SAFETY: it was given up to this list, and is taken back once.
        unsafe { handle.0.control.0.files.remove(&handle.0) };
        handle.cleanup();
    }

    /// The handle behind a pointer that stays where it is, for the other requests.
    ///
    /// # Safety
    /// `context` came from [`Handle::into_context`] and is not taken back during the call.
    pub unsafe fn of_context(context: *mut c_void) -> Self {
        // SAFETY: the caller says that an owner exists during the call.
        Self(unsafe { Ref::clone_from_raw(context.cast_const().cast()) })
    }

    /// `IRP_MJ_CLEANUP`: nobody has the handle any more. Its calls end with `STATUS_CANCELLED`, and the
    /// questions it holds are answered with reject. Again, it does nothing.
    pub fn cleanup(&self) {
        if self.0.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let Inner { journal, questions, handles, .. } = &*self.0.control.0;
        handles.fetch_sub(1, Ordering::Relaxed);
        questions.forget(&self.0);
        journal.forget(&self.0);
    }

    /// `IRP_MJ_DEVICE_CONTROL`: completes the request or keeps it, and returns what the dispatch routine
    /// returns.
    pub fn device_control(&self, request: Request) -> NTSTATUS {
        let Inner { journal, questions, .. } = &*self.0.control.0;
        match request.code() {
            IOCTL_NEXT_RECORDS => match waits(&request, journal::MIN_OUTPUT) {
                Ok(()) => Journal::next(journal, &self.0, request),
                Err(status) => request.complete(status, 0),
            },
            IOCTL_NEXT_QUESTION => match waits(&request, questions::QUESTION_SIZE) {
                Ok(()) => questions.next(&self.0, request),
                Err(status) => request.complete(status, 0),
            },
            _ => {
                let mut request = request;
                match self.complete_now(&mut request) {
                    Ok(size) => request.complete(STATUS_SUCCESS, size),
                    Err(status) => request.complete(status, 0),
                }
            }
        }
    }

    /// The requests that do not wait: the size of the output.
    fn complete_now(&self, request: &mut Request) -> Result<usize, NTSTATUS> {
        let control = &self.0.control;
        let Inner { questions, rules, .. } = &*control.0;
        match request.code() {
            IOCTL_STATUS => {
                no_input(request)?;
                let status = StatusBytes::from(&control.status());
                let bytes = status.as_bytes();
                let output = request.output().get_mut(..bytes.len()).ok_or(STATUS_BUFFER_TOO_SMALL)?;
                output.copy_from_slice(bytes);
                Ok(bytes.len())
            }
            IOCTL_GET_POLICY => {
                no_input(request)?;
                wire::encode_policy(&rules.policy(), request.output()).ok_or(STATUS_BUFFER_TOO_SMALL)
            }
            IOCTL_SET_POLICY => control.set_policy(request.input()).map(|()| 0),
            IOCTL_ANSWER => {
                let QuestionAnswer { number, answer } =
                    QuestionAnswer::decode(request.input()).map_err(refuse)?;
                if questions.answer(&self.0, number, answer) { Ok(0) } else { Err(STATUS_NOT_FOUND) }
            }
            _ => Err(STATUS_INVALID_DEVICE_REQUEST),
        }
    }
}

/// The status for bytes that mean nothing.
fn refuse(error: Malformed) -> NTSTATUS {
    match error {
        Malformed::Length { .. } => STATUS_INVALID_BUFFER_SIZE,
        Malformed::Field(_) | Malformed::Version(_) => STATUS_INVALID_PARAMETER,
    }
}

fn no_input(request: &Request) -> Result<(), NTSTATUS> {
    if request.input().is_empty() { Ok(()) } else { Err(STATUS_INVALID_BUFFER_SIZE) }
}

/// Checks a request that is to wait, and has no input.
fn waits(request: &Request, room: usize) -> Result<(), NTSTATUS> {
    no_input(request)?;
    if request.room() < room { Err(STATUS_BUFFER_TOO_SMALL) } else { Ok(()) }
}
