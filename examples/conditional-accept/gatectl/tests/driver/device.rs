//! The control device of a driver on the simulated kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gate_service::Control;
use gatectl::device::{Device, RequestError, WaitLimit};
use nt_user::Kernel;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    STATUS_BUFFER_TOO_SMALL, STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_INVALID_BUFFER_SIZE,
    STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER, STATUS_NOT_FOUND,
};

use crate::io::File;

/// An open handle.
pub(crate) struct Simulated {
    kernel: Kernel,
    file: Option<File>,
    stopped: AtomicBool,
}

impl Simulated {
    pub(crate) fn open(kernel: &Kernel, control: &Control) -> Self {
        let _entered = kernel.enter();
        Self { kernel: kernel.clone(), file: Some(File::open(control)), stopped: AtomicBool::new(false) }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _entered = self.kernel.enter();
        self.file = None;
    }
}

impl Device for Simulated {
    fn request(
        &self,
        code: u32,
        input: &[u8],
        output: &mut [u8],
        limit: WaitLimit,
    ) -> Result<usize, RequestError> {
        let _entered = self.kernel.enter();
        let Some(file) = &self.file else { unreachable!("it is closed in drop only") };
        let (end, stops) = match limit {
            WaitLimit::Short(limit) => (Instant::now().checked_add(limit), false),
            WaitLimit::Until(end) => (end, true),
        };
        if stops && self.stopped.load(Ordering::Relaxed) {
            return Err(RequestError::Ended);
        }
        let call = file.send(code, input, output.len());
        let mut taken_back = false;
        while !call.has_ended() {
            let stopped = stops && self.stopped.load(Ordering::Relaxed);
            if stopped || end.is_some_and(|end| end <= Instant::now()) {
                call.cancel();
                taken_back = true;
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match call.wait() {
            Ok(bytes) => {
                output[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Err(STATUS_CANCELLED) if taken_back => Err(RequestError::Ended),
            Err(status) => Err(RequestError::Code(code_of(status))),
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Returns the Windows error code of a status that the driver uses.
fn code_of(status: NTSTATUS) -> u32 {
    match status {
        STATUS_INVALID_DEVICE_REQUEST => 1,
        STATUS_INVALID_PARAMETER => 87,
        STATUS_BUFFER_TOO_SMALL => 122,
        STATUS_DEVICE_BUSY => 170,
        STATUS_CANCELLED => 995,
        STATUS_NOT_FOUND => 1168,
        STATUS_INVALID_BUFFER_SIZE => 1784,
        status => panic!("status {status:#x}"),
    }
}
