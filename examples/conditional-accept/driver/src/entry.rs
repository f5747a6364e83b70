//! Load and unload.
//!
//! ```text
//!   DriverEntry                                        DriverUnload
//!     configuration from the registry                    the network stops, and the service with it
//!     the control                                        the control completes what waits for it
//!     the device, open to administrators                 link and device are deleted
//!     the network, which runs the service
//! ```
//!
//! The service's client is registered with the device. The I/O manager references the device, and the image
//! with it, until the last completion routine has returned, even after `DriverUnload` has.
//!
//! A failure in `DriverEntry` undoes what came before it, and the driver is not loaded. The I/O manager calls
//! `DriverUnload` once no handle of the device is open: `sc stop` with an open handle marks the driver for
//! unloading, and the last close unloads it. (Wine calls it at once; then the control completes the pending
//! calls of programs.)

use gate_service::{Control, Record, RecordSink as _};
use wdk_sys::{DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, STATUS_INSUFFICIENT_RESOURCES, STATUS_SUCCESS};
use wsk::Passive;
use wsk::memory::OutOfMemory;

use crate::configuration::Configuration;
use crate::debugger;
use crate::device::{ControlDevice, wait_for_dispatch};
use crate::service;

/// The kernel calls this when it has loaded the image.
///
/// # Safety
/// Only the I/O manager calls it.
// SAFETY: the linker's settings name this symbol as the entry; nothing else has the name.
#[unsafe(export_name = "DriverEntry")]
unsafe extern "system" fn driver_entry(driver: &mut DRIVER_OBJECT, path: PCUNICODE_STRING) -> NTSTATUS {
    // SAFETY: drivers are loaded at PASSIVE_LEVEL, outside of callbacks, and this one holds no lock.
    let passive = unsafe { Passive::assume() };
    // SAFETY: the I/O manager gave this path.
    let configuration = unsafe { Configuration::read(path, passive) };
    let control = match configuration.and_then(|configuration| prepare(&configuration)) {
        Ok(control) => control,
        Err(OutOfMemory) => return STATUS_INSUFFICIENT_RESOURCES,
    };
    let device = match ControlDevice::create(driver, control.clone(), passive) {
        Ok(device) => device,
        Err(status) => return status,
    };
    // SAFETY: the device was just made; it is deleted when the network has ended, here or in `DriverUnload`.
    match unsafe { service::start(control, device.as_ptr(), passive) } {
        Ok(()) => {
            device.keep();
            driver.DriverUnload = Some(driver_unload);
            STATUS_SUCCESS
        }
        Err(error) => error.status().raw(),
    }
}

/// Makes the control, and has it report what is wrong with the configuration.
fn prepare(configuration: &Configuration) -> Result<Control, OutOfMemory> {
    let control = Control::try_new(&configuration.parameters)?;
    for record in &*configuration.problems {
        if let Record::BadSetting { setting, problem, .. } = *record {
            debugger::bad_setting(setting, problem);
        }
        control.record(*record);
    }
    Ok(control)
}

/// The kernel calls this to have the driver gone.
///
/// # Safety
/// Only the I/O manager calls it, after [`driver_entry`] has succeeded.
unsafe extern "C" fn driver_unload(driver: *mut DRIVER_OBJECT) {
    // SAFETY: drivers are unloaded at PASSIVE_LEVEL, outside of callbacks, and this one holds no lock.
    let passive = unsafe { Passive::assume() };
    // SAFETY: this is that driver, and it is unloaded once.
    let Some(device) = (unsafe { ControlDevice::take(driver) }) else { return };
    device.control().stopping();
    service::stop(passive);
    device.control().shut_down(passive);
    drop(device);
    // Requests of handles that are still open, which only Wine allows, may have come meanwhile.
    wait_for_dispatch();
    debugger::unloaded();
}
