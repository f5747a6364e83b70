//! Misuse of IRPs: forbidden operations on a pending IRP, and use of results that it does not have.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sim::raw::*;
use wsk_sim::{Completion, Severity, Sim};
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, NTSTATUS};
use wsk_sys::*;

use crate::life::{Stall, stalling, table};
use crate::link::Link;
use crate::support::*;

/// The completion routine of a driver in the middle that forgets the pending bit.
unsafe extern "system" fn forgetful(_: *mut DEVICE_OBJECT, _: *mut IRP, _: *mut c_void) -> NTSTATUS {
    STATUS_SUCCESS
}

/// The completion routine of a driver in the middle that does as wdm asks.
unsafe extern "system" fn careful(_: *mut DEVICE_OBJECT, irp: *mut IRP, _: *mut c_void) -> NTSTATUS {
    // SAFETY: a completion routine owns the IRP.
    if unsafe { nt::irp_pending_returned(irp) } {
        // SAFETY: a completion routine owns the IRP; the current location is this driver's.
        unsafe { nt::io_mark_irp_pending(irp) };
    }
    STATUS_SUCCESS
}

/// Receives with an IRP that a driver above has sent, as a driver in the middle with this routine.
fn receive_for_above(link: &Link, buffer: &Buffer, routine: nt::IO_COMPLETION_ROUTINE) -> Request {
    // SAFETY: the socket is a connection.
    let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) }.WskReceive.unwrap();
    let mut descriptor = buffer.wsk_buf();
    Request::with_stack(2).submit("WskReceive", |irp| {
        // The driver above sends its IRP down.
        // SAFETY: the IRP has two free locations.
        unsafe { nt::io_set_next_irp_stack_location(irp) };
        // SAFETY: the IRP has one more.
        unsafe { nt::io_set_completion_routine(irp, routine, ptr::null_mut()) };
        // SAFETY: the buffer outlives the request.
        unsafe { function(link.socket.raw(), &raw mut descriptor, 0, irp) }
    })
}

/// Catches: IRP-04
#[test]
fn a_routine_that_does_not_carry_the_pending_bit_up_is_caught() {
    let sim = Sim::new();
    sim.expect("IRP-04");
    sim.run(|sim| {
        let link = Link::new();
        let buffer = Buffer::new(4);
        let receive = receive_for_above(&link, &buffer, careful).pends();
        link.peer.send(b"good");
        assert!(receive.ok().pending_returned);
        assert!(sim.violations_of("IRP-04").is_empty());
        let receive = receive_for_above(&link, &buffer, forgetful).pends();
        link.peer.send(b"bad.");
        // The driver above sees an inline completion, which is wrong.
        let done = receive.wait_up_to(BOUND).expect("the request completes");
        assert!(!done.pending_returned && done.returned == STATUS_PENDING);
        assert_eq!(sim.violations_of("IRP-04").len(), 1);
        // What completes inline has no bit to carry.
        sim.provider().configure(|config| config.completion = Completion::Inline);
        link.peer.send(b"more");
        eventually("data waits", || {
            let query = Control::ioctl(SIO_WSK_QUERY_RECEIVE_BACKLOG, None, Some(size_of::<usize>()));
            read_control(&link.socket, &query) != 0_usize.to_ne_bytes()
        });
        assert_eq!(receive_for_above(&link, &buffer, forgetful).returned(), STATUS_SUCCESS);
        assert_eq!(sim.violations_of("IRP-04").len(), 1);
    });
}

/// Catches: IRP-10
#[test]
fn writing_to_a_pending_irp_is_caught() {
    let sim = Sim::new();
    sim.expect("IRP-10");
    sim.run(|sim| {
        let link = Link::new();
        let receive = link.socket.receive(&Buffer::new(1)).pends();
        // SAFETY: the IRP is alive; the test writes it while it is pending on purpose.
        unsafe { nt::set_irp_status(receive.irp(), STATUS_SUCCESS) };
        link.peer.send(b"x");
        receive.ok();
        assert_eq!(sim.violations_of("IRP-10").len(), 1);
    });
}

/// The completion routine of an IRP whose context is gone.
unsafe extern "system" fn contextless(_: *mut DEVICE_OBJECT, _: *mut IRP, _: *mut c_void) -> NTSTATUS {
    STATUS_MORE_PROCESSING_REQUIRED
}

/// Catches: IRP-10
#[test]
fn freeing_the_context_of_a_pending_irp_is_caught() {
    let sim = Sim::new();
    sim.expect("IRP-10");
    sim.run(|sim| {
        let link = Link::new();
        // SAFETY: the socket is a connection.
        let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) }.WskReceive.unwrap();
        let (buffer, context) = (Buffer::new(1), PoolBox::new([0_u64; 4]));
        let mut descriptor = buffer.wsk_buf();
        // SAFETY: the level is passive.
        let irp = unsafe { nt::IoAllocateIrp(1, 0) };
        // SAFETY: the IRP is new, and the routine does not look at its context.
        unsafe { nt::io_set_completion_routine(irp, contextless, context.as_ptr().cast()) };
        // SAFETY: the buffer outlives the request.
        let returned = unsafe { function(link.socket.raw(), &raw mut descriptor, 0, irp) };
        assert_eq!(returned, STATUS_PENDING);
        drop(context);
        assert_caught(sim, "IRP-10", "ExFreePoolWithTag");
        // The close ends the request.
        link.socket.close().ok();
        // SAFETY: the IRP has completed, and its routine has kept it.
        unsafe { nt::IoFreeIrp(irp) };
    });
}

/// Binds a pointer that was taken for a listening socket.
fn bind_as_listener(socket: usize) -> Request {
    let address = CAddress::new(LOCALHOST);
    let client = Client::new();
    let listener = client.listener(&Recorder::new());
    // SAFETY: the socket is a listener.
    let function = unsafe { table::<WSK_PROVIDER_LISTEN_DISPATCH>(&listener) }.WskBind.unwrap();
    Request::new().submit("WskBind", |irp| {
        // SAFETY: the provider recognizes pointers that are no sockets.
        unsafe { function(socket as PWSK_SOCKET, address.as_ptr(), 0, irp) }
    })
}

/// Catches: IRP-12
#[test]
fn taking_the_returned_status_for_the_outcome_is_caught() {
    let sim = stalling("IRP-12");
    sim.run(|sim| {
        let client = Client::new();
        let stall = Stall::new(&client);
        let open = client.open(&SocketOptions::new(Category::Listen));
        // `STATUS_PENDING` satisfies `NT_SUCCESS`: this client believes that it has its socket.
        assert!(nt_success(open.returned()));
        // SAFETY: the IRP is alive; the test reads it while it is pending on purpose.
        let socket = unsafe { nt::irp_information(open.irp()) };
        // SAFETY: the decoy has the head of a socket.
        let table = unsafe { (*(socket as PWSK_SOCKET)).Dispatch };
        // SAFETY: its table is the one of the category.
        let function = unsafe { (*table.cast::<WSK_PROVIDER_LISTEN_DISPATCH>()).WskBind }.unwrap();
        let address = CAddress::new(LOCALHOST);
        let bind = Request::new().submit("WskBind", |irp| {
            // SAFETY: the provider recognizes pointers that are no sockets.
            unsafe { function(socket as PWSK_SOCKET, address.as_ptr(), 0, irp) }
        });
        assert_eq!(bind.returned(), STATUS_INVALID_HANDLE);
        assert_caught(sim, "IRP-12", "WskBind");
        stall.end();
        open.socket().close().ok();
    });
}

/// Catches: IRP-23
#[test]
fn the_information_of_a_failed_request_used_as_a_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("IRP-23");
    sim.run(|sim| {
        let client = Client::new();
        let options = SocketOptions { family: 99, ..SocketOptions::new(Category::Listen) };
        let failed = client.open(&options).wait();
        assert!(!nt_success(failed.status));
        assert_eq!(bind_as_listener(failed.information).returned(), STATUS_INVALID_HANDLE);
        assert_caught(sim, "IRP-23", "WskBind");
    });
}

unsafe extern "system" fn own_cancel(_: *mut DEVICE_OBJECT, _: *mut IRP) {
    unreachable!("the provider has taken it away");
}

/// Writes words into an IRP.
fn write(irp: *mut IRP, offset: usize, words: &[usize]) {
    for (index, word) in words.iter().enumerate() {
        let field = irp.wrapping_byte_add(offset + index * size_of::<usize>()).cast::<usize>();
        // SAFETY: the IRP is the test's, and the field inside of it.
        unsafe { field.write_unaligned(*word) };
    }
}

/// Fields that a driver is known to set in an IRP, or has left there.
type Setting = (&'static str, fn(*mut IRP));

/// Hands over an IRP that `set` has changed, and returns how that was reported under IRP-05.
fn hand_over_changed(completion: Completion, (name, set): Setting) -> Severity {
    let sim = Sim::builder().completion(completion).build();
    let machine = sim.clone();
    sim.expect("IRP-05").run(move |_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        let address = CAddress::new(LOCALHOST);
        // SAFETY: the socket is a listener.
        let function = unsafe { table::<WSK_PROVIDER_LISTEN_DISPATCH>(&listener) }.WskBind.unwrap();
        let bind = Request::new().submit("WskBind", |irp| {
            set(irp);
            // SAFETY: the address is kept until the request has completed.
            unsafe { function(listener.raw(), address.as_ptr(), 0, irp) }
        });
        bind.ok();
    });
    let [said] = &machine.violations_of("IRP-05")[..] else { panic!("{name}: {machine:?}") };
    assert!(said.call == "WskBind" && said.detail.contains(name), "{said}");
    said.severity
}

/// Catches: IRP-05
#[test]
fn a_field_of_an_irp_that_is_not_the_clients_is_caught() {
    let fields: [Setting; 10] = [
        ("CancelRoutine", |irp| {
            // SAFETY: the IRP is the test's.
            let former = unsafe { nt::io_set_cancel_routine(irp, Some(own_cancel)) };
            assert!(former.is_none());
        }),
        // SAFETY: the IRP is the test's.
        ("Tail.Overlay.Thread", |irp| unsafe { nt::set_irp_thread(irp, 1) }),
        ("UserEvent", |irp| write(irp, 0x50, &[8])),
        ("UserIosb", |irp| write(irp, 0x48, &[8])),
        ("UserBuffer", |irp| write(irp, 0x70, &[8])),
        ("AssociatedIrp", |irp| write(irp, 0x18, &[8])),
        ("Overlay", |irp| write(irp, 0x58, &[0, 8])),
        ("Flags", |irp| write(irp, 0x10, &[8])),
        ("AuxiliaryBuffer", |irp| write(irp, 0xA0, &[8])),
        ("OriginalFileObject", |irp| write(irp, 0xC0, &[8])),
    ];
    for field in fields {
        for completion in [Completion::Inline, Completion::PendLate] {
            assert_eq!(hand_over_changed(completion, field), Severity::Violation, "{}", field.0);
        }
    }
}

/// Values that work on Windows, because WSK overwrites them, or does not look.
///
/// Catches: IRP-05
#[test]
fn a_field_of_an_irp_that_wsk_does_not_mind_is_advised_against() {
    let fields: [Setting; 5] = [
        ("MdlAddress", |irp| write(irp, 0x08, &[16])),
        ("DriverContext", |irp| write(irp, 0x78, &[0, 0, 0, 8])),
        // As a list leaves it that the IRP was taken out of.
        ("ListEntry", |irp| write(irp, 0xA8, &[16, 16])),
        // SAFETY: the IRP is the test's.
        ("Cancel", |irp| unsafe { nt::irp_cancel(irp) }.store(1, Ordering::SeqCst)),
        ("Parameters", |irp| {
            // SAFETY: the IRP is the test's, and has a free location.
            let next = unsafe { nt::io_get_next_irp_stack_location(irp) };
            write(next.cast(), 8, &[8]);
        }),
    ];
    for field in fields {
        let completion = if field.0 == "Cancel" { Completion::Inline } else { Completion::PendLate };
        assert_eq!(hand_over_changed(completion, field), Severity::Advice, "{}", field.0);
    }
}

/// An IRP in a list of the driver: WSK inserts it into its own list.
///
/// Catches: IRP-05
#[test]
fn an_irp_that_is_in_a_list_is_caught() {
    let listed = |irp: *mut IRP| {
        let entry = irp.wrapping_byte_add(0xA8);
        write(irp, 0xA8, &[entry.expose_provenance(); 2]);
    };
    assert_eq!(hand_over_changed(Completion::PendLate, ("in a list", listed)), Severity::Violation);
    // The only one in a list whose head is static.
    let first = |irp: *mut IRP| {
        static HEAD: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
        let entry = irp.wrapping_byte_add(0xA8).expose_provenance();
        for link in &HEAD {
            link.store(entry, Ordering::SeqCst);
        }
        write(irp, 0xA8, &[HEAD.as_ptr().expose_provenance(); 2]);
    };
    assert_eq!(hand_over_changed(Completion::PendLate, ("in a list", first)), Severity::Violation);
}

/// Catches: IRP-05
#[test]
fn a_cancel_routine_on_an_irp_from_above_is_caught() {
    let sim = Sim::new();
    sim.expect("IRP-05").run(|sim| {
        let link = Link::new();
        let buffer = Buffer::new(4);
        // SAFETY: the socket is a connection.
        let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) }.WskReceive.unwrap();
        let mut descriptor = buffer.wsk_buf();
        let receive = Request::with_stack(2).submit("WskReceive", |irp| {
            // Fields of the I/O manager are not checked.
            write(irp, 0x50, &[8]);
            // SAFETY: the IRP has two free locations.
            unsafe { nt::io_set_next_irp_stack_location(irp) };
            // SAFETY: the IRP has one more.
            unsafe { nt::io_set_completion_routine(irp, careful, ptr::null_mut()) };
            // SAFETY: the driver in the middle has the IRP.
            unsafe { nt::io_set_cancel_routine(irp, Some(own_cancel)) };
            // SAFETY: the buffer outlives the request.
            unsafe { function(link.socket.raw(), &raw mut descriptor, 0, irp) }
        });
        link.peer.send(b"good");
        receive.ok();
        let [said] = &sim.violations_of("IRP-05")[..] else { panic!("{sim:?}") };
        assert!(said.detail.contains("CancelRoutine"), "{said}");
    });
}
