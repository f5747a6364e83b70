//! The kernel functions, declared once. The names are the ones the kernel exports.
//!
//! `KeGetCurrentIrql`, `KeQueryInterruptTime` and `KeQuerySystemTime` are in `binding`: for 64-bit drivers
//! they are no functions of the kernel.

use core::ffi::c_void;

use super::*;

unsafe extern "system" {
    // IRPs -------------------------------------------------------------------------------------------------
    /// Allocates an IRP with `stack_size` stack locations; null when memory is out. IRQL <= DISPATCH.
    pub fn IoAllocateIrp(stack_size: i8, charge_quota: u8) -> *mut IRP;
    /// Frees an IRP of [`IoAllocateIrp`]. IRQL <= DISPATCH.
    pub fn IoFreeIrp(irp: *mut IRP);
    /// Initializes an IRP in the caller's own storage of `packet_size` bytes. IRQL <= DISPATCH.
    pub fn IoInitializeIrp(irp: *mut IRP, packet_size: u16, stack_size: i8);
    /// Makes a completed IRP ready for another request; the completion routine must be set again. IRQL <=
    /// DISPATCH.
    pub fn IoReuseIrp(irp: *mut IRP, status: NTSTATUS);
    /// Sets the completion routine of an IRP's next stack location, and has the I/O manager hold `device`
    /// until the routine has returned, so that the image it is part of stays. `STATUS_INSUFFICIENT_RESOURCES`
    /// when memory is out; the routine is not set then. What this takes is given back after the routine has
    /// run, so an IRP that got one must be completed. IRQL <= DISPATCH.
    pub fn IoSetCompletionRoutineEx(
        device: *mut DEVICE_OBJECT,
        irp: *mut IRP,
        routine: Option<IO_COMPLETION_ROUTINE>,
        context: *mut c_void,
        invoke_on_success: u8,
        invoke_on_error: u8,
        invoke_on_cancel: u8,
    ) -> NTSTATUS;
    /// Asks for the cancellation of an IRP; non-zero if a cancel routine ran. IRQL <= DISPATCH.
    pub fn IoCancelIrp(irp: *mut IRP) -> u8;
    /// Completes an IRP (`IoCompleteRequest`). IRQL <= DISPATCH.
    pub fn IofCompleteRequest(irp: *mut IRP, priority_boost: i8);
    /// Takes the system-wide cancel spin lock. IRQL <= DISPATCH.
    pub fn IoAcquireCancelSpinLock(irql: *mut KIRQL);
    /// Releases the cancel spin lock. IRQL = DISPATCH.
    pub fn IoReleaseCancelSpinLock(irql: KIRQL);

    // Memory descriptor lists -------------------------------------------------------------------------------
    /// Allocates an MDL for `length` bytes at `address`; null when memory is out. IRQL <= DISPATCH.
    pub fn IoAllocateMdl(
        address: *mut c_void,
        length: u32,
        secondary_buffer: u8,
        charge_quota: u8,
        irp: *mut IRP,
    ) -> *mut MDL;
    /// Frees an MDL of [`IoAllocateMdl`]. IRQL <= DISPATCH.
    pub fn IoFreeMdl(mdl: *mut MDL);
    /// Fills in an MDL that describes non-paged pool. IRQL <= DISPATCH.
    pub fn MmBuildMdlForNonPagedPool(mdl: *mut MDL);
    /// Maps the pages of an MDL; null when mapping space is out. IRQL <= DISPATCH for kernel mode.
    pub fn MmMapLockedPagesSpecifyCache(
        mdl: *mut MDL,
        access_mode: i8,
        cache_type: i32,
        requested_address: *mut c_void,
        bug_check_on_failure: u32,
        priority: u32,
    ) -> *mut c_void;

    // Events and waits --------------------------------------------------------------------------------------
    /// Initializes an event of [`NOTIFICATION_EVENT`] or [`SYNCHRONIZATION_EVENT`] type.
    pub fn KeInitializeEvent(event: *mut KEVENT, event_type: i32, state: u8);
    /// Signals an event. IRQL <= DISPATCH when `wait` is zero.
    pub fn KeSetEvent(event: *mut KEVENT, increment: i32, wait: u8) -> i32;
    /// Makes an event not signaled. IRQL <= DISPATCH.
    pub fn KeClearEvent(event: *mut KEVENT);
    /// Makes an event not signaled and returns its previous state. IRQL <= DISPATCH.
    pub fn KeResetEvent(event: *mut KEVENT) -> i32;
    /// Tells whether an event is signaled. IRQL <= DISPATCH.
    pub fn KeReadStateEvent(event: *mut KEVENT) -> i32;
    /// Waits for an event, timer or thread. A null `timeout` waits for ever, a negative one is relative in
    /// 100 ns units, zero polls. IRQL <= APC (<= DISPATCH with a zero timeout).
    pub fn KeWaitForSingleObject(
        object: *mut c_void,
        wait_reason: i32,
        wait_mode: i8,
        alertable: u8,
        timeout: *mut i64,
    ) -> NTSTATUS;
    /// Puts the thread to sleep; `interval` as in [`KeWaitForSingleObject`]. IRQL <= APC.
    pub fn KeDelayExecutionThread(wait_mode: i8, alertable: u8, interval: *mut i64) -> NTSTATUS;

    // Spin locks and IRQL -----------------------------------------------------------------------------------
    /// Takes a spin lock and raises to DISPATCH; returns the former IRQL. IRQL <= DISPATCH.
    pub fn KeAcquireSpinLockRaiseToDpc(lock: *mut KSPIN_LOCK) -> KIRQL;
    /// Releases a spin lock and returns to `irql`. IRQL = DISPATCH.
    pub fn KeReleaseSpinLock(lock: *mut KSPIN_LOCK, irql: KIRQL);
    /// Takes a spin lock when already at DISPATCH.
    pub fn KeAcquireSpinLockAtDpcLevel(lock: *mut KSPIN_LOCK);
    /// Releases a spin lock of [`KeAcquireSpinLockAtDpcLevel`].
    pub fn KeReleaseSpinLockFromDpcLevel(lock: *mut KSPIN_LOCK);
    /// Raises the IRQL; returns the former one.
    pub fn KfRaiseIrql(irql: KIRQL) -> KIRQL;
    /// Lowers the IRQL to a value that [`KfRaiseIrql`] returned.
    pub fn KeLowerIrql(irql: KIRQL);

    // Deferred procedure calls and timers -------------------------------------------------------------------
    /// Initializes a DPC.
    pub fn KeInitializeDpc(dpc: *mut KDPC, routine: Option<KDEFERRED_ROUTINE>, context: *mut c_void);
    /// Queues a DPC; zero if it was queued already.
    pub fn KeInsertQueueDpc(dpc: *mut KDPC, argument1: *mut c_void, argument2: *mut c_void) -> u8;
    /// Takes a DPC out of its queue; non-zero if it was there.
    pub fn KeRemoveQueueDpc(dpc: *mut KDPC) -> u8;
    /// Waits until every DPC that was queued before has run. IRQL = PASSIVE.
    pub fn KeFlushQueuedDpcs();
    /// Initializes a notification timer.
    pub fn KeInitializeTimer(timer: *mut KTIMER);
    /// Sets a timer; a negative `due_time` is relative in 100 ns units. Non-zero if it was set already. IRQL
    /// <= DISPATCH.
    pub fn KeSetTimer(timer: *mut KTIMER, due_time: i64, dpc: *mut KDPC) -> u8;
    /// Takes a timer back; non-zero if it had not expired. IRQL <= DISPATCH.
    pub fn KeCancelTimer(timer: *mut KTIMER) -> u8;

    // Work items and threads --------------------------------------------------------------------------------
    /// Queues a work item of the caller's own storage. IRQL <= DISPATCH.
    pub fn ExQueueWorkItem(item: *mut WORK_QUEUE_ITEM, queue: i32);
    /// Allocates a work item bound to a device object; null when memory is out. IRQL <= DISPATCH.
    pub fn IoAllocateWorkItem(device: *mut DEVICE_OBJECT) -> PIO_WORKITEM;
    /// Queues a work item of [`IoAllocateWorkItem`]. IRQL <= DISPATCH.
    pub fn IoQueueWorkItem(
        item: PIO_WORKITEM,
        routine: Option<IO_WORKITEM_ROUTINE>,
        queue: i32,
        context: *mut c_void,
    );
    /// Frees a work item that is not queued. IRQL <= DISPATCH.
    pub fn IoFreeWorkItem(item: PIO_WORKITEM);
    /// Creates a system thread. IRQL = PASSIVE.
    pub fn PsCreateSystemThread(
        thread: *mut HANDLE,
        desired_access: u32,
        object_attributes: *mut c_void,
        process: HANDLE,
        client_id: *mut c_void,
        start_routine: Option<KSTART_ROUTINE>,
        start_context: *mut c_void,
    ) -> NTSTATUS;
    /// Ends the calling system thread. On Windows it does not return; a start routine that returns ends its
    /// thread too, which is the form this project uses. IRQL = PASSIVE.
    pub fn PsTerminateSystemThread(status: NTSTATUS) -> NTSTATUS;
    /// Takes a reference on the object behind a handle. IRQL = PASSIVE.
    pub fn ObReferenceObjectByHandle(
        handle: HANDLE,
        desired_access: u32,
        object_type: *mut c_void,
        access_mode: i8,
        object: *mut *mut c_void,
        handle_information: *mut c_void,
    ) -> NTSTATUS;
    /// Takes a reference on an object that the caller knows to be there (`ObReferenceObject`). IRQL <=
    /// DISPATCH.
    pub fn ObfReferenceObject(object: *mut c_void) -> isize;
    /// Gives back a reference on an object (`ObDereferenceObject`). IRQL <= DISPATCH.
    pub fn ObfDereferenceObject(object: *mut c_void) -> isize;
    /// Closes a handle. IRQL = PASSIVE.
    pub fn ZwClose(handle: HANDLE) -> NTSTATUS;
    /// The process of the calling thread. IRQL <= DISPATCH.
    pub fn IoGetCurrentProcess() -> PEPROCESS;

    // Run-down protection -----------------------------------------------------------------------------------
    /// Initializes run-down protection. IRQL <= DISPATCH.
    pub fn ExInitializeRundownProtection(rundown: *mut EX_RUNDOWN_REF);
    /// Takes protection; zero once run-down has started. IRQL <= DISPATCH.
    pub fn ExAcquireRundownProtection(rundown: *mut EX_RUNDOWN_REF) -> u8;
    /// Gives protection back. IRQL <= DISPATCH.
    pub fn ExReleaseRundownProtection(rundown: *mut EX_RUNDOWN_REF);
    /// Starts run-down and waits for the holders. IRQL = PASSIVE.
    pub fn ExWaitForRundownProtectionRelease(rundown: *mut EX_RUNDOWN_REF);

    // Pool --------------------------------------------------------------------------------------------------
    /// Allocates pool with a tag; null when memory is out. The block is not zeroed. IRQL <= DISPATCH for
    /// non-paged pool.
    pub fn ExAllocatePoolWithTag(pool_type: i32, bytes: usize, tag: u32) -> *mut c_void;
    /// Frees pool. IRQL <= DISPATCH for non-paged pool.
    pub fn ExFreePoolWithTag(block: *mut c_void, tag: u32);
    /// Allocates zeroed pool with a tag (Windows 10 2004 and later); null when memory is out.
    pub fn ExAllocatePool2(flags: u64, bytes: usize, tag: u32) -> *mut c_void;
}
