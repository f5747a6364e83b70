//! The client: one thread that keeps many connections busy, so that it costs the same whatever it talks to.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

/// Time for which nothing may happen before the client gives up, and the benchmark with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for events.
fn wait(poll: &mut Poll, events: &mut Events) {
    loop {
        match poll.poll(events, Some(PATIENCE)) {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("the client cannot poll: {error}"),
        }
    }
    assert!(!events.is_empty(), "the server has not answered for {PATIENCE:?}");
}

/// Has the connection reset when it is dropped, which leaves no port in `TIME_WAIT`.
fn reset_at_end(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("a connection can linger");
}

/// Keeps so many calls open at a time, then closes them all with a reset.
pub(crate) fn occupy(address: SocketAddr, calls: usize) {
    let call = |_| {
        let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a connection can linger");
        stream.read_exact(&mut [0]).expect("the server greets");
        stream
    };
    drop((0..calls).map(call).collect::<Vec<_>>());
}

/// Connects, waits for the greeting, closes with a reset, and connects again.
#[derive(Debug)]
pub(crate) struct Callers {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    calls: Vec<Option<TcpStream>>,
}

impl Callers {
    /// So many calls will be under way at a time.
    pub(crate) fn new(address: SocketAddr, calls: usize) -> Self {
        let poll = Poll::new().expect("the host can poll");
        let mut none = Vec::new();
        none.resize_with(calls, || None);
        Self { poll, events: Events::with_capacity(calls), address, calls: none }
    }

    fn place(&mut self, call: usize) {
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        reset_at_end(&stream);
        self.poll.registry().register(&mut stream, Token(call), Interest::READABLE).expect("room to poll");
        self.calls[call] = Some(stream);
    }

    /// Makes `count` calls.
    pub(crate) fn call(&mut self, count: u64) {
        let mut to_place = count;
        for call in 0..self.calls.len().min(usize::try_from(count).unwrap_or(usize::MAX)) {
            self.place(call);
            to_place -= 1;
        }
        let mut to_end = count;
        while to_end > 0 {
            wait(&mut self.poll, &mut self.events);
            let ready: Vec<_> = self.events.iter().map(|event| event.token().0).collect();
            for call in ready {
                let Some(stream) = &mut self.calls[call] else { continue };
                match stream.read(&mut [0; 8]) {
                    Ok(1) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    other => panic!("a call was answered with {other:?}"),
                }
                self.calls[call] = None;
                to_end -= 1;
                if to_place > 0 {
                    to_place -= 1;
                    self.place(call);
                }
            }
        }
    }
}

/// One connection and how much of its answer has come.
#[derive(Debug)]
struct Talk {
    stream: TcpStream,
    answered: usize,
}

/// Sends a message on each connection, waits for all of it to come back, and sends again.
#[derive(Debug)]
pub(crate) struct Talkers {
    poll: Poll,
    events: Events,
    talks: Vec<Talk>,
    message: Vec<u8>,
    answer: Vec<u8>,
}

impl Talkers {
    /// Connects so many times; messages have `message` bytes.
    pub(crate) fn connect(address: SocketAddr, talks: usize, message: usize) -> Self {
        let poll = Poll::new().expect("the host can poll");
        let connect = |index| {
            let stream = std::net::TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).expect("a connection need not delay");
            stream.set_nonblocking(true).expect("a connection need not block");
            let mut stream = TcpStream::from_std(stream);
            reset_at_end(&stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE).expect("room to poll");
            Talk { stream, answered: 0 }
        };
        let talks = (0..talks).map(connect).collect::<Vec<_>>();
        let events = Events::with_capacity(talks.len());
        let message = (0..message).map(|index| index as u8).collect::<Vec<_>>();
        Self { poll, events, talks, answer: vec![0; message.len()], message }
    }

    /// Makes `count` round trips.
    pub(crate) fn talk(&mut self, count: u64) {
        let Self { poll, events, talks, message, answer } = self;
        let say = |talk: &mut Talk| {
            talk.answered = 0;
            let sent = talk.stream.write(message).expect("the server is there");
            assert_eq!(sent, message.len(), "a message fits into the host's buffers");
        };
        let mut to_say = count;
        for talk in talks.iter_mut().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            say(talk);
            to_say -= 1;
        }
        let mut to_hear = count;
        while to_hear > 0 {
            wait(poll, events);
            for event in &*events {
                let talk = &mut talks[event.token().0];
                match talk.stream.read(&mut answer[talk.answered..]) {
                    Ok(0) => panic!("the server has hung up"),
                    Ok(bytes) => talk.answered += bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => panic!("the server has gone: {error}"),
                }
                if talk.answered < message.len() {
                    continue;
                }
                assert!(answer == message, "the answer is the message");
                to_hear -= 1;
                if to_say > 0 {
                    to_say -= 1;
                    say(talk);
                }
            }
        }
    }
}
