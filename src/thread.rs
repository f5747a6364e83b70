//! System threads that can be waited for.

use core::ffi::c_void;
use core::fmt;
use core::ptr::{NonNull, null_mut};
use core::time::Duration;

use wsk_sys::nt;
use wsk_sys::{STATUS_UNSUCCESSFUL, nt_success};

use crate::error::{Error, Operation, Result};
use crate::irql::Passive;
use crate::memory::PoolBox;
use crate::sync::wait_for_object;

/// A system thread (`PsCreateSystemThread`). Dropping this does not stop the thread.
///
/// A driver must not let its image be unloaded before its threads have ended, which [`Thread::wait`] tells.
///
/// # Invariants
/// `object` is a thread object on which this value owns one reference; it is signalled when the thread has ended
/// for good, after its last instruction in this image.
pub struct Thread {
    object: NonNull<c_void>,
}

// SAFETY: a thread object may be waited for and dereferenced on any thread.
unsafe impl Send for Thread {}
// SAFETY: as for `Send`.
unsafe impl Sync for Thread {}

impl Thread {
    /// Runs `body` on a new thread, at `PASSIVE_LEVEL`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// When memory is out or the thread cannot be made; `body` is dropped then.
    pub fn spawn<F>(_passive: Passive<'_>, body: F) -> Result<Self>
    where
        F: FnOnce(Passive<'_>) + Send + 'static,
    {
        let body = PoolBox::try_new(body).map_err(|_| Error::out_of_memory(Operation::Thread))?;
        let context = PoolBox::into_raw(body);
        let mut handle: nt::HANDLE = null_mut();
        // SAFETY: the context is a body that the thread takes over; everything else is optional.
        let status = unsafe {
            nt::PsCreateSystemThread(
                &raw mut handle,
                nt::THREAD_ALL_ACCESS,
                null_mut(),
                null_mut(),
                null_mut(),
                Some(thread_main::<F>),
                context.cast(),
            )
        };
        if !nt_success(status) {
            // SAFETY: no thread was made, so the body is still this function's.
            drop(unsafe { PoolBox::from_raw(context) });
            return Err(Error::new(Operation::Thread, status));
        }
        let mut object = null_mut();
        // SAFETY: the handle was just made, by kernel-mode code, with this access.
        let status = unsafe {
            nt::ObReferenceObjectByHandle(
                handle,
                nt::THREAD_ALL_ACCESS,
                null_mut(),
                nt::KERNEL_MODE,
                &raw mut object,
                null_mut(),
            )
        };
        // SAFETY: the handle was just made and is not used any more.
        unsafe { nt::ZwClose(handle) };
        // A good handle with the right access has an object; it fails only on a broken kernel.
        match NonNull::new(object) {
            Some(object) if nt_success(status) => Ok(Self { object }),
            _ => Err(Error::new(Operation::Thread, STATUS_UNSUCCESSFUL)),
        }
    }

    /// Waits until the thread has ended; `false` if it has not after `timeout`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    pub fn wait(&self, passive: Passive<'_>, timeout: Option<Duration>) -> bool {
        // SAFETY: the object is a thread, which this value keeps alive.
        unsafe { wait_for_object(passive, self.object.as_ptr(), timeout) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: this value owns the reference.
        unsafe { nt::ObfDereferenceObject(self.object.as_ptr()) };
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Thread")
    }
}

/// Where threads start. A start routine that returns ends its thread.
///
/// # Safety
/// `context` is the boxed body, given to this thread.
unsafe extern "system" fn thread_main<F: FnOnce(Passive<'_>)>(context: *mut c_void) {
    // SAFETY: the creator gave the body up to this thread.
    let body = unsafe { PoolBox::<F>::from_raw(context.cast()) };
    // SAFETY: a system thread starts at PASSIVE_LEVEL, in no callback and with no lock.
    let passive = unsafe { Passive::assume() };
    PoolBox::into_inner(body)(passive);
}
