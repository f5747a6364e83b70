//! IRPs in storage of the client's own: where one may lie (contract 4.1).

use std::ffi::c_void;
use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, MEMORY_ALLOCATION_ALIGNMENT, NTSTATUS};
use wsk_sys::*;

use crate::life::table;
use crate::support::*;

const TAG: u32 = u32::from_le_bytes(*b"Test");

unsafe extern "system" fn signal(_: *mut DEVICE_OBJECT, _: *mut IRP, event: *mut c_void) -> NTSTATUS {
    // SAFETY: the context is the test's event, which outlives the request.
    unsafe { nt::KeSetEvent(event.cast(), 0, 0) };
    STATUS_MORE_PROCESSING_REQUIRED
}

/// Binds a socket with an IRP that lies `offset` bytes behind the start of a block of pool.
fn bind_with_irp_at(offset: usize) {
    let client = Client::new();
    let socket = client.connection(&Recorder::new());
    let size = nt::io_size_of_irp(1);
    let bytes = offset + usize::from(size) + size_of::<nt::KEVENT>();
    // SAFETY: nothing is required of the arguments.
    let block = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, bytes, TAG) };
    let event = block.wrapping_byte_add(bytes - size_of::<nt::KEVENT>()).cast::<nt::KEVENT>();
    // SAFETY: the storage is new and long enough.
    unsafe { nt::KeInitializeEvent(event, nt::NOTIFICATION_EVENT, 0) };
    let irp = block.wrapping_byte_add(offset).cast::<IRP>();
    // SAFETY: as above.
    unsafe { nt::IoInitializeIrp(irp, size, 1) };
    // SAFETY: the IRP has a free location, and the event stays until it is signalled.
    unsafe { nt::io_set_completion_routine(irp, signal, event.cast()) };
    // SAFETY: the socket is a connection.
    let bind = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&socket) }.WskBind.unwrap();
    let address = CAddress::new("127.0.0.1:0".parse().unwrap());
    // SAFETY: the socket is open, and the address is there until the request has completed.
    let _ = unsafe { bind(socket.raw(), address.as_ptr(), 0, irp) };
    // SAFETY: the event is alive, and the test may wait.
    unsafe { nt::KeWaitForSingleObject(event.cast(), nt::EXECUTIVE, nt::KERNEL_MODE, 0, ptr::null_mut()) };
    // SAFETY: the request has completed.
    unsafe { nt::ExFreePoolWithTag(block, TAG) };
}

#[test]
fn an_irp_in_aligned_storage_is_as_good_as_an_allocated_one() {
    for_each_mode(|_| bind_with_irp_at(MEMORY_ALLOCATION_ALIGNMENT));
}

/// Catches: IRP-28
#[test]
fn an_irp_off_its_alignment_is_caught_by_the_call_it_is_given_to() {
    let sim = Sim::new();
    sim.expect("IRP-28").run(|sim| {
        bind_with_irp_at(MEMORY_ALLOCATION_ALIGNMENT / 2);
        let calls: Vec<_> = sim.violations_of("IRP-28").into_iter().map(|found| found.call).collect();
        for call in ["IoInitializeIrp", "WskBind", "IofCompleteRequest"] {
            assert!(calls.iter().any(|at| at == call), "{call}: {calls:?}");
        }
    });
}
