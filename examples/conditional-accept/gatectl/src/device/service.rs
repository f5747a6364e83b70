//! The driver as a service. Windows does not unload a driver while its device is open, and does not notify
//! the driver either. So every program that holds the device open checks periodically whether the service is
//! being stopped, and closes its handle then.

use std::ptr::null;

use windows_sys::Win32::System::Services::{
    CloseServiceHandle, OpenSCManagerW, OpenServiceW, QueryServiceStatus, SC_HANDLE, SC_MANAGER_CONNECT,
    SERVICE_QUERY_STATUS, SERVICE_STATUS, SERVICE_STOP_PENDING, SERVICE_STOPPED,
};
use windows_sys::core::{PCWSTR, w};

/// The service's name.
const NAME: PCWSTR = w!("conditional_accept");

/// The service.
#[derive(Debug)]
pub(super) struct Service(Handle);

/// An open handle of the service control manager.
#[derive(Debug)]
struct Handle(SC_HANDLE);

// SAFETY: such a handle is a number of the process, which any thread may use.
unsafe impl Send for Handle {}
// SAFETY: the service control manager synchronizes calls with one handle.
unsafe impl Sync for Handle {}

impl Handle {
    fn new(handle: SC_HANDLE) -> Option<Self> {
        (!handle.is_null()).then(|| Self(handle))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and is not used after this.
        unsafe { CloseServiceHandle(self.0) };
    }
}

impl Service {
    /// The service; `None` if the driver was loaded in another way, or under another name.
    pub(super) fn open() -> Option<Self> {
        // SAFETY: the machine and the database may be null: these are the ones.
        let manager = Handle::new(unsafe { OpenSCManagerW(null(), null(), SC_MANAGER_CONNECT) })?;
        // SAFETY: the manager's handle is open, and the name ends with a zero.
        let service = Handle::new(unsafe { OpenServiceW(manager.0, NAME, SERVICE_QUERY_STATUS) })?;
        Some(Self(service))
    }

    /// True if someone has told it to stop.
    pub(super) fn is_stopping(&self) -> bool {
        let mut status = SERVICE_STATUS::default();
        // SAFETY: the handle is open, and the status is writable.
        let known = unsafe { QueryServiceStatus(self.0.0, &raw mut status) };
        known != 0 && matches!(status.dwCurrentState, SERVICE_STOP_PENDING | SERVICE_STOPPED)
    }
}
