//! Tests of the provider's life inside the image, on the user-mode kernel.

// The image itself brings executive functions of its own, and is not for user mode.
#![cfg(not(all(windows, feature = "image")))]

use std::io;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netio::journal::{Journal, Output};
use netio::machine::Machine;
use netio::settings::Settings;
use nt_user::Kernel;
use parking_lot::Mutex;
use wsk_provider::transport::live::Live;
use wsk_provider::{Host, Provider, Report};
use wsk_sys::{STATUS_SUCCESS, WSK_CLIENT_DISPATCH, WSK_CLIENT_NPI, WSK_PROVIDER_NPI, WSK_REGISTRATION};

/// A host whose threads are the kernel's.
#[derive(Debug)]
struct Threads(Kernel, Arc<Journal>);

impl Host for Threads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.0.spawn(name, body).map(drop)
    }

    fn report(&self, report: Report) {
        self.1.report(&report);
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Output for Lines {
    fn line(&self, line: &str) {
        self.0.lock().push(line.to_owned());
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

fn machine(patience: Duration) -> (Kernel, Arc<Machine>, Lines) {
    let kernel = Kernel::new(nt_user::Config::default());
    let lines = Lines::default();
    let journal = Arc::new(Journal::new(vec![Box::new(lines.clone())]));
    let host = Arc::new(Threads(kernel.clone(), Arc::clone(&journal)));
    let make = move || {
        Ok(Provider::new(Settings::default().config(), Arc::new(Live::new()?), Arc::clone(&host) as _))
    };
    (kernel, Arc::new(Machine::new(journal, patience, make)), lines)
}

/// A registered client, which does not move.
struct Client<'a> {
    machine: &'a Machine,
    block: Box<WSK_REGISTRATION>,
}

impl<'a> Client<'a> {
    fn register(machine: &'a Machine) -> Self {
        static DISPATCH: WSK_CLIENT_DISPATCH =
            WSK_CLIENT_DISPATCH { Version: 0x0100, Reserved: 0, WskClientEvent: None };
        let mut block = Box::new(WSK_REGISTRATION::zeroed());
        let mut npi = WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: &raw const DISPATCH };
        let status = machine.register(|provider| {
            // SAFETY: the structures live during the call, the table for ever, the block until the
            // deregistration.
            unsafe { provider.register(&raw mut npi, &raw mut *block) }
        });
        assert_eq!(status.expect("the network can be used"), STATUS_SUCCESS);
        Self { machine, block }
    }

    fn capture(&mut self) {
        let mut npi = WSK_PROVIDER_NPI { Client: ptr::null_mut(), Dispatch: ptr::null() };
        let provider = self.machine.running().expect("a client is registered");
        // SAFETY: the block is registered, and the structure lives during the call.
        let status = unsafe { provider.capture(&raw mut *self.block, 0, &raw mut npi) };
        assert_eq!(status, STATUS_SUCCESS);
    }

    fn deregister(mut self) {
        let done = self.machine.deregister(|provider| {
            self.machine.watch("WskDeregister", provider, || {
                // SAFETY: the block is registered.
                unsafe { provider.deregister(&raw mut *self.block) }
            });
        });
        assert!(done.is_some(), "the provider runs while a client is registered");
    }
}

#[test]
fn the_provider_exists_while_a_client_is_registered() {
    let (kernel, machine, lines) = machine(Duration::from_mins(1));
    let _inside = kernel.enter();
    assert!(machine.running().is_none());
    let first = Client::register(&machine);
    let mut second = Client::register(&machine);
    first.deregister();
    second.capture();
    let provider = machine.running().expect("one is left");
    // SAFETY: the block is registered, and holds one capture.
    unsafe { provider.release(&raw mut *second.block) };
    drop(provider);
    assert_eq!(lines.take(), ["netio: start 1"]);
    second.deregister();
    assert!(machine.running().is_none());
    assert_eq!(lines.take(), ["netio: stop 1: violations=0 advice=0"]);
    assert!(machine.deregister(|_| ()).is_none(), "there is nothing to deregister from");
}

#[test]
fn a_registration_that_is_refused_starts_nothing_for_long() {
    let (kernel, machine, lines) = machine(Duration::from_mins(1));
    let _inside = kernel.enter();
    let mut block = WSK_REGISTRATION::zeroed();
    let status = machine.register(|provider| {
        // SAFETY: a null description is refused; the block lives during the call.
        unsafe { provider.register(ptr::null_mut(), &raw mut block) }
    });
    assert_ne!(status.expect("the network can be used"), STATUS_SUCCESS);
    assert!(machine.running().is_none());
    assert_eq!(lines.take(), ["netio: start 1", "netio: stop 1: violations=0 advice=0"]);
}

/// The numbers of threads and open files of this process.
#[cfg(target_os = "linux")]
fn held() -> (usize, usize) {
    let count =
        |directory: &str| std::fs::read_dir(directory).expect("the process can read its own state").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_runs_leave_nothing() {
    let (kernel, machine, lines) = machine(Duration::from_mins(1));
    let _inside = kernel.enter();
    for _ in 0..100 {
        let mut client = Client::register(&machine);
        client.capture();
        let provider = machine.running().expect("a client is registered");
        // SAFETY: the block is registered, and holds one capture.
        unsafe { provider.release(&raw mut *client.block) };
        drop(provider);
        client.deregister();
    }
    let stops = lines.take().into_iter().filter(|line| line.starts_with("netio: stop")).collect::<Vec<_>>();
    assert_eq!(stops.len(), 100);
    assert_eq!(stops[99], "netio: stop 100: violations=0 advice=0");
    // Other tests of this process run meanwhile; a leak of each run would still be visible.
    let (threads, files) = held();
    assert!(threads < 60 && files < 80, "{threads} threads and {files} files are left");
}

#[test]
fn the_journal_tells_what_a_deregistration_waits_for() {
    let (kernel, machine, lines) = machine(Duration::from_millis(20));
    let _inside = kernel.enter();
    let mut client = Client::register(&machine);
    client.capture();
    let block = &raw mut *client.block as usize;
    let other = {
        let (machine, lines) = (Arc::clone(&machine), lines.clone());
        kernel.spawn("the one who releases", move || {
            let expected =
                "netio: waiting WskDeregister: 1 captured NPI is not released, captured by thread `";
            let deadline = Instant::now() + Duration::from_secs(20);
            while !lines.0.lock().iter().any(|line| line.starts_with(expected)) {
                assert!(Instant::now() < deadline, "the journal has only {:?}", lines.0.lock());
                thread::sleep(Duration::from_millis(5));
            }
            let provider = machine.running().expect("a client is registered");
            // SAFETY: the block is registered until the deregistration ends, which waits for this.
            unsafe { provider.release(block as *mut WSK_REGISTRATION) };
        })
    }
    .expect("a thread can be started");
    // On a thread that holds no capture itself: that one would wait for itself.
    let machine_of_waiter = Arc::clone(&machine);
    kernel
        .spawn("the one who waits", move || {
            machine_of_waiter.deregister(|provider| {
                machine_of_waiter.watch("WskDeregister", provider, || {
                    // SAFETY: the block is registered; its owner waits for this thread.
                    unsafe { provider.deregister(block as *mut WSK_REGISTRATION) };
                });
            })
        })
        .expect("a thread can be started")
        .join()
        .expect("the deregistration ends");
    other.join().expect("the release ends");
    assert!(machine.running().is_none());
}

/// The objects that an unloaded image leaves are reported, once, and not those of others.
#[test]
fn an_image_that_goes_before_it_has_deregistered_is_named() {
    let (kernel, machine, lines) = machine(Duration::from_mins(1));
    let _inside = kernel.enter();
    let client = Client::register(&machine);
    let block = (&raw const *client.block).addr();
    let image = block & !0xFFF..(block & !0xFFF) + 0x2000;
    let other_image = image.end..image.end + 0x1000;
    lines.take();
    machine.image_unloads("other.sys", &image, || unreachable!("no client of that image has registered"));
    machine.client_at(block, |_| true);
    machine
        .image_unloads("other.sys", &other_image, || unreachable!("no client of that image has registered"));
    assert!(lines.take().is_empty());
    machine.image_unloads("echo.sys", &image, || 2);
    assert_eq!(
        lines.take(),
        [
            "netio: violation REG-27 DriverUnload: echo.sys is unloaded with objects left at WSK: \
             1 registration",
            "netio: violation LIFE-19 DriverUnload: echo.sys is unloaded, and 2 threads that began in it \
             have not ended",
        ]
    );
    client.deregister();
}

#[test]
fn an_image_that_has_deregistered_goes_in_silence() {
    let (kernel, machine, lines) = machine(Duration::from_mins(1));
    let _inside = kernel.enter();
    let client = Client::register(&machine);
    let block = (&raw const *client.block).addr();
    machine.client_at(block, |_| true);
    client.deregister();
    lines.take();
    machine.image_unloads("echo.sys", &(block..block + 1), || 0);
    assert!(lines.take().is_empty());
}

/// A table that a client has allocated, in memory that is reused when it is freed.
#[test]
fn what_lies_in_no_image_makes_none_a_clients() {
    let (kernel, machine, lines) = machine(Duration::from_mins(1));
    let _inside = kernel.enter();
    let table = 0x1000;
    for _ in 0..2 {
        machine.client_at(table, |address| {
            assert_eq!(address, table);
            false
        });
    }
    machine.image_unloads("later.sys", &(table..table + 0x1000), || {
        unreachable!("no client of that image has registered")
    });
    assert!(lines.take().is_empty());
}
