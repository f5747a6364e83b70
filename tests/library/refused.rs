//! Refusals of the library itself are not taken for WSK's word, and what WSK says of a dead socket is.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::task::Poll;

use wsk::{
    AcceptHandler, Buffer, Connection, Events, Handlers, Incoming, Listener, ListenerEvents, Result, Status,
};
use wsk_sim::raw::Peer;
use wsk_sim::{Completion, FaultPoint, Sim};

use crate::support::*;

fn bytes() -> Buffer {
    Buffer::try_from_slice(b"bytes").unwrap()
}

/// Stops the thread that makes the next call in which `knob` is looked at, until the test lets it go on.
struct Stopped {
    reached: Told<()>,
    go_on: Tell<()>,
}

impl Stopped {
    fn at(sim: &Sim, knob: FaultPoint) -> Self {
        let (tell_reached, reached) = channel();
        let (go_on, told) = channel();
        let mut first = true;
        sim.choose_by(knob, move |_| {
            if std::mem::take(&mut first) {
                tell_reached.say(());
                told.next();
            }
            0
        });
        Self { reached, go_on }
    }
}

/// Takes no connection.
struct Nobody;

impl AcceptHandler for Nobody {
    type Handlers = Handlers;

    fn accept(&self, _incoming: Incoming<'_, Handlers>) {}
}

/// The status of what is answered at once, without asking WSK.
fn refusal<T>(answer: impl Future<Output = Result<T>>) -> Status {
    match poll(&mut Box::pin(answer)) {
        Poll::Ready(Err(error)) => error.status(),
        Poll::Ready(Ok(_)) => panic!("the listener is closing"),
        Poll::Pending => panic!("it waits, though there is nothing to wait for"),
    }
}

/// Everything that can be asked of a listener.
const ASKS: [fn(&Listener) -> Status; 5] = [
    |listener| refusal(listener.accept()),
    |listener| refusal(listener.accept_with(Handlers::new().receive(Drops))),
    |listener| refusal(std::future::ready(listener.enable(ListenerEvents::ACCEPT))),
    |listener| refusal(std::future::ready(listener.disable(ListenerEvents::ACCEPT))),
    |listener| refusal(listener.disable_and_wait(ListenerEvents::ACCEPT)),
];

/// A closing listener refuses whatever it is asked, and is not dead for that: what is pended is rejected, as
/// WSK must be told before the close.
///
/// Prevents: INSP-18, CLOSE-13
#[test]
fn a_closing_listener_is_not_a_dead_one() {
    for ask in ASKS {
        Sim::builder().completion(Completion::Inline).build().run(move |sim| {
            let driver = Driver::start();
            let (tell_tokens, tokens) = channel();
            let (tell_aborts, _aborts) = channel();
            let gate = PendingGate { tokens: tell_tokens, aborts: tell_aborts };
            let builder = driver.provider.listener().conditional(gate).on_accept(Nobody);
            let listener = wait(builder.bind(localhost())).unwrap();
            let peer = Peer::connect(listener.local_addr());
            let token = tokens.next();
            // The client closes its newest socket first. While that close is made the listener's has yet to
            // come.
            let newer = driver.listen();
            let close = Stopped::at(sim, FaultPoint::CloseFails);
            let unloading = sim.thread("unloading", move || driver.unload());
            close.reached.next();
            assert_eq!(ask(&listener), Status::FILE_FORCED_CLOSED);
            close.go_on.say(());
            unloading.join().unwrap();
            assert!(token.is_aborted());
            peer.expect_reset();
            drop((listener, newer));
        });
    }
}

/// The same while the loop of a server asks for connections, as fast as it can, when its client is unloaded.
///
/// Prevents: INSP-18
#[test]
fn a_server_accepts_until_it_is_unloaded() {
    for _ in 0..10 {
        Sim::new().run(|sim| {
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let plain = driver.listen();
            let accepted: Vec<_> = (0..10).map(|_| connected(&plain)).collect();
            let peer = Peer::connect(pending.listener.local_addr());
            let token = pending.tokens.next();
            let listener = pending.listener;
            let server = sim.thread("server", move || {
                loop {
                    match poll(&mut Box::pin(listener.accept())) {
                        // The close may end one that was asked for just before.
                        Poll::Ready(Err(error)) if error.status() != Status::CANCELLED => {
                            return error.status();
                        }
                        _ => {}
                    }
                }
            });
            driver.unload();
            // Refused, or under way when the listener was closed.
            let ended = server.join().unwrap();
            assert!([Status::FILE_FORCED_CLOSED, Status::CANCELLED].contains(&ended), "{ended:?}");
            peer.expect_reset();
            drop((token, accepted, plain));
        });
    }
}

/// Requests that can be made on a connection; `false` if the future is to be dropped without a look at what
/// it brings.
type AskConnection = fn(&mut Connection, bool);

/// Takes all data.
struct Drops;

impl wsk::ReceiveHandler for Drops {
    fn receive<'a>(&self, data: wsk::Indication<'a>) -> wsk::Taken<'a> {
        data.accept()
    }
}

/// Polls a future, and waits for its end or drops it.
fn run<F: Future>(future: F, to_its_end: bool) -> Option<F::Output> {
    let mut future = Box::pin(future);
    match poll(&mut future) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => to_its_end.then(|| wait(future)),
    }
}

fn dies<T>(outcome: Option<Result<T>>) {
    if let Some(outcome) = outcome {
        assert!(outcome.err().expect("the socket dies").is_socket_dead());
    }
}

const CONNECTION_ASKS: [AskConnection; 12] = [
    |connection, to_its_end| dies(run(connection.receive(bytes()), to_its_end).map(|(result, _)| result)),
    |connection, to_its_end| {
        dies(run(connection.receive_exact(bytes()), to_its_end).map(|(result, _)| result));
    },
    |connection, to_its_end| dies(run(connection.drain(), to_its_end)),
    |connection, to_its_end| dies(run(connection.send(bytes()), to_its_end).map(|(result, _)| result)),
    |connection, to_its_end| dies(run(connection.shutdown(), to_its_end)),
    |connection, to_its_end| {
        dies(run(connection.shutdown_after(bytes()), to_its_end).map(|(result, _)| result));
    },
    |connection, to_its_end| dies(run(connection.abort(), to_its_end)),
    |connection, to_its_end| dies(run(connection.receive_backlog(), to_its_end)),
    |connection, to_its_end| dies(run(connection.disable_and_wait(Events::RECEIVE), to_its_end)),
    |connection, _| dies(Some(connection.enable(Events::RECEIVE))),
    |connection, _| dies(Some(connection.disable(Events::RECEIVE))),
    |connection, _| dies(Some(connection.inspect_id())),
];

/// A connection that dies in any call closes itself, whether or not anybody looks at what the call brought.
///
/// Prevents: LIFE-17
#[test]
fn a_connection_that_dies_in_a_call_closes_itself() {
    for completion in [Completion::Inline, Completion::PendEarly, Completion::PendLate] {
        for to_its_end in [true, false] {
            Sim::builder().completion(completion).build().run(move |sim| {
                let driver = Driver::start();
                let listener = driver.listen();
                for ask in CONNECTION_ASKS {
                    let peer = Peer::connect(listener.local_addr());
                    let mut connection = wait(listener.accept_with(Handlers::new().receive(Drops))).unwrap();
                    sim.choose_once(FaultPoint::DieInCall, 1);
                    ask(&mut connection, to_its_end);
                    driver.await_sockets(1);
                    assert!(!connection.is_open());
                    drop(connection);
                    peer.expect_reset();
                }
                drop(listener);
                driver.unload();
            });
        }
    }
}

/// Requests that can be made on a listener.
type AskListener = fn(&Pending, bool);

const LISTENER_ASKS: [AskListener; 3] = [
    |pending, to_its_end| dies(run(pending.listener.accept(), to_its_end)),
    |pending, to_its_end| dies(run(pending.listener.disable_and_wait(ListenerEvents::ACCEPT), to_its_end)),
    |pending, _| dies(Some(pending.listener.disable(ListenerEvents::ACCEPT))),
];

/// A listener that dies in any call closes itself, and its pended requests are gone.
///
/// Prevents: LSN-07, LIFE-17
#[test]
fn a_listener_that_dies_in_a_call_closes_itself() {
    for completion in [Completion::Inline, Completion::PendEarly, Completion::PendLate] {
        for to_its_end in [true, false] {
            Sim::builder().completion(completion).build().run(move |sim| {
                let driver = Driver::start();
                for ask in LISTENER_ASKS {
                    let pending = driver.listen_pending();
                    let pended = count_pended(sim);
                    let peer = Peer::connect(pending.listener.local_addr());
                    let token = pending.tokens.next();
                    // Before that a decision is no call.
                    eventually(|| pended.load(Ordering::SeqCst) == 1);
                    sim.choose_once(FaultPoint::DieInCall, 1);
                    ask(&pending, to_its_end);
                    driver.await_sockets(0);
                    assert!(!pending.listener.is_open());
                    drop((pending, token));
                    peer.expect_reset();
                }
                driver.unload();
            });
        }
    }
}

/// Calls on a connection whose close was asked for while a call is being made are refused, with the status
/// that they have always had.
///
/// Prevents: CLOSE-13
#[test]
fn a_closing_connection_refuses_everything() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, _peer) = connected(&listener);
        // A call that is being made keeps the close from starting.
        let call = Stopped::at(sim, FaultPoint::DieInCall);
        let caller = {
            let control = connection.control();
            sim.thread("caller", move || wait(control.receive_backlog()))
        };
        call.reached.next();
        let unloading = sim.thread("unloading", move || driver.unload());
        eventually(|| !connection.is_open());
        let closed = Status::FILE_FORCED_CLOSED;
        assert_eq!(refusal(run_first(connection.receive(bytes()))), closed);
        assert_eq!(refusal(run_first(connection.send(bytes()))), closed);
        assert_eq!(refusal(connection.abort()), closed);
        assert_eq!(refusal(connection.shutdown()), closed);
        assert_eq!(refusal(connection.ideal_send_backlog()), closed);
        assert_eq!(refusal(std::future::ready(connection.inspect_id())), closed);
        // A receive that was refused has given its turn back.
        assert_eq!(refusal(run_first(connection.receive(bytes()))), closed);
        call.go_on.say(());
        caller.join().unwrap().unwrap();
        unloading.join().unwrap();
        drop((connection, listener));
    });
}

async fn run_first<T>(future: impl Future<Output = (Result<T>, Buffer)>) -> Result<T> {
    future.await.0
}
