//! Registration and capture: allowed repetitions, and forbidden calls (contract 4.5).

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};
use wsk_sys::nt::{
    EXECUTIVE, KERNEL_MODE, KEVENT, KeInitializeEvent, KeWaitForSingleObject, NOTIFICATION_EVENT,
};
use wsk_sys::*;

use crate::support::*;

const VERSION: u16 = MAKE_WSK_VERSION(1, 0);

/// Shows: REG-01, REG-06, REG-11, LIFE-02, LIFE-04
#[test]
fn registrations_and_captures_are_independent_and_as_many_as_one_likes() {
    for_each_mode(|_| {
        let clients: Vec<_> = (0..4).map(|_| Client::registered(VERSION).unwrap()).collect();
        for client in &clients {
            for _ in 0..3 {
                client.capture(WSK_NO_WAIT).unwrap();
            }
            // The block that `WskRegister` was given is gone; the copy of the NPI is used.
            let npi = client.npi();
            assert!(!npi.Client.is_null() && !npi.Dispatch.is_null());
            client.release();
            client.release();
            let (listener, address) = client.bound_listener(&Recorder::new());
            let _peer = Peer::connect(address);
            drop(listener.accept().socket());
            listener.close().ok();
            client.release();
        }
        for client in clients {
            client.deregister();
        }
    });
}

/// The provider does not read the NPI block after `WskRegister` has returned.
///
/// Shows: LIFE-02
#[test]
fn the_npi_of_a_client_may_be_overwritten_and_freed_once_it_is_registered() {
    let late = Sim::builder().late().build();
    for sim in [Sim::new(), late] {
        sim.run(|sim| {
            let dispatch =
                PoolBox::new(WSK_CLIENT_DISPATCH { Version: VERSION, Reserved: 0, WskClientEvent: None });
            let registration = PoolBox::new(UnsafeCell::new(WSK_REGISTRATION::zeroed()));
            let npi =
                PoolBox::new(WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: dispatch.as_ptr() });
            // SAFETY: table and block live until the deregistration below has returned.
            assert_eq!(unsafe { WskRegister(npi.as_ptr(), registration.get()) }, STATUS_SUCCESS);
            // SAFETY: the block is this test's, and any bytes may be written there.
            unsafe { npi.as_ptr().cast::<u8>().write_bytes(0xDD, size_of::<WSK_CLIENT_NPI>()) };
            drop(npi);
            sim.provider().arrive();
            for _ in 0..2 {
                let mut found = WSK_PROVIDER_NPI { Client: ptr::null_mut(), Dispatch: ptr::null() };
                // SAFETY: the block is registered, and there is a place for the result.
                let status = unsafe { WskCaptureProviderNPI(registration.get(), 10_000, &raw mut found) };
                assert_eq!(status, STATUS_SUCCESS);
                // SAFETY: the table of a captured provider is constant.
                assert_eq!(unsafe { (*found.Dispatch).Version }, VERSION);
                // SAFETY: it was captured.
                unsafe { WskReleaseProviderNPI(registration.get()) };
            }
            // SAFETY: it was registered, and nothing is captured.
            unsafe { WskDeregister(registration.get()) };
        });
    }
}

/// Shows: REG-16
#[test]
fn after_nointerface_another_version_can_be_registered() {
    Sim::new().run(|_| {
        let client = Client::registered(MAKE_WSK_VERSION(3, 0)).unwrap();
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_NOINTERFACE));
        let found = client.query().unwrap();
        client.deregister();
        let client = Client::registered(found.HighestVersion).unwrap();
        assert_eq!(client.capture(WSK_NO_WAIT), Ok(()));
        client.release();
        client.deregister();
    });
}

/// Shows: REG-17
#[test]
fn a_higher_minor_version_serves_a_lower_request() {
    let sim = Sim::builder().provider(|config| config.highest_version = MAKE_WSK_VERSION(1, 7)).build();
    sim.run(|_| {
        let client = Client::registered(VERSION).unwrap();
        assert_eq!(client.capture(WSK_NO_WAIT), Ok(()));
        let version = client.dispatch().Version;
        assert!(WSK_MAJOR_VERSION(version) == 1 && WSK_MINOR_VERSION(version) > 0, "{version:#x}");
        let (listener, address) = client.bound_listener(&Recorder::new());
        let _peer = Peer::connect(address);
        drop(listener.accept().socket());
    });
}

/// Shows: REG-19, REG-21
#[test]
fn a_deregistration_waits_for_calls_and_requests_of_the_client_object() {
    let sim = Sim::builder().completion(Completion::PendLate).build();
    sim.run(|sim| {
        let client = Arc::new(Client::new());
        // The completion routine is held: the request is pending, and with an inline completion the call
        // executes.
        let (let_go, held) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel();
        let options = SocketOptions::new(Category::Listen);
        let hook = move |_, _| {
            entered.send(()).unwrap();
            held.recv_timeout(BOUND).expect("the test lets the routine go on");
        };
        let request = client.open_with(Request::new().hook(hook), &options);
        inside.recv_timeout(BOUND).expect("the request completes");
        client.release();
        let (done, returned) = mpsc::channel();
        let own = Arc::clone(&client);
        drop(sim.thread("deregister", move || {
            own.deregister();
            let _ = done.send(());
        }));
        assert!(returned.recv_timeout(A_WHILE).is_err(), "a request is pending");
        let_go.send(()).unwrap();
        request.socket().close().ok();
        returned.recv_timeout(BOUND).expect("WskDeregister returns");
    });
}

/// Shows: REG-21, REG-22
#[test]
fn a_wait_for_transports_that_comes_during_the_deregistration_is_cancelled() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            let client = Arc::new(Client::new());
            let wait =
                |client: &Client| client.control(Request::new(), WSK_TRANSPORT_LIST_CHANGE, None, None, None);
            let before = wait(&client).pends();
            let (done, returned) = mpsc::channel();
            let own = Arc::clone(&client);
            drop(sim.thread("deregister", move || {
                own.deregister();
                let _ = done.send(());
            }));
            before.fails(STATUS_CANCELLED);
            // The NPI is captured still, so that the call is in order.
            wait(&client).fails(STATUS_CANCELLED);
            client.release();
            returned.recv_timeout(BOUND).expect("WskDeregister returns");
        });
    }
}

/// Shows: REG-24
#[test]
fn a_capture_after_deregistration_has_started_fails() {
    Sim::new().run(|sim| {
        let client = Arc::new(Client::new());
        let own = Arc::clone(&client);
        let (started, start) = mpsc::channel();
        let deregistering = sim.thread("deregister", move || {
            started.send(()).unwrap();
            own.deregister();
        });
        start.recv_timeout(BOUND).unwrap();
        // The captured NPI keeps the registration block in use; sooner or later the deregistration has
        // started.
        eventually("captures fail", || match client.capture(WSK_NO_WAIT) {
            Ok(()) => {
                client.release();
                false
            }
            Err(status) => status == STATUS_DEVICE_NOT_READY,
        });
        client.release();
        deregistering.join().expect("WskDeregister returns");
    });
}

/// Catches: REG-05
#[test]
fn a_reserved_field_that_is_set_and_an_unpublished_version_are_noticed() {
    let sim = Sim::new();
    sim.expect_advice("REG-05");
    sim.run(|sim| {
        let client = Client::registered(MAKE_WSK_VERSION(2, 1)).unwrap();
        assert!(!sim.violations_of("REG-05").is_empty());
        client.deregister();
    });
}

/// Catches: REG-10
#[test]
fn going_on_after_a_failed_registration_or_capture_is_caught() {
    let sim = Sim::builder().late().build();
    sim.expect("REG-10");
    sim.run(|sim| {
        let block = PoolBox::new(WSK_REGISTRATION::zeroed());
        // SAFETY: the block is zeroed; a null NPI fails the call.
        let registered = unsafe { WskRegister(ptr::null_mut(), block.as_ptr()) };
        assert_eq!(registered, STATUS_INVALID_PARAMETER);
        let mut npi = WSK_PROVIDER_NPI { Client: ptr::null_mut(), Dispatch: ptr::null() };
        // SAFETY: the provider recognizes a block that holds no registration.
        unsafe { WskCaptureProviderNPI(block.as_ptr(), WSK_NO_WAIT, &raw mut npi) };
        assert_caught(sim, "REG-10", "WskCaptureProviderNPI");
        let client = Client::registered(VERSION).unwrap();
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_DEVICE_NOT_READY));
        client.release();
        assert_caught(sim, "REG-10", "WskReleaseProviderNPI");
        client.deregister();
    });
}

/// Catches: REG-29
#[test]
fn a_capture_that_waits_without_end_for_a_provider_that_is_not_there_is_advised_against() {
    let sim = Sim::builder().late().provider(|config| config.capture_patience = A_WHILE).build();
    sim.expect_advice("REG-29");
    sim.run(|sim| {
        let client = Arc::new(Client::registered(VERSION).unwrap());
        let own = Arc::clone(&client);
        let capturing = sim.thread("start", move || own.capture(WSK_INFINITE_WAIT));
        eventually("the wait is noticed", || !sim.violations_of("REG-29").is_empty());
        sim.provider().arrive();
        assert_eq!(capturing.join().unwrap(), Ok(()));
        // If the provider is available, no capture waits.
        assert_eq!(client.capture(WSK_INFINITE_WAIT), Ok(()));
        assert_eq!(sim.violations_of("REG-29").len(), 1);
        client.release();
        client.release();
    });
}

/// Catches: REG-12
#[test]
fn a_call_after_the_last_release_is_caught() {
    let sim = Sim::new();
    sim.expect("REG-12");
    sim.run(|sim| {
        let client = Client::new();
        client.release();
        // The client is invalid, so the IRP is not completed: it stays unchanged.
        let open = client.open(&SocketOptions::new(Category::Listen));
        assert_eq!(open.returned(), STATUS_INVALID_HANDLE);
        assert!(!open.is_completed());
        assert_caught(sim, "REG-12", "WskSocket");
        client.deregister();
    });
}

/// Catches: REG-25
#[test]
fn deregistering_inside_a_callback_and_inside_a_completion_routine_are_caught() {
    let sim = Sim::new();
    sim.expect("REG-25");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (_listener, address) = client.conditional_listener(&events);
        let other = Arc::new(Client::registered(VERSION).unwrap());
        let own = Arc::clone(&other);
        events.on_inspect(move |_| {
            own.deregister();
            WskInspectReject
        });
        let _peer = Peer::connect(address);
        events.inspect();
        assert!(sim.violations_of("REG-25").iter().any(|v| v.detail.contains("WskInspectEvent")));
        events.on_inspect(|_| WskInspectReject);
        let third = Arc::new(Client::registered(VERSION).unwrap());
        let own = Arc::clone(&third);
        client
            .open_with(
                Request::new().hook(move |_, _| own.deregister()),
                &SocketOptions::new(Category::Listen),
            )
            .ok();
        assert!(sim.violations_of("REG-25").iter().any(|v| v.detail.contains("completion")));
    });
}

/// Catches: REG-27
#[test]
fn a_socket_that_is_never_closed_is_reported_at_the_end() {
    let sim = Sim::new();
    let report = left_behind(&sim, |_| {
        let client = Client::new();
        client.listener(&Recorder::new()).forget();
        client.forget();
    });
    assert!(report.violations.iter().any(|violation| violation.rule == "REG-27"), "{report}");
}

/// Runs a driver that deregisters while an object is never released, and returns the kernel's description of
/// the hang.
#[track_caller]
fn hangs(leave: impl FnOnce(&Sim, &Arc<Client>) + Send + 'static) -> String {
    let patience = Some(Duration::from_secs(1));
    let sim = Sim::builder().kernel(|kernel| kernel.watchdog = patience).build();
    let machine = sim.clone();
    sim.expect("NT-HANG").run(move |sim| {
        let client = Arc::new(Client::registered(VERSION).unwrap());
        leave(sim, &client);
        client.deregister();
    });
    let [said] = &machine.violations_of("NT-HANG")[..] else { panic!("one hang: {machine:?}") };
    said.detail.clone()
}

/// Captures on another thread, as drivers do that initialize in the background.
fn capture_on_another_thread(sim: &Sim, client: &Arc<Client>) {
    let own = Arc::clone(client);
    sim.thread("captor", move || own.capture(WSK_NO_WAIT).unwrap()).join().unwrap();
}

#[test]
fn a_capture_that_a_deregistration_waits_for_is_named_with_its_thread() {
    let said = hangs(capture_on_another_thread);
    assert!(said.contains("1 captured NPI is not released, captured by thread `captor`"), "{said}");
    assert!(!said.contains("socket"), "{said}");
}

#[test]
fn a_socket_that_a_deregistration_waits_for_is_named_with_its_requests() {
    let said = hangs(|sim, client| {
        capture_on_another_thread(sim, client);
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        std::mem::forget(accept);
        listener.forget();
        client.release();
    });
    assert!(said.contains("1 socket is open: Listen socket"), "{said}");
    assert!(said.contains("1 pending request"), "{said}");
    assert!(!said.contains("captured NPI"), "{said}");
}

/// A request that the deregistration itself does not end: its completion routine has not returned.
#[test]
fn a_request_that_a_deregistration_waits_for_is_named() {
    let said = hangs(|sim, client| {
        capture_on_another_thread(sim, client);
        let (enter, entered) = mpsc::channel();
        let hook = move |_, _| {
            enter.send(()).unwrap();
            loop {
                std::thread::park();
            }
        };
        let own = Arc::clone(client);
        let request = sim.thread("maker", move || {
            let options = SocketOptions::new(Category::Basic);
            std::mem::forget(own.open_with(Request::new().hook(hook), &options));
        });
        std::mem::forget(request);
        entered.recv().unwrap();
        client.release();
    });
    assert!(said.contains("on the client"), "{said}");
}

/// A wait of the driver itself that does not end: its open objects may be the reason.
#[test]
fn what_is_open_is_named_with_any_hang() {
    let sim = Sim::builder().kernel(|kernel| kernel.watchdog = Some(Duration::from_secs(1))).build();
    let machine = sim.clone();
    sim.expect("NT-HANG").run(|_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        let event = PoolBox::new(KEVENT::default());
        // SAFETY: the event is initialized, and is never signaled.
        unsafe { KeInitializeEvent(event.as_ptr(), NOTIFICATION_EVENT, 0) };
        // SAFETY: the event is initialized, and is never signaled.
        unsafe { KeWaitForSingleObject(event.as_ptr().cast(), EXECUTIVE, KERNEL_MODE, 0, ptr::null_mut()) };
        drop((accept, event));
    });
    let [said] = &machine.violations_of("NT-HANG")[..] else { panic!("one hang: {machine:?}") };
    assert!(said.detail.contains("1 pending request") && said.detail.contains("thread `run`"), "{said}");
}
