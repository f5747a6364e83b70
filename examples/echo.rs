//! An echo server on the user-mode kernel: register, capture, listen, accept, receive, send, unload.
//!
//! ```console
//! $ cargo run --example echo
//! ```
//!
//! The program ends once it has served a client of its own.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use wsk::executor::block_on;
use wsk::{Buffer, Client, Connection, Passive, Provider, Result};
use wsk_sim::Sim;

/// Bound for WSK to appear, and for it to release everything at unload.
const LIMIT: Duration = Duration::from_secs(5);

fn main() {
    // Runs `driver` on a thread of a simulated kernel. Afterwards it fails if the driver broke a rule of WSK
    // or left anything behind.
    Sim::new().run(|_| driver().expect("the driver runs to its end"));
}

/// Everything from here on is code that a driver can use.
fn driver() -> Result<()> {
    // SAFETY: this is the start of a system thread, which runs at PASSIVE_LEVEL and holds no lock.
    let passive = unsafe { Passive::assume() };
    let client = Client::register(passive)?;
    let provider = client.capture(passive, LIMIT)?;
    block_on(passive, serve(provider))??;
    client.unload(passive, LIMIT).expect("all sockets are closed");
    Ok(())
}

async fn serve(provider: Provider) -> Result<()> {
    let listener = provider.listener().bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let visitor = visit(listener.local_addr());
    echo(listener.accept().await?).await?;
    visitor.join().expect("the client has got its bytes back");
    Ok(())
}

/// Sends every byte back until the peer has sent its last.
async fn echo(mut connection: Connection) -> Result<()> {
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
fn visit(server: SocketAddr) -> std::thread::JoinHandle<()> {
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
