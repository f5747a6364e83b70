//! A host without further threads: deferred work of the provider waits, and never runs on the thread that
//! defers it.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use wsk_sim::nt_user::platform::{Live, Platform};
use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};
use wsk_sys::*;

use crate::support::*;

/// Real threads and real time, until there are no more threads.
#[derive(Debug, Default)]
pub(crate) struct Scarce {
    live: Live,
    refused: Mutex<Option<&'static str>>,
}

impl Scarce {
    /// A machine on such a host.
    pub(crate) fn machine(completion: Completion) -> (Sim, Arc<Self>) {
        let host = Arc::new(Self::default());
        let platform: Arc<dyn Platform> = Arc::clone(&host) as _;
        let sim =
            Sim::builder().completion(completion).kernel(|kernel| kernel.platform = Some(platform)).build();
        (sim, host)
    }

    /// Denies the provider further callback threads. Threads for the test itself are still available.
    pub(crate) fn run_out(&self) {
        self.refuse(Some("wsk callbacks"));
    }

    /// There are no threads of this name, and of others there are.
    fn refuse(&self, name: Option<&'static str>) {
        *self.refused.lock().unwrap() = name;
    }
}

impl Platform for Scarce {
    fn base(&self) -> &dyn Platform {
        &self.live
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if *self.refused.lock().unwrap() == Some(name) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.live.spawn(name, body)
    }
}

/// Runs `call` on another thread, which may never return.
#[track_caller]
pub(crate) fn comes_back(sim: &Sim, call: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    drop(sim.thread("call", move || {
        call();
        let _ = done.send(());
    }));
    ended.recv_timeout(BOUND).expect("the call comes back");
}

/// Shows: IRP-15
#[test]
fn a_request_that_was_cancelled_before_it_came_ends_without_a_new_thread() {
    let (sim, host) = Scarce::machine(Completion::Natural);
    sim.run(move |sim| {
        let client = Arc::new(Client::new());
        let (listener, _) = client.bound_listener(&Recorder::new());
        let listener = Arc::new(listener);
        host.run_out();
        let own = Arc::clone(&listener);
        comes_back(sim, move || {
            let request = Request::new();
            request.cancel();
            request.accept(&own, None, 0).fails(STATUS_CANCELLED);
        });
        let own = Arc::clone(&client);
        comes_back(sim, move || {
            let request = Request::new();
            request.cancel();
            own.control(request, WSK_TRANSPORT_LIST_CHANGE, None, None, None).fails(STATUS_CANCELLED);
        });
    });
}

/// Shows: SOCK-19
#[test]
fn a_connect_given_up_takes_its_socket_along_without_a_new_thread() {
    let (sim, host) = Scarce::machine(Completion::Natural);
    sim.run(move |sim| {
        let client = Client::new();
        let silent = SilentHost::new();
        let connect = client.socket_connect(Request::new(), ANY, silent.address(), 0, None).pends();
        host.run_out();
        comes_back(sim, move || {
            connect.cancel();
            connect.fails(STATUS_CANCELLED);
        });
        eventually("the socket goes", || sim.provider().open_sockets().is_empty());
    });
}

/// Shows: REG-08
#[test]
fn a_provider_without_a_thread_for_callbacks_does_not_arrive() {
    let host = Arc::new(Scarce::default());
    let platform: Arc<dyn Platform> = Arc::clone(&host) as _;
    host.run_out();
    Sim::builder().late().kernel(|kernel| kernel.platform = Some(platform)).build().run(move |sim| {
        assert!(!sim.provider().arrive());
        let client = Client::registered(MAKE_WSK_VERSION(1, 0)).unwrap();
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_DEVICE_NOT_READY));
        host.refuse(None);
        assert!(sim.provider().arrive());
        assert_eq!(client.capture(WSK_NO_WAIT), Ok(()));
    });
}

/// Shows: BIND-10
#[test]
fn a_bind_without_a_thread_for_the_network_fails_and_may_be_tried_again() {
    let (sim, host) = Scarce::machine(Completion::Natural);
    sim.run(move |_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        for name in ["wsk reactor", "wsk reactor standby"] {
            host.refuse(Some(name));
            listener.bind(LOCALHOST).fails(STATUS_INSUFFICIENT_RESOURCES);
        }
        host.refuse(None);
        let address = listener.bind_localhost();
        let _peer = Peer::connect(address);
        listener.accept().socket().close().ok();
    });
}
