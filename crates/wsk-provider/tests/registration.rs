//! Registration, capture and deregistration, with their waits.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Config;
use wsk_sim::{Kernel, Severity, Sim};
use wsk_sys::*;

/// Long enough to see that a call waits, short enough for a test.
const A_WHILE: Duration = Duration::from_millis(50);

/// Starts `WskDeregister` on another thread, and reports its return through the channel.
fn deregister(sim: &Sim, client: &std::sync::Arc<Client>) -> mpsc::Receiver<()> {
    let (done, returned) = mpsc::channel();
    let own = std::sync::Arc::clone(client);
    let joiner = sim.thread("deregister", move || {
        own.deregister();
        let _ = done.send(());
    });
    drop(joiner);
    returned
}

/// Shows: REG-03, REG-07, REG-08, REG-09, REG-15
#[test]
fn a_capture_polls_waits_and_gives_up() {
    Sim::builder().late().build().run(|sim| {
        let client = Client::registered(0x0100).expect("registering needs no provider");
        assert_eq!(client.query().err(), Some(STATUS_DEVICE_NOT_READY));
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_DEVICE_NOT_READY));
        let start = Instant::now();
        assert_eq!(client.capture(50), Err(STATUS_DEVICE_NOT_READY));
        assert!(start.elapsed() >= A_WHILE);
        let provider = sim.provider().clone();
        let joiner = sim.thread("arrival", move || provider.arrive());
        assert_eq!(client.capture(WSK_INFINITE_WAIT), Ok(()));
        joiner.join().expect("the provider arrives");
        client.release();
        client.deregister();
    });
}

/// Shows: REG-09, REG-23
#[test]
fn a_deregistration_ends_the_captures_that_wait() {
    Sim::builder().late().build().run(|sim| {
        let client = std::sync::Arc::new(Client::registered(0x0100).expect("WskRegister"));
        let own = std::sync::Arc::clone(&client);
        let waiting = sim.thread("capture", move || own.capture(WSK_INFINITE_WAIT));
        Kernel::current().expect("a kernel");
        std::thread::yield_now();
        let returned = deregister(sim, &client);
        assert_eq!(waiting.join().expect("the capture returns"), Err(STATUS_DEVICE_NOT_READY));
        returned.recv_timeout(BOUND).expect("WskDeregister returns");
    });
}

/// Shows: REG-04, REG-14
#[test]
fn an_unknown_version_is_refused_by_the_capture() {
    Sim::new().run(|_| {
        let client = Client::registered(0x0200).expect("WskRegister does not check the version");
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_NOINTERFACE));
        assert_eq!(client.query().expect("characteristics").HighestVersion, 0x0100);
        client.deregister();
    });
}

/// Shows: REG-13, REG-18, REG-20
#[test]
fn a_deregistration_waits_for_captures_and_sockets() {
    Sim::new().run(|sim| {
        let client = std::sync::Arc::new(Client::new());
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        let _peer = Peer::connect(address);
        let accepted = accept.socket();
        let returned = deregister(sim, &client);
        assert!(returned.recv_timeout(A_WHILE).is_err(), "a captured NPI holds it");
        client.release();
        assert!(returned.recv_timeout(A_WHILE).is_err(), "sockets hold it");
        listener.close().ok();
        assert!(returned.recv_timeout(A_WHILE).is_err(), "accepted sockets hold it too");
        accepted.send(b"still works").ok();
        accepted.close().ok();
        returned.recv_timeout(BOUND).expect("WskDeregister returns");
    });
}

/// Shows: REG-22
#[test]
fn a_deregistration_cancels_the_wait_for_transports() {
    Sim::new().run(|_| {
        let client = Client::new();
        let change = client.control(Request::new(), WSK_TRANSPORT_LIST_CHANGE, None, None, None).pends();
        client.release();
        client.deregister();
        change.fails(STATUS_CANCELLED);
    });
}

/// Catches: REG-02, REG-11, REG-26
#[test]
fn mistakes_are_reported() {
    let break_early = |config: &mut Config| {
        config.self_deadlock_after = A_WHILE;
        config.breaks_deadlocks = true;
    };
    let sim = Sim::builder().provider(break_early).build();
    for rule in ["REG-02", "REG-11", "REG-26"] {
        sim.expect(rule);
    }
    sim.run(|sim| {
        let client = Client::new();
        client.release();
        client.release();
        assert_eq!(sim.violations_of("REG-11").len(), 1);
        client.deregister();
        client.deregister();
        assert_eq!(sim.violations_of("REG-02").len(), 1);
        let client = Client::new();
        client.deregister();
        assert_eq!(sim.violations_of("REG-26").len(), 1);
    });
}

/// Shows: REG-18
/// Catches: REG-26
#[test]
fn a_capture_of_the_deregistering_thread_is_waited_for_too() {
    let sim = Sim::builder().provider(|config| config.self_deadlock_after = A_WHILE).build();
    sim.expect_advice("REG-26");
    sim.run(|sim| {
        let client = std::sync::Arc::new(Client::registered(0x0100).expect("WskRegister"));
        let (done, returned) = mpsc::channel();
        let own = std::sync::Arc::clone(&client);
        drop(sim.thread("deregister", move || {
            own.capture(WSK_NO_WAIT).expect("the provider is there");
            own.deregister();
            let _ = done.send(());
        }));
        while sim.violations_of("REG-26").is_empty() {
            assert!(returned.recv_timeout(A_WHILE).is_err(), "a captured NPI holds it");
        }
        assert!(returned.recv_timeout(A_WHILE).is_err(), "it goes on waiting");
        // It is only advice: a release by another thread breaks no rule.
        assert!(sim.violations_of("REG-26").iter().all(|report| report.severity == Severity::Advice));
        client.release();
        returned.recv_timeout(BOUND).expect("WskDeregister returns");
        assert_eq!(sim.violations_of("REG-26").len(), 1);
    });
}

/// Shows: REG-28
#[test]
fn a_departing_provider_leaves_dead_sockets() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        sim.provider().depart();
        accept.fails(STATUS_FILE_FORCED_CLOSED);
        assert!(events.accept().socket.is_none());
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_DEVICE_NOT_READY));
        listener.close().ok();
    });
}
