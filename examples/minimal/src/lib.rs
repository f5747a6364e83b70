//! The smallest driver over `wsk`: an echo server on port 7007.
#![no_std]

use wdk_panic as _;
use wdk_sys::ntddk::{IoCreateDevice, IoDeleteDevice};
use wdk_sys::{DRIVER_OBJECT, FILE_DEVICE_NETWORK, NT_SUCCESS, NTSTATUS, PCUNICODE_STRING, STATUS_SUCCESS};
use wsk::{Buffer, Connection, Net, Network, NetworkConfig, Passive, Result};

static NETWORK: Network = Network::new();

/// Two threads, and reports that a debugger shows: failures, and what the end of the network waits for.
const CONFIG: NetworkConfig =
    NetworkConfig { report: |report| wdk::println!("wsk_minimal: {report}"), ..NetworkConfig::DEFAULT };

/// The kernel calls this when it has loaded the driver.
///
/// # Safety
/// Only the I/O manager calls it.
// SAFETY: the linker's settings name this symbol as the entry; nothing else has the name.
#[unsafe(export_name = "DriverEntry")]
unsafe extern "system" fn driver_entry(driver: &mut DRIVER_OBJECT, _path: PCUNICODE_STRING) -> NTSTATUS {
    // SAFETY: DriverEntry runs at PASSIVE_LEVEL.
    let passive = unsafe { Passive::assume() };
    // A device without a name: it keeps the image until the last completion routine has returned.
    let (none, mut device) = (core::ptr::null_mut(), core::ptr::null_mut());
    // SAFETY: the driver is the one that is being loaded, and the device is written during the call.
    let status = unsafe { IoCreateDevice(driver, 0, none, FILE_DEVICE_NETWORK, 0, 0, &raw mut device) };
    if !NT_SUCCESS(status) {
        return status;
    }
    // SAFETY: the device is this driver's, and is deleted after the network has stopped.
    match unsafe { NETWORK.start_for(passive, device, CONFIG, serve) } {
        Ok(started) => {
            driver.DriverUnload = Some(driver_unload);
            started.keep();
            STATUS_SUCCESS
        }
        Err(error) => {
            // SAFETY: the device was just made, and the network does not have it.
            unsafe { IoDeleteDevice(device) };
            error.status().raw()
        }
    }
}

/// The kernel calls this before it unloads the driver.
///
/// # Safety
/// Only the I/O manager calls it, after [`driver_entry`] has succeeded.
unsafe extern "C" fn driver_unload(driver: *mut DRIVER_OBJECT) {
    // SAFETY: DriverUnload runs at PASSIVE_LEVEL.
    NETWORK.stop(unsafe { Passive::assume() });
    // SAFETY: this is the driver, which has made one device.
    let device = unsafe { (*driver).DeviceObject };
    // SAFETY: the network has stopped, so nothing uses the device.
    unsafe { IoDeleteDevice(device) };
}

/// Accepts connections until the network stops.
async fn serve(net: Net) -> Result {
    let listener = net.provider().listener().bind(([0, 0, 0, 0], 7007).into()).await?;
    while let Some(accepted) = net.until_stopping(listener.accept()).await {
        match accepted {
            // Without memory for a task the connection is dropped, which resets it.
            Ok(connection) => drop(net.spawn(serve_one(net.clone(), connection))),
            // Out of memory, or the peer is gone already: the next one may succeed.
            Err(error) if error.is_transient() => listener.pause().await,
            // The listener has died, or is closed.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Serves one peer. What fails ends this connection, and no other.
async fn serve_one(net: Net, connection: Connection) {
    echo(net, connection).await.unwrap_or(());
}

/// Sends back what comes, until the peer has sent its last or the network stops.
async fn echo(net: Net, mut connection: Connection) -> Result {
    let mut buffer = Buffer::try_with_capacity(4096)?;
    while let Some((received, filled)) = net.until_stopping(connection.receive(buffer)).await {
        if received? == 0 {
            break;
        }
        let (sent, empty) = connection.send(filled).await;
        sent?;
        buffer = empty;
    }
    connection.shutdown().await
}
