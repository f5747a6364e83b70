//! Alignment of IRPs in the client's own storage (contract 4.1).

use std::ffi::c_void;
use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, MEMORY_ALLOCATION_ALIGNMENT, NTSTATUS};
use wsk_sys::*;

use crate::life::table;
use crate::link::Link;
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
    // SAFETY: the storage is new and long enough.
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

/// A value that lies one byte off a place of its alignment, in pool: the headers let no compiler put it
/// there, but a driver may.
struct Misaligned<T>(*mut c_void, std::marker::PhantomData<T>);

// SAFETY: it is accessed only through its pointer, by the test and by the callees that get it.
unsafe impl<T> Send for Misaligned<T> {}

impl<T> Misaligned<T> {
    fn new(value: T) -> Self {
        // SAFETY: nothing is required of the arguments.
        let block = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, size_of::<T>() + 1, TAG) };
        let own = Self(block, std::marker::PhantomData);
        // SAFETY: the block has room for the value at that place, and is new.
        unsafe { own.as_ptr().write_unaligned(value) };
        own
    }

    fn as_ptr(&self) -> *mut T {
        self.0.wrapping_byte_add(1).cast()
    }
}

impl<T> Drop for Misaligned<T> {
    fn drop(&mut self) {
        // SAFETY: the block is the test's, whose requests have completed.
        unsafe { nt::ExFreePoolWithTag(self.0, TAG) };
    }
}

/// An unaligned descriptor is read like any other: neither the processor nor Windows requires alignment.
#[test]
fn a_descriptor_of_a_buffer_may_lie_anywhere() {
    for_each_mode(|_| {
        let link = Link::new();
        // SAFETY: the socket is a connection.
        let calls = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) };
        let (send, receive) = (calls.WskSend.unwrap(), calls.WskReceive.unwrap());
        let sent = Buffer::of(b"sent");
        let place = Misaligned::new(sent.wsk_buf());
        Request::new()
            // SAFETY: the socket is open, descriptor and buffer are there until the request has completed; so
            // below.
            .submit("WskSend", |irp| unsafe { send(link.socket.raw(), place.as_ptr(), 0, irp) })
            .ok();
        assert_eq!(link.peer.receive(4), b"sent");
        link.peer.send(b"back");
        let received = Buffer::new(4);
        let place = Misaligned::new(received.wsk_buf());
        Request::new()
            // SAFETY: see above.
            .submit("WskReceive", |irp| unsafe { receive(link.socket.raw(), place.as_ptr(), 0, irp) })
            .ok();
        assert_eq!(received.read(), b"back");
        let disconnect = calls.WskDisconnect.unwrap();
        let last = Buffer::of(b"last");
        let place = Misaligned::new(last.wsk_buf());
        Request::new()
            // SAFETY: see above.
            .submit("WskDisconnect", |irp| unsafe { disconnect(link.socket.raw(), place.as_ptr(), 0, irp) })
            .ok();
        assert_eq!(link.peer.receive(4), b"last");
    });
}

/// Catches: DISC-23
#[test]
fn a_descriptor_off_its_alignment_is_looked_at_by_an_abortive_disconnect() {
    let sim = Sim::new();
    sim.expect("DISC-23").run(|sim| {
        let link = Link::new();
        // SAFETY: the socket is a connection.
        let calls = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) };
        let disconnect = calls.WskDisconnect.unwrap();
        let last = Buffer::of(b"last");
        let place = Misaligned::new(last.wsk_buf());
        Request::new()
            // SAFETY: the socket is open, descriptor and buffer are there until the request has completed.
            .submit("WskDisconnect", |irp| unsafe {
                disconnect(link.socket.raw(), place.as_ptr(), WSK_FLAG_ABORTIVE, irp)
            })
            .fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "DISC-23", "WskDisconnect");
    });
}

#[test]
fn the_nodes_of_a_list_may_lie_anywhere() {
    for_each_mode(|_| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        socket.bind_localhost();
        let (host, address) = host_datagram();
        // SAFETY: the socket is one for datagrams.
        let send = unsafe { table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(&socket) }.WskSendMessages.unwrap();
        let (one, two) = (Buffer::of(b"one"), Buffer::of(b"two"));
        let second = Misaligned::new(WSK_BUF_LIST { Next: ptr::null_mut(), Buffer: two.wsk_buf() });
        let first = Misaligned::new(WSK_BUF_LIST { Next: second.as_ptr(), Buffer: one.wsk_buf() });
        let remote = CAddress::new(address);
        Request::new()
            // SAFETY: the socket is open, and list, buffers and address are there until the request has
            // completed.
            .submit("WskSendMessages", |irp| unsafe {
                send(socket.raw(), first.as_ptr(), 0, remote.as_ptr(), 0, ptr::null_mut(), irp)
            })
            .ok();
        for sent in [b"one", b"two"] {
            let mut bytes = [0; 8];
            let (length, _) = host.recv_from(&mut bytes).expect("a datagram");
            assert_eq!(&bytes[..length], sent);
        }
    });
}
