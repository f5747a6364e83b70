//! Compile-time check that every function that [`wsk_sys::nt`] declares is defined here with the same
//! signature: two functions are elements of one array only if their types agree.

use wsk_sys::nt;

macro_rules! defined {
    ($($module:ident: $($function:ident),+;)+) => {
        const _: () = {
            $($(let _ = [nt::$function, crate::$module::$function];)+)+
        };
    };
}

defined! {
    cancel: IoCancelIrp, IoAcquireCancelSpinLock, IoReleaseCancelSpinLock;
    dispatcher: KeInitializeEvent, KeSetEvent, KeClearEvent, KeResetEvent, KeReadStateEvent,
        KeWaitForSingleObject, KeDelayExecutionThread;
    dpc: KeInitializeDpc, KeInsertQueueDpc, KeRemoveQueueDpc, KeFlushQueuedDpcs;
     image: IoSetCompletionRoutineEx, ObfReferenceObject;
    irp: IoAllocateIrp, IoFreeIrp, IoInitializeIrp, IoReuseIrp, IofCompleteRequest;
    irql: KeGetCurrentIrql, KfRaiseIrql, KeLowerIrql;
    mdl: IoAllocateMdl, IoFreeMdl, MmBuildMdlForNonPagedPool, MmMapLockedPagesSpecifyCache;
    pool: ExAllocatePoolWithTag, ExFreePoolWithTag, ExAllocatePool2;
    rundown: ExInitializeRundownProtection, ExAcquireRundownProtection, ExReleaseRundownProtection,
        ExWaitForRundownProtectionRelease;
    statics: NtUserImageWords;
    spinlock: KeAcquireSpinLockRaiseToDpc, KeReleaseSpinLock, KeAcquireSpinLockAtDpcLevel,
        KeReleaseSpinLockFromDpcLevel;
    thread: PsCreateSystemThread, PsTerminateSystemThread, ObReferenceObjectByHandle,
        ObfDereferenceObject, ZwClose, IoGetCurrentProcess;
    time: KeQueryInterruptTime, KeQuerySystemTime;
    timer: KeInitializeTimer, KeSetTimer, KeCancelTimer;
    work: ExQueueWorkItem, IoAllocateWorkItem, IoQueueWorkItem, IoFreeWorkItem;
}
