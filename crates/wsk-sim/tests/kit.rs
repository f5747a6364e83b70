//! Tests of the raw kit itself, on the kernel alone: its requests and buffers.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, NTSTATUS};
use wsk_sys::*;

/// A lower driver that gets an IRP.
fn receive(irp: *mut IRP) {
    // SAFETY: the kit hands an IRP down that has a free location.
    unsafe { nt::io_set_next_irp_stack_location(irp) };
}

/// Completes the IRP, as the lower driver.
fn complete(irp: *mut IRP, status: NTSTATUS, information: usize) {
    // SAFETY: the driver below owns the IRP.
    unsafe { nt::set_irp_status(irp, status) };
    // SAFETY: the IRP is the test's own and has been submitted.
    unsafe { nt::set_irp_information(irp, information) };
    // SAFETY: the IRP is the test's own and has been submitted.
    unsafe { nt::IofCompleteRequest(irp, 0) };
}

/// An IRP on its way to another thread.
struct Moved(*mut IRP);

// SAFETY: an IRP has no thread affinity.
unsafe impl Send for Moved {}

impl Moved {
    fn irp(&self) -> *mut IRP {
        self.0
    }
}

#[test]
fn an_inline_completion_is_told_as_such() {
    Sim::new().run(|_| {
        let request = Request::new().submit("call", |irp| {
            receive(irp);
            complete(irp, STATUS_CONNECTION_REFUSED, 7);
            STATUS_CONNECTION_REFUSED
        });
        let done = request.fails(STATUS_CONNECTION_REFUSED);
        assert_eq!((done.returned, done.information, done.runs), (STATUS_CONNECTION_REFUSED, 7, 1));
        assert!(done.inline() && done.before_return && done.same_thread && done.device_is_null);
        assert_eq!(done.irql, nt::PASSIVE_LEVEL);
    });
}

#[test]
fn a_pended_completion_by_another_thread_is_told_as_such() {
    Sim::new().run(|sim| {
        let mut handed = None;
        let request = Request::new().submit("call", |irp| {
            receive(irp);
            // SAFETY: the driver below owns the IRP.
            unsafe { nt::io_mark_irp_pending(irp) };
            handed = Some(Moved(irp));
            STATUS_PENDING
        });
        let request = request.pends();
        let handed = handed.expect("the call was made");
        let other = sim.thread("driver", move || {
            // SAFETY: the IRQL of this thread is PASSIVE, and returns to that.
            let former = unsafe { nt::KfRaiseIrql(nt::DISPATCH_LEVEL) };
            complete(handed.irp(), STATUS_SUCCESS, 3);
            // SAFETY: the thread is in a kernel, and `former` is its IRQL before.
            unsafe { nt::KeLowerIrql(former) };
        });
        let done = request.ok();
        assert_eq!((done.returned, done.information), (STATUS_PENDING, 3));
        assert!(!done.inline() && !done.before_return && !done.same_thread);
        assert_eq!(done.irql, nt::DISPATCH_LEVEL);
        other.join().expect("the thread ends well");
    });
}

unsafe extern "system" fn cancel(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // SAFETY: the kernel passes a live IRP.
    let irql = unsafe { nt::irp_cancel_irql(irp) };
    // SAFETY: a cancel routine holds the cancel lock and releases it.
    unsafe { nt::IoReleaseCancelSpinLock(irql) };
    complete(irp, STATUS_CANCELLED, 0);
}

fn pend_until_cancelled() -> Request {
    let request = Request::new().submit("call", |irp| {
        receive(irp);
        // SAFETY: the driver below owns the IRP.
        unsafe { nt::io_mark_irp_pending(irp) };
        // SAFETY: the IRP is the test's own and alive.
        unsafe { nt::io_set_cancel_routine(irp, Some(cancel)) };
        STATUS_PENDING
    });
    request.pends()
}

#[test]
fn a_request_can_be_cancelled_and_used_again() {
    Sim::new().run(|_| {
        let request = pend_until_cancelled();
        assert!(request.cancel());
        request.fails(STATUS_CANCELLED);
        let request = request.reuse().submit("call", |irp| {
            receive(irp);
            complete(irp, STATUS_SUCCESS, 0);
            STATUS_SUCCESS
        });
        request.ok();
    });
}

#[test]
fn a_request_that_is_dropped_while_pending_is_cancelled() {
    Sim::new().run(|_| drop(pend_until_cancelled()));
}

#[test]
fn a_call_that_does_not_complete_its_irp_leaves_nothing_behind() {
    Sim::new().run(|_| {
        let request = Request::new().submit("call", |_| STATUS_INVALID_HANDLE);
        assert!(!request.is_completed());
        assert_eq!(request.returned(), STATUS_INVALID_HANDLE);
    });
}

#[test]
fn a_hook_runs_inside_the_completion_routine() {
    Sim::new().run(|_| {
        let seen = Arc::new(AtomicUsize::new(0));
        let hook_seen = Arc::clone(&seen);
        let request = Request::new().hook(move |status, information| {
            assert_eq!(status, STATUS_SUCCESS);
            hook_seen.store(information, Ordering::Relaxed);
        });
        let request = request.submit("call", |irp| {
            receive(irp);
            complete(irp, STATUS_SUCCESS, 42);
            STATUS_SUCCESS
        });
        request.ok();
        assert_eq!(seen.load(Ordering::Relaxed), 42);
    });
}

#[test]
fn a_wrong_answer_of_the_completion_routine_is_reported() {
    let sim = Sim::new();
    sim.expect("IRP-03");
    sim.run(|_| {
        let request = Request::new().returning(STATUS_SUCCESS).submit("call", |irp| {
            receive(irp);
            complete(irp, STATUS_SUCCESS, 0);
            STATUS_SUCCESS
        });
        request.ok();
    });
}

#[test]
fn buffers_are_read_and_written_through_their_chain() {
    Sim::new().run(|_| {
        let chain = Buffer::chain(&[3, 0, 5, 2]);
        assert_eq!(chain.len(), 10);
        chain.write(b"0123456789");
        assert_eq!(chain.read(), b"0123456789");
        let part = chain.slice(2, 6);
        assert_eq!(part.read(), b"234567");
        assert_eq!(part.read_first(2), b"23");
        part.write(b"ab");
        assert_eq!(chain.read(), b"01ab456789");
        let descriptor = part.wsk_buf();
        assert_eq!((descriptor.Offset, descriptor.Length), (2, 6));
        // SAFETY: the chain is alive.
        assert_eq!(unsafe { gather(&descriptor) }, b"ab4567");
    });
}

#[test]
fn lists_of_buffers_are_linked() {
    Sim::new().run(|_| {
        let list = BufferList::new(&[Buffer::of(b"one"), Buffer::of(b"three")]);
        assert_eq!(list.total(), 8);
        // SAFETY: the list is alive.
        let first = unsafe { &*list.head() };
        // SAFETY: the list is alive.
        let second = unsafe { &*first.Next };
        assert_eq!((first.Buffer.Length, second.Buffer.Length), (3, 5));
        assert!(second.Next.is_null());
    });
}

#[test]
fn addresses_survive_the_way_to_c_and_back() {
    Sim::new().run(|_| {
        let addresses: [SocketAddr; 3] = [
            "192.0.2.7:65535".parse().expect("an address"),
            LOCALHOST_V6,
            SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 2, 3).into(),
        ];
        for address in addresses {
            assert_eq!(CAddress::new(address).get(), Some(address));
        }
        assert_eq!(CAddress::empty().get(), None);
    });
}
