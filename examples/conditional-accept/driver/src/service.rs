//! The network that the service runs on.
//!
//! ```text
//!   start ──► Network: register ─► capture, up to 5 s ─► gate_service::serve
//!                          │              │                    │
//!                          └──────────────┴────────────────────┴── fails: printed and recorded
//!   stop ───► clients are disconnected, sockets close, for as long as that takes
//! ```
//!
//! If WSK does not appear in time, or the address is in use, the driver stays loaded and its device reports
//! the failure.

use gate_service::{Control, Record, RecordSink, config, serve};
use wdk_sys::{DEVICE_OBJECT, NTSTATUS, STATUS_INVALID_PARAMETER};
use wsk::sync::SpinLock;
use wsk::{Network, Passive, Report, Result, Started};

use crate::debugger;

/// Number of threads that serve connections.
const THREADS: usize = 2;

static NETWORK: Network = Network::new();

/// The control that failures are recorded in, while the network is started.
static CONTROL: SpinLock<Option<Control>> = SpinLock::new(None);

/// The control, as the sink of a service whose start is printed.
struct Sink(Control);

impl RecordSink for Sink {
    fn record(&self, record: Record) {
        if let Record::Loaded { local } = record {
            debugger::listening(local.port());
        }
        self.0.record(record);
    }
}

/// Starts the network, which starts the service. Without an address there is nothing to start, which is
/// printed and recorded as a failure.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// Those of [`Network::start_for`].
///
/// # Safety
/// `device` is a device object of this driver, and is there until [`stop`] has returned, or this has failed.
pub(crate) unsafe fn start(control: Control, device: *mut DEVICE_OBJECT, passive: Passive<'_>) -> Result {
    let Some(settings) = control.settings() else {
        // A record says already what is wrong with it.
        failed(&control, STATUS_INVALID_PARAMETER);
        return Ok(());
    };
    let kept = control.clone();
    CONTROL.with(|slot| *slot = Some(kept));
    let serve = |net| serve(net, settings, Sink(control));
    // SAFETY: the caller vouches for the device.
    let started = unsafe { NETWORK.start_for(passive, device, config(THREADS, report), serve) };
    started.map(Started::keep).inspect_err(|_| forget_control())
}

/// Ends the service and waits until its threads have left this driver's code.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn stop(passive: Passive<'_>) {
    NETWORK.stop(passive);
    forget_control();
}

fn forget_control() {
    // Dropped outside of the lock.
    drop(CONTROL.with(Option::take));
}

/// Prints a report, and records a failure.
fn report(report: &Report) {
    let Some(error) = report.error() else {
        return report.left().for_each(|(count, kind)| debugger::still_waiting(count, kind));
    };
    if let Some(control) = CONTROL.with(|control| control.clone()) {
        failed(&control, error.status().raw());
    }
}

/// Prints and records that the service has not started.
fn failed(control: &Control, status: NTSTATUS) {
    debugger::not_started(status);
    control.record(Record::Failed { status: status as u32 });
}
