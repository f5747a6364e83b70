//! The thread that runs the service.
//!
//! ```text
//!   Running::start ──► thread: Service::start ─┬─ listening ──► waits for the event ──► Service::end
//!                             │                │                      ▲                 until all is gone
//!                  up to 5 s for WSK           └─ failed: recorded    │
//!                                                                     │
//!   Running::stop ────────────────────────────── sets the event ──────┘    and waits for the thread
//! ```
//!
//! `DriverEntry` must not wait for WSK, which may start after this driver, so a thread does. If WSK does not
//! appear in time, or the address is in use, the driver stays loaded and its device reports the failure.

use gate_service::{Control, Record, RecordSink as _, Service};
use wdk_sys::{DEVICE_OBJECT, STATUS_INVALID_PARAMETER};
use wsk::executor::Thread;
use wsk::sync::{Event, EventKind};
use wsk::{Client, Passive, Result};

use crate::debugger;

/// Number of threads that serve connections.
const THREADS: usize = 2;

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
    ///
    /// # Safety
    /// `device` is a device object of this driver, and is there until the thread has ended.
    pub(crate) unsafe fn start(
        control: Control,
        device: *mut DEVICE_OBJECT,
        passive: Passive<'_>,
    ) -> Result<Self> {
        let stop = Event::try_new(EventKind::Notification)?;
        let stopped = stop.clone();
        let device = Owned(device);
        let thread = Thread::spawn(passive, move |passive| serve(&control, &device, &stopped, passive))?;
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

/// A device object of this driver.
///
/// # Invariants
/// It is there as long as the thread that has this value.
struct Owned(*mut DEVICE_OBJECT);

// SAFETY: device objects are named on any thread.
unsafe impl Send for Owned {}

/// Body of the service thread.
fn serve(control: &Control, device: &Owned, stop: &Event, passive: Passive<'_>) {
    // This driver can be unloaded, so its device keeps its image until the last completion routine has
    // returned.
    // SAFETY: the device is this driver's, and by its invariant it is there.
    let register = || unsafe { Client::register_for(passive, device.0) };
    // Without an address there is nothing to start; a record says what is wrong with it.
    let started = match control.settings(THREADS) {
        Some(settings) => register()
            .and_then(|client| {
                Service::start_with(client, settings, control.clone(), debugger::still_waiting, passive)
            })
            .map_err(|error| error.status().raw()),
        None => Err(STATUS_INVALID_PARAMETER),
    };
    match started {
        Ok(service) => {
            debugger::listening(service.local_addr().port());
            stop.wait(passive, None);
            // Connections are reset and requests rejected, so this takes as long as WSK takes to close its
            // sockets. `DriverUnload` cannot fail, and so this does not give up.
            service.end(debugger::still_waiting, passive);
        }
        Err(status) => {
            debugger::not_started(status);
            control.record(Record::Failed { status: status as u32 });
        }
    }
}
