//! An echo server on the user-mode kernel: listen, accept, receive, send.
//!
//! ```console
//! $ cargo run --example echo
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;

use wsk::{Buffer, Connection, Net, Result};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

async fn serve(net: Net) -> Result {
    let listener = net.provider().listener().bind(([127, 0, 0, 1], 0).into()).await?;
    let client = run_client(listener.local_addr());
    echo(listener.accept().await?).await?;
    client.join().expect("the client has got its bytes back");
    Ok(())
}

/// Sends every byte back until the peer has sent its last.
async fn echo(mut connection: Connection) -> Result {
    let mut buffer = Buffer::try_with_capacity(4096)?;
    loop {
        let (received, filled) = connection.receive(buffer).await;
        if received? == 0 {
            return connection.shutdown().await;
        }
        let (sent, empty) = connection.send(filled).await;
        sent?;
        buffer = empty;
    }
}

/// A client on the host: it says hello, and reads until the server has ended the connection.
fn run_client(server: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(server).expect("the server listens");
        stream.write_all(b"hello\n").expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("echoed");
        assert_eq!(reply, "hello\n");
        println!("{server} echoed {reply:?}");
    })
}
