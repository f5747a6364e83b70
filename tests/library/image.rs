//! The driver's image: what of the library may still run in it when the driver has been unloaded, and what
//! keeps it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use wsk::executor::Executor;
use wsk::{Buffer, Client, Connection, Handlers, InspectToken, Listener, ListenerEvents, Verdict};
use wsk_sim::raw::Peer;
use wsk_sim::{Completion, Sim};
use wsk_sys::nt::DEVICE_OBJECT;

use crate::support::*;

/// Completion routines that run in `body` have returned to whoever waits for what they do, and not yet to the
/// kernel.
fn lingering<R>(sim: &Sim, body: impl FnOnce() -> R) -> R {
    sim.kernel().watch_image(true);
    let result = body();
    sim.kernel().watch_image(false);
    result
}

/// Something that completes requests of one kind, while routines linger.
type Scenario = fn(&Sim, &Driver);

fn opened(driver: &Driver) -> (Listener, Connection, Peer) {
    let listener = driver.listen();
    let (connection, peer) = connected(&listener);
    (listener, connection, peer)
}

fn creates(sim: &Sim, driver: &Driver) {
    let mut bind = Box::pin(driver.provider.listener().bind(localhost()));
    // The IRP of `WskSocket` alone: what is polled next waits for another one.
    lingering(sim, || {
        assert!(poll(&mut bind).is_pending());
        driver.await_sockets(1);
        eventually(|| sim.kernel().routines_lingering() > 0);
    });
    drop(bind);
    driver.await_sockets(0);
}

fn binds(sim: &Sim, driver: &Driver) {
    drop(lingering(sim, || driver.listen()));
}

fn accepts(sim: &Sim, driver: &Driver) {
    let listener = driver.listen();
    let _connected = lingering(sim, || connected(&listener));
}

fn accepts_nothing(sim: &Sim, driver: &Driver) {
    let listener = driver.listen();
    let mut accept = Box::pin(listener.accept());
    assert!(poll(&mut accept).is_pending());
    lingering(sim, || {
        drop(accept);
        drop(listener);
        driver.await_sockets(0);
    });
}

fn receives(sim: &Sim, driver: &Driver) {
    let (_listener, mut connection, peer) = opened(driver);
    peer.send(b"data");
    let (received, _) =
        lingering(sim, || wait(connection.receive_exact(Buffer::try_with_capacity(4).unwrap())));
    assert_eq!(received, Ok(()));
}

fn sends(sim: &Sim, driver: &Driver) {
    let (_listener, mut connection, _peer) = opened(driver);
    let (sent, _) = lingering(sim, || wait(connection.send(Buffer::try_from_slice(b"data").unwrap())));
    assert_eq!(sent, Ok(4));
}

fn controls(sim: &Sim, driver: &Driver) {
    let (_listener, connection, _peer) = opened(driver);
    lingering(sim, || wait(connection.ideal_send_backlog())).unwrap();
}

fn switches_events(sim: &Sim, driver: &Driver) {
    let listener = wait(
        driver
            .provider
            .listener()
            .on_accept(taker(|incoming: wsk::Incoming<'_, Handlers>| {
                let _ = incoming.accept(Handlers::new());
            }))
            .bind(localhost()),
    )
    .unwrap();
    listener.enable(ListenerEvents::ACCEPT).unwrap();
    lingering(sim, || wait(listener.disable_and_wait(ListenerEvents::ACCEPT))).unwrap();
}

fn disconnects(sim: &Sim, driver: &Driver) {
    let (_listener, mut connection, _peer) = opened(driver);
    lingering(sim, || wait(connection.shutdown())).unwrap();
}

fn aborts(sim: &Sim, driver: &Driver) {
    let (_listener, connection, _peer) = opened(driver);
    lingering(sim, || wait(connection.abort())).unwrap();
}

fn closes(sim: &Sim, driver: &Driver) {
    let (_listener, connection, _peer) = opened(driver);
    lingering(sim, || wait(connection.close()));
}

fn closes_in_the_background(sim: &Sim, driver: &Driver) {
    let opened = opened(driver);
    lingering(sim, || {
        drop(opened);
        driver.await_sockets(0);
    });
}

/// A token whose request is pended for sure: the callback that told it has returned, and only the reaper is
/// inside.
fn pended(sim: &Sim, pending: &Pending) -> InspectToken {
    let token = pending.tokens.next();
    let kernel = sim.kernel();
    eventually(|| kernel.routines_inside() - kernel.routines_lingering() <= 1);
    token
}

fn decides(sim: &Sim, driver: &Driver) {
    let pending = driver.listen_pending();
    let peer = Peer::connect(pending.listener.local_addr());
    let token = pended(sim, &pending);
    lingering(sim, || wait(token.reject())).unwrap();
    peer.expect_reset();
}

fn rejects_in_the_background(sim: &Sim, driver: &Driver) {
    let pending = driver.listen_pending();
    let peer = Peer::connect(pending.listener.local_addr());
    let token = pended(sim, &pending);
    lingering(sim, || {
        let before = sim.kernel().routines_lingering();
        drop(token);
        peer.expect_reset();
        eventually(|| sim.kernel().routines_lingering() > before);
    });
}

const SCENARIOS: [(&str, Scenario); 14] = [
    ("create", creates),
    ("bind", binds),
    ("accept", accepts),
    ("accept, cancelled", accepts_nothing),
    ("receive", receives),
    ("send", sends),
    ("control", controls),
    ("event switch", switches_events),
    ("disconnect", disconnects),
    ("abort", aborts),
    ("close", closes),
    ("close, by the reaper", closes_in_the_background),
    ("inspect-complete", decides),
    ("inspect-complete, by the reaper", rejects_in_the_background),
];

fn register(device: *mut DEVICE_OBJECT) -> Driver {
    // SAFETY: the device is the driver's, or null.
    let client = unsafe { Client::register_for(passive(), device) }.expect("registering");
    let provider = client.capture(passive(), BOUND).expect("capturing");
    Driver { client, provider }
}

/// A client that was registered without a device: when the driver is unloaded, nothing keeps the image for a
/// completion routine that has not returned, whichever request it is of. So the kernel sees it, and so it
/// would be on Windows.
///
/// Catches: LIFE-19
#[test]
fn without_a_device_a_routine_is_left_in_an_image_that_has_gone() {
    for (name, scenario) in SCENARIOS {
        let sim = Sim::builder().completion(Completion::PendLate).build();
        sim.expect("LIFE-19");
        sim.run(move |sim| {
            sim.kernel().watch_image(false);
            let driver = register(std::ptr::null_mut());
            scenario(sim, &driver);
            driver.unload();
            assert!(sim.kernel().routines_inside() > 0, "{name}");
            sim.kernel().unload_image();
            assert!(sim.kernel().image_is_unloaded());
            assert!(!sim.violations_of("LIFE-19").is_empty(), "{name}");
            sim.kernel().finish_lingering_routines();
        });
    }
}

/// A client that was registered with the driver's device: unloading ends all the same, and the image stays
/// until the last routine has returned.
///
/// Prevents: LIFE-19
#[test]
fn with_a_device_the_image_stays_until_the_last_routine_has_returned() {
    for (name, scenario) in SCENARIOS {
        for completion in [Completion::PendLate, Completion::PendEarly] {
            let sim = Sim::builder().completion(completion).build();
            sim.run(move |sim| {
                let kernel = sim.kernel();
                kernel.watch_image(false);
                let device = kernel.create_device();
                let driver = register(device);
                if name == "create" && completion != Completion::PendLate {
                    driver.unload();
                    return kernel.delete_device(device);
                }
                scenario(sim, &driver);
                driver.unload();
                assert!(kernel.routines_inside() > 0, "{name}");
                kernel.delete_device(device);
                kernel.unload_image();
                assert!(
                    !kernel.image_is_unloaded(),
                    "{name}: {} references",
                    kernel.device_references(device)
                );
                kernel.finish_lingering_routines();
                eventually(|| kernel.image_is_unloaded());
            });
        }
    }
}

/// Everything lingers at once, in every way in which requests complete.
///
/// Prevents: LIFE-19
#[test]
fn the_image_stays_for_all_of_them() {
    for_each_mode(|sim| {
        let kernel = sim.kernel();
        kernel.watch_image(true);
        let device = kernel.create_device();
        let driver = register(device);
        for (name, scenario) in SCENARIOS {
            if name != "create" {
                scenario(sim, &driver);
                kernel.watch_image(true);
            }
        }
        driver.unload();
        kernel.delete_device(device);
        kernel.unload_image();
        kernel.finish_lingering_routines();
        eventually(|| kernel.image_is_unloaded());
        assert_eq!(kernel.routines_inside(), 0);
    });
}

/// An unloaded client has given its reference on the device back, whatever handles are left; they are of no
/// use, and do not touch the device.
///
/// Prevents: LIFE-19
#[test]
fn handles_that_are_left_do_not_keep_the_device() {
    for_each_mode(|sim| {
        let kernel = sim.kernel();
        kernel.watch_image(false);
        let device = kernel.create_device();
        let driver = register(device);
        let pending = driver.listen_pending();
        let peer = Peer::connect(pending.listener.local_addr());
        let token = pending.tokens.next();
        let (listener, mut connection, _peer) = opened(&driver);
        let unpolled = listener.accept();
        driver.unload();
        peer.expect_reset();
        // What has completed is on its way back, or has returned.
        eventually(|| kernel.device_references(device) == 1);
        kernel.delete_device(device);
        assert!(wait(unpolled).is_err());
        assert!(wait(listener.accept()).is_err());
        assert!(wait(connection.receive_exact(Buffer::try_with_capacity(1).unwrap())).0.is_err());
        assert!(wait(connection.shutdown()).is_err());
        assert!(wait(token.decide_with(async { Verdict::Accept })).is_err());
        drop((listener, connection, pending));
        kernel.unload_image();
        assert!(kernel.image_is_unloaded());
    });
}

/// A client that is dropped, and one that cannot register, give the device back too.
#[test]
fn a_client_that_goes_by_itself_lets_the_device_go() {
    let sim = Sim::new();
    sim.expect("REG-27").run(|sim| {
        let kernel = sim.kernel();
        let device = kernel.create_device();
        for attempt in 1.. {
            kernel.faults().fail_nth(attempt);
            // SAFETY: the device is there.
            let client = unsafe { Client::register_for(passive(), device) };
            let injected = kernel.faults().injected();
            kernel.faults().clear();
            drop(client);
            eventually(|| kernel.device_references(device) == 1);
            if injected == 0 {
                break;
            }
        }
        kernel.delete_device(device);
        eventually(|| !kernel.threads().iter().any(|name| name.starts_with("system-thread")));
    });
}

/// A disconnect for whose IRP memory was out has not been made: sends go on, and so does another disconnect.
#[test]
fn a_disconnect_that_memory_stopped_can_be_made_again() {
    for_each_mode(|sim| {
        let kernel = sim.kernel();
        let device = kernel.create_device();
        let driver = register(device);
        let (listener, mut connection, peer) = opened(&driver);
        let tag = u32::from_le_bytes(*b"IoUs");
        kernel.faults().fail_if(move |attempt| attempt.tag == tag);
        let error = wait(connection.shutdown()).unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
        assert!(connection.is_open());
        for outcome in [
            wait(connection.send(Buffer::try_from_slice(b"x").unwrap())).0,
            wait(connection.receive(Buffer::try_with_capacity(1).unwrap())).0,
            wait(connection.ideal_send_backlog()),
            wait(listener.accept()).map(|_| 0),
            wait(connection.abort()).map(|()| 0),
        ] {
            assert!(outcome.unwrap_err().is_out_of_memory());
        }
        kernel.faults().clear();
        assert_eq!(wait(connection.send(Buffer::try_from_slice(b"x").unwrap())).0, Ok(1));
        wait(connection.shutdown()).unwrap();
        assert_eq!(peer.receive(1), b"x");
        drop((listener, connection));
        driver.unload();
        eventually(|| kernel.device_references(device) == 1);
        kernel.delete_device(device);
    });
}

/// Timers, threads and tasks: who stops an executor has waited for all that runs code of its tasks.
///
/// Prevents: LIFE-19
#[test]
fn a_stopped_executor_has_left_the_image() {
    Sim::new().run(|sim| {
        let kernel = sim.kernel();
        kernel.watch_image(true);
        let executor = Executor::start(passive(), 2).unwrap();
        let (tell, told) = channel();
        executor
            .spawner()
            .spawn(async move {
                wsk::time::sleep(Duration::from_millis(1)).await.unwrap();
                tell.say(());
            })
            .unwrap();
        told.next();
        executor.spawner().spawn(async { wsk::time::sleep(Duration::from_mins(1)).await.unwrap() }).unwrap();
        executor.stop(passive(), BOUND).unwrap();
        assert_eq!(kernel.routines_inside(), 0);
        kernel.unload_image();
    });
}

/// Holds up whoever wakes it, until it is let go.
#[derive(Debug, Default)]
struct HoldsUp {
    entered: AtomicBool,
    go_on: AtomicBool,
}

impl Wake for HoldsUp {
    fn wake(self: Arc<Self>) {
        self.entered.store(true, Ordering::SeqCst);
        while !self.go_on.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}

/// While the completion of a close has anything left to do, its socket is counted; what is told to whoever
/// waits in vain is never that nothing is left.
#[test]
fn a_socket_counts_until_its_close_is_over() {
    let sim = Sim::builder().completion(Completion::PendLate).build();
    sim.run(|_| {
        let Driver { client, provider } = Driver::start();
        let listener = wait(provider.listener().bind(localhost())).unwrap();
        drop(provider);
        let waker = Arc::new(HoldsUp::default());
        let mut closing = Box::pin(listener.close());
        let polled = closing.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&waker))));
        assert!(polled.is_pending());
        eventually(|| waker.entered.load(Ordering::SeqCst));
        let held = client.unload(passive(), Duration::from_millis(30)).unwrap_err();
        assert_eq!((held.sockets(), held.providers()), (1, 0), "{held}");
        waker.go_on.store(true, Ordering::SeqCst);
        held.into_inner().unload(passive(), BOUND).unwrap();
        wait(closing);
    });
}

/// Whatever moment the time is up at, something is said to be left.
#[test]
fn unloading_never_waits_for_nothing() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let _opened = opened(&driver);
        let Driver { mut client, provider } = driver;
        drop(provider);
        loop {
            match client.unload(passive(), Duration::ZERO) {
                Ok(()) => break,
                Err(held) => {
                    assert_ne!((held.sockets(), held.providers()), (0, 0));
                    client = held.into_inner();
                }
            }
        }
    });
}

/// An executor that has not stopped tells what is left: tasks, or the threads that have yet to end.
#[test]
fn an_executor_never_waits_for_nothing() {
    Sim::new().run(|_| {
        let mut executor = Executor::start(passive(), 2).unwrap();
        loop {
            match executor.stop(passive(), Duration::ZERO) {
                Ok(()) => break,
                Err(error) => {
                    assert!(error.threads() > 0, "{error}");
                    executor = error.into_inner();
                }
            }
        }
    });
}
