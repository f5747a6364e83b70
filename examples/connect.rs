//! An outgoing connection on the user-mode kernel, both halves of which are used at the same time.
//!
//! ```console
//! $ cargo run --example connect
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use wsk::options::KeepAlive;
use wsk::{Buffer, Net, Result};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

async fn serve(net: Net) -> Result {
    let (server, address) = server();
    let connection = net.provider().connect(address).await?;
    connection.set(KeepAlive(true)).await?;
    println!("{} is connected to {}", connection.local_addr(), connection.peer_addr());

    let (mut receive, mut send) = connection.into_split();
    // Submitted at once, in this order; their results are awaited while the answer is.
    let question = send.post(Buffer::try_from_slice(b"what time is it")?);
    let mark = send.post(Buffer::try_from_slice(b"?")?);
    let (received, answer) = receive.receive_exact(Buffer::try_with_capacity(6)?).await;
    received?;
    println!("the answer: {:?}", String::from_utf8_lossy(&answer));
    for posted in [question, mark] {
        let (sent, _buffer) = posted.await;
        sent?;
    }
    send.shutdown().await?;
    receive.drain().await?;
    server.join().expect("the server was asked");
    Ok(())
}

/// A server on the host, which answers one question.
fn server() -> (JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the driver connects");
        let mut question = [0; 16];
        stream.read_exact(&mut question).expect("a question");
        assert_eq!(&question, b"what time is it?");
        stream.write_all(b"late\r\n").expect("an answer");
    });
    (server, address)
}
