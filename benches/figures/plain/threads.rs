//! A blocking server: one thread accepts, and every connection has a thread of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::BUFFER;
use crate::service::Role;

/// The server. Dropping it ends it; connections are served until their clients close.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(role: Role) -> Self {
        let listener = super::listen();
        let address = listener.local_addr().expect("a bound socket has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let acceptor = thread::spawn(move || accept(&listener, role, &stopped));
        Self { address, stop, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Gets the thread out of its accept.
        let knock = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor does not panic");
        }
        drop(knock);
    }
}

fn accept(listener: &TcpListener, role: Role, stop: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, remote)) = accepted else { continue };
        if remote.ip().is_loopback() {
            thread::spawn(move || match role {
                Role::Greet => greet(stream),
                Role::Echo | Role::Hold => echo(stream),
            });
        }
    }
}

/// A client that has gone ends its connection, which is all there is to do about it.
fn greet(mut stream: TcpStream) {
    if stream.write_all(&[0]).is_ok() {
        let _ = stream.read(&mut [0; BUFFER]);
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; BUFFER];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}
