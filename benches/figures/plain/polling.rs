//! A server with one thread, which polls.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::BUFFER;
use crate::service::Role;

const LISTENER: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX);

/// The server. Dropping it ends it and its connections.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(role: Role) -> Self {
        let listener = super::listen();
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a listener need not block");
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new().expect("the host can poll");
        let waker = Waker::new(poll.registry(), STOP).expect("the host can wake a poll");
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("room to poll");
        let loops = Loop { poll, listener, role, connections: Vec::new(), free: Vec::new() };
        let thread = thread::Builder::new().name("mio server".to_owned());
        let thread = thread.spawn(move || loops.run()).expect("the host has threads");
        Self { address, waker, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.waker.wake().expect("the thread polls");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

/// A connection, and what it is still owed.
struct Connection {
    stream: TcpStream,
    token: Token,
    owed: Vec<u8>,
}

struct Loop {
    poll: Poll,
    listener: TcpListener,
    role: Role,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Loop {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = [0; BUFFER];
        loop {
            match self.poll.poll(&mut events, None) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("the server cannot poll: {error}"),
            }
            for event in &events {
                match event.token() {
                    STOP => return,
                    LISTENER => self.accept(),
                    Token(index) => {
                        let Some(connection) = &mut self.connections[index] else { continue };
                        if !connection.serve(self.role, &mut buffer, self.poll.registry()) {
                            self.connections[index] = None;
                            self.free.push(index);
                        }
                    }
                }
            }
        }
    }

    /// Takes what waits.
    fn accept(&mut self) {
        loop {
            let (mut stream, remote) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            if !remote.ip().is_loopback() {
                continue;
            }
            if self.role == Role::Greet && stream.write(&[0]).is_err() {
                continue;
            }
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = Token(index);
            self.poll.registry().register(&mut stream, token, Interest::READABLE).expect("room to poll");
            self.connections[index] = Some(Connection { stream, token, owed: Vec::new() });
        }
    }
}

impl Connection {
    /// Does what can be done now; false if the connection is over.
    fn serve(&mut self, role: Role, buffer: &mut [u8], registry: &Registry) -> bool {
        loop {
            if !self.owed.is_empty() {
                match sent(self.stream.write(&self.owed)) {
                    Some(0) => return true,
                    Some(sent) => drop(self.owed.drain(..sent)),
                    None => return false,
                }
                continue;
            }
            let bytes = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(bytes) => bytes,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            if role == Role::Echo {
                let Some(sent) = sent(self.stream.write(&buffer[..bytes])) else { return false };
                if sent < bytes {
                    self.owed.extend_from_slice(&buffer[sent..bytes]);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    registry.reregister(&mut self.stream, self.token, interest).expect("room to poll");
                    return true;
                }
            }
            if bytes < buffer.len() {
                // There was no more; the poll reports what comes next.
                return true;
            }
        }
    }
}

/// Number of bytes that were sent; `None` if the connection is over.
fn sent(result: io::Result<usize>) -> Option<usize> {
    match result {
        Ok(bytes) => Some(bytes),
        Err(error) => (error.kind() == ErrorKind::WouldBlock).then_some(0),
    }
}
