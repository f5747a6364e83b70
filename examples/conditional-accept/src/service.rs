//! The thread that has the service, from before it starts until it is gone.
//!
//! ```text
//!   Running::start ──► thread: Service::start ─┬─ listening ──► waits for the event ──► Service::unload ──► ends
//!                             │                │                      ▲                  until nothing is left
//!                  up to 5 s for WSK           └─ failed: recorded ───┼─────────────────────────────────► ends
//!                                                                     │
//!   Running::stop ────────────────────────────── sets the event ──────┘    and waits for the thread
//! ```
//!
//! `DriverEntry` must not wait for WSK, which may start after this driver; so a thread does. If it waits in vain, or the
//! address is taken, the driver stays loaded and its device says why.

use core::time::Duration;

use echo_gate::{Control, Record, RecordSink as _, Service};
use wsk::executor::Thread;
use wsk::sync::{Event, EventKind};
use wsk::{Passive, Result};

use crate::debugger;

/// How many threads serve connections.
const THREADS: usize = 2;

/// After so long a message says what an unload still waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread, and what tells it to end.
#[derive(Debug)]
pub(crate) struct Running {
    thread: Thread,
    stop: Event,
}

impl Running {
    /// Starts the thread, which starts the service.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Out of memory, or the status of `PsCreateSystemThread`.
    pub(crate) fn start(control: Control, passive: Passive<'_>) -> Result<Self> {
        let stop = Event::try_new(EventKind::Notification)?;
        let stopped = stop.clone();
        let thread = Thread::spawn(passive, move |passive| serve(&control, &stopped, passive))?;
        Ok(Self { thread, stop })
    }

    /// Ends the service and waits until the thread has left this driver's code.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    pub(crate) fn stop(self, passive: Passive<'_>) {
        self.stop.set();
        self.thread.wait(passive, None);
    }
}

/// What the thread does.
fn serve(control: &Control, stop: &Event, passive: Passive<'_>) {
    match Service::start(control.settings(THREADS), control.clone(), passive) {
        Ok(service) => {
            debugger::listening(service.local_addr().port());
            stop.wait(passive, None);
            end(service, passive);
        }
        Err(error) => {
            debugger::not_started(error.status().raw());
            control.record(Record::Failed { status: error.status().raw() as u32 });
        }
    }
}

/// Takes the service down. Connections are reset and requests rejected, so this takes as long as WSK takes to close its sockets.
///
/// It does not give up: a driver that were unloaded while WSK can still call it would take the system down with it, and
/// `DriverUnload` cannot fail. What it waits for is said instead.
fn end(mut service: Service<Control>, passive: Passive<'_>) {
    while let Err(left) = service.unload(PATIENCE, passive) {
        debugger::still_waiting(&left);
    }
}
