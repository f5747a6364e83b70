//! Threads that are donated while they wait.

mod common;

use std::ffi::c_void;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::*;
use nt_user::{Idle, Kernel};
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// Runs a closure, then serves until it is over, which it checks only when it is kicked.
struct Work {
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    served: Mutex<Sender<Duration>>,
    kicks: Mutex<usize>,
    kicked: Condvar,
}

impl Idle for Work {
    fn serve(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        self.served.lock().unwrap().send(patience).unwrap();
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        let mut kicks = self.kicks.lock().unwrap();
        while !over() {
            let before = *kicks;
            kicks = self.kicked.wait_while(kicks, |kicks| *kicks == before).unwrap();
        }
    }

    fn kick(&self) {
        *self.kicks.lock().unwrap() += 1;
        self.kicked.notify_all();
    }
}

/// A kernel whose waiting threads run `first` once. The receiver gets the patience of each donated thread.
fn donating(first: impl FnOnce() + Send + 'static) -> (Kernel, Arc<Work>, Receiver<Duration>) {
    let (served, donated) = channel();
    let work = Arc::new(Work {
        first: Mutex::new(Some(Box::new(first))),
        served: Mutex::new(served),
        kicks: Mutex::default(),
        kicked: Condvar::new(),
    });
    let kernel = kernel();
    let idle: Arc<dyn Idle> = Arc::clone(&work) as _;
    kernel.set_idle(Arc::downgrade(&idle));
    (kernel, work, donated)
}

/// Runs `body` on a thread that a driver has created, and waits for its end.
fn system_thread(body: impl FnOnce() + Send) {
    unsafe extern "system" fn start<F: FnOnce()>(context: *mut c_void) {
        // SAFETY: the context is the slot below, which stays there until this thread has ended.
        let body = unsafe { &mut *context.cast::<Option<F>>() }.take();
        body.expect("a thread starts once")();
    }
    fn routine<F: FnOnce()>(_: *mut Option<F>) -> KSTART_ROUTINE {
        start::<F>
    }
    let mut slot = Some(body);
    let start = routine(&raw mut slot);
    let handle = create_thread(start, (&raw mut slot).cast());
    assert_eq!(join(handle), STATUS_SUCCESS);
}

/// A donated thread can complete the request that it waits for. It needs no wake-up then, also if others
/// sleep on the same event.
#[test]
fn a_donated_thread_signals_its_own_event() {
    let (to_first, event) = channel::<Shared<KEVENT>>();
    let (kernel, work, donated) = donating(move || {
        set(event.recv().unwrap().get());
    });
    run(&kernel, move || {
        let event = Event::synchronization();
        to_first.send(Shared::new(event.raw())).unwrap();
        system_thread(|| assert_eq!(event.wait(), STATUS_SUCCESS));
        assert_eq!(event.state(), 0, "the wait has taken the signal");
    });
    assert_eq!(donated.try_iter().count(), 1);
    assert_eq!(*work.kicks.lock().unwrap(), 0);
    finish_clean(&kernel);
}

/// A donated thread is not asleep, so a thread that signals its event kicks it.
#[test]
fn a_donated_thread_is_kicked_by_others() {
    for event in [Event::synchronization as fn() -> Event, Event::notification] {
        let (kernel, work, donated) = donating(|| {});
        let other = kernel.clone();
        run(&kernel, move || {
            let event = event();
            let target = Shared::new(event.raw());
            let signaler = other.spawn("signaler", move || {
                donated.recv().unwrap();
                set(target.get());
            });
            system_thread(|| assert_eq!(event.wait(), STATUS_SUCCESS));
            signaler.expect("a thread").join().expect("it does not panic");
        });
        assert_eq!(*work.kicks.lock().unwrap(), 1);
        finish_clean(&kernel);
    }
}

/// The patience is the rest of the wait, which times out as usual.
#[test]
fn a_donated_thread_has_its_own_deadline() {
    const PATIENCE: Duration = Duration::from_hours(1);
    let (kernel, work, donated) = donating(|| {});
    let other = kernel.clone();
    run(&kernel, move || {
        let event = Event::synchronization();
        let target = Shared::new(event.raw());
        let signaler = other.spawn("signaler", move || {
            let patience = donated.recv().unwrap();
            assert!(patience <= PATIENCE && patience > PATIENCE / 2, "{patience:?}");
            set(target.get());
        });
        system_thread(|| assert_eq!(event.wait_for(PATIENCE), STATUS_SUCCESS));
        signaler.expect("a thread").join().expect("it does not panic");
        system_thread(|| assert_eq!(event.poll(), STATUS_TIMEOUT));
    });
    drop(work);
    finish_clean(&kernel);
}

/// Only a driver's own threads are donated, outside of callbacks.
#[test]
fn others_are_not_donated() {
    let (kernel, work, donated) = donating(|| {});
    run(&kernel, move || {
        let event = Event::synchronization();
        // A host's thread.
        assert_eq!(event.wait_for(Duration::from_millis(1)), STATUS_TIMEOUT);
        // A poll, and a wait that is over before it begins.
        system_thread(|| {
            assert_eq!(event.poll(), STATUS_TIMEOUT);
            event.set();
            assert_eq!(event.wait(), STATUS_SUCCESS);
        });
    });
    drop(work);
    assert_eq!(donated.try_iter().count(), 0);
    finish_clean(&kernel);
}
