//! A system thread.

use core::ffi::c_void;
use core::fmt;
use core::ptr::{NonNull, null_mut};
use core::time::Duration;

use wsk_sys::nt;

use crate::error::{Error, Operation, Result, Status};
use crate::irql::Passive;
use crate::memory::PoolBox;
use crate::sync::wait_for_object;

/// A system thread of this driver.
///
/// Dropping it lets the thread run on, which `wsk-sim` reports (REG-27) unless the driver has waited for the
/// thread. A driver must not unload before each of its threads has ended, so it keeps them and waits for
/// them: the wait is for the thread *object*, which is signalled when the thread has left the driver's code
/// for good.
///
/// # Invariants
/// `object` is a thread object on which this value owns one reference.
pub struct Thread {
    object: NonNull<c_void>,
}

// SAFETY: a reference on an object belongs to no thread, and may be given back on any.
unsafe impl Send for Thread {}
// SAFETY: a shared value only waits for the object, which any number of threads may do.
unsafe impl Sync for Thread {}

impl Thread {
    /// Starts a thread that runs `body` and ends (`PsCreateSystemThread`).
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Out of memory, or the status of the kernel; `body` is dropped then.
    pub fn spawn<F>(_passive: Passive<'_>, body: F) -> Result<Self>
    where
        F: FnOnce(Passive<'_>) + Send + 'static,
    {
        let body = PoolBox::try_new(body).map_err(|error| Error::from(error).during(Operation::Thread))?;
        let context = PoolBox::into_raw(body);
        // SAFETY: the level is passive, and the context is what this start routine takes.
        match unsafe { create(thread_main::<F>, context.cast()) } {
            Created::Thread(thread) => thread,
            Created::Nothing(error) => {
                // SAFETY: no thread was made, so the box is still this function's.
                drop(unsafe { PoolBox::from_raw(context) });
                Err(error)
            }
        }
    }

    /// Waits until the thread has ended; `false` if it has not after `timeout`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, outside of callbacks and completion routines (rule IRQL-13).
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

/// Result of an attempt to create a thread.
enum Created {
    /// There is a thread, which has the context. On a broken kernel its object cannot be had.
    Thread(Result<Thread>),
    /// There is none.
    Nothing(Error),
}

/// Makes a thread. The same for all bodies, so that there is one copy of it.
///
/// # Safety
/// The level is passive, and `context` is what `start` takes.
unsafe fn create(start: nt::KSTART_ROUTINE, context: *mut c_void) -> Created {
    let mut handle: nt::HANDLE = null_mut();
    // Whatever process is current, its user mode must not be able to close the handle or put another in its
    // place.
    let mut attributes = nt::OBJECT_ATTRIBUTES::kernel_handle();
    // SAFETY: the caller says that the level is passive and that the context is what the routine takes; the
    // handle and the attributes live during the call; the null pointers are for what is optional.
    let status = unsafe {
        nt::PsCreateSystemThread(
            &raw mut handle,
            nt::THREAD_ALL_ACCESS,
            (&raw mut attributes).cast(),
            null_mut(),
            null_mut(),
            Some(start),
            context,
        )
    };
    if let Err(error) = check(status) {
        return Created::Nothing(error);
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
    // A good handle with the right access always has an object.
    let object = check(status)
        .and_then(|()| NonNull::new(object).ok_or(Error::new(Operation::Thread, Status::UNSUCCESSFUL)));
    Created::Thread(object.map(|object| Thread { object }))
}

/// Start routine of threads. When it returns, its thread ends.
///
/// # Safety
/// `context` is a box given up to this thread.
unsafe extern "system" fn thread_main<F: FnOnce(Passive<'_>)>(context: *mut c_void) {
    // SAFETY: the creator gave the box up to this thread.
    let body = PoolBox::into_inner(unsafe { PoolBox::<F>::from_raw(context.cast()) });
    // SAFETY: a system thread starts at PASSIVE_LEVEL, in no callback and with no lock, and `body` can leave
    // that only in safe code that comes back to it.
    body(unsafe { Passive::assume() });
}

fn check(status: nt::NTSTATUS) -> Result<()> {
    if wsk_sys::nt_success(status) { Ok(()) } else { Err(Error::new(Operation::Thread, status)) }
}
