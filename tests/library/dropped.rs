//! A client or an executor that is dropped where it was to be unloaded or stopped, and a driver's two ends.

use std::time::Duration;

use wsk::executor::Executor;
use wsk::{Client, Listener, Result};
use wsk_sim::Sim;
use wsk_sim::raw::Peer;
use wsk_sys::nt::DEVICE_OBJECT;

use crate::registration::await_threads;
use crate::support::*;

/// A value that `drops` drops is reported then and there, also where everything has ended long before the run
/// does.
#[track_caller]
fn is_named(drops: impl FnOnce(&Sim) + Send + 'static) {
    let sim = Sim::new();
    sim.expect("REG-27");
    sim.run(move |sim| {
        assert!(sim.violations_of("REG-27").is_empty());
        drops(sim);
        assert!(!sim.violations_of("REG-27").is_empty(), "at once");
        await_threads(sim);
    });
}

/// Catches: REG-27
#[test]
fn a_client_that_is_dropped_is_named() {
    is_named(|_| drop(Client::register(passive()).unwrap()));
}

/// Catches: REG-27
#[test]
fn a_client_in_use_that_is_dropped_is_named() {
    is_named(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let _peer = Peer::connect(listener.local_addr());
        drop(driver);
        drop(listener);
    });
}

/// Catches: REG-27
#[test]
fn a_client_that_is_given_up_after_an_unload_in_vain_is_named() {
    is_named(|_| {
        let Driver { client, provider } = Driver::start();
        drop(client.unload(passive(), Duration::ZERO).unwrap_err());
        drop(provider);
    });
}

/// Catches: REG-27
#[test]
fn an_executor_that_is_dropped_is_named() {
    is_named(|_| drop(Executor::start(passive(), 2).unwrap()));
}

/// Catches: REG-27
#[test]
fn an_executor_that_is_given_up_after_a_stop_in_vain_is_named() {
    is_named(|sim| {
        let executor = Executor::start(passive(), 1).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        executor.spawner().spawn(async move { assert!(released.recv().is_err()) }).unwrap();
        let held = executor.stop(passive(), Duration::ZERO).unwrap_err();
        assert!(sim.violations_of("REG-27").is_empty(), "it can be stopped again");
        drop(held);
        drop(release);
    });
}

/// A service as drivers have them.
struct Service {
    listener: Listener,
    driver: Driver,
    executor: Executor,
}

impl Service {
    fn load(device: *mut DEVICE_OBJECT) -> Result<Self> {
        // SAFETY: the device is the driver's, and stays for as long as the client has it.
        let client = unsafe { Client::register_for(passive(), device) }?;
        let provider = client.capture(passive(), BOUND)?;
        let driver = Driver { client, provider };
        let listener = wait(driver.provider.listener().bind(localhost()))?;
        let executor = Executor::start(passive(), 2)?;
        Ok(Self { listener, driver, executor })
    }

    fn unload(self) {
        drop(self.listener);
        self.executor.stop(passive(), BOUND).unwrap();
        self.driver.unload();
    }
}

/// Prevents: REG-27, LIFE-19
#[test]
fn a_service_that_is_unloaded_leaves_nothing_in_the_image() {
    let sim = Sim::new();
    sim.kernel().watch_image(true);
    let entry = |sim: &Sim| {
        let device = sim.kernel().create_device();
        Service::load(device).map(|service| (service, device.expose_provenance()))
    };
    let unload = |sim: &Sim, (service, device): (Service, usize)| {
        drop(connected(&service.listener));
        service.unload();
        sim.kernel().delete_device(std::ptr::with_exposed_provenance_mut(device));
    };
    sim.driver(entry, unload).unwrap();
}

/// Catches: REG-27
#[test]
#[should_panic(expected = "violation of REG-27")]
fn a_service_that_is_dropped_fails_the_driver() {
    let entry = |_: &Sim| Service::load(std::ptr::null_mut());
    Sim::new().driver(entry, |_, service| drop(service)).expect("it loads");
}

/// The commonest way: what fails comes after what would have to be undone.
///
/// Catches: REG-27
#[test]
#[should_panic(expected = "violation of REG-27")]
fn an_entry_that_fails_after_it_has_registered_fails_the_driver() {
    let entry = |_: &Sim| -> Result<()> {
        let client = Client::register(passive())?;
        let _provider = client.capture(passive(), BOUND)?;
        // There is no such address here.
        wait(client.capture(passive(), BOUND)?.listener().bind("192.0.2.1:0".parse().unwrap()))?;
        client.unload(passive(), BOUND).expect("it is never reached");
        Ok(())
    };
    Sim::new().driver(entry, |_, ()| unreachable!("it does not load")).expect_err("it does not load");
}

/// Prevents: REG-27
#[test]
fn an_entry_that_fails_may_undo_what_it_has_done() {
    let entry = |_: &Sim| -> Result<()> {
        let client = Client::register(passive())?;
        let provider = client.capture(passive(), BOUND)?;
        let failed = wait(provider.listener().bind("192.0.2.1:0".parse().unwrap())).map(drop);
        drop(provider);
        client.unload(passive(), BOUND).unwrap();
        failed
    };
    let ended = Sim::new().driver(entry, |_, ()| unreachable!("it does not load"));
    assert!(ended.is_err());
}
