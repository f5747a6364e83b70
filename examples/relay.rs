//! A relay on the user-mode kernel: received data is sent on without a copy.
//!
//! ```console
//! $ cargo run --example relay
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use wsk::{Events, Handlers, Indication, Net, ReceiveHandler, Result, RetainedData, Taken};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

/// Handler that keeps what comes, in the memory of the network adapter, and hands it to the task.
struct Keeps(Mutex<Sender<RetainedData>>);

impl ReceiveHandler for Keeps {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        match data.retain() {
            Ok((taken, retained)) => {
                self.0.lock().expect("no handler panics").send(retained).expect("the task waits");
                taken
            }
            // WSK keeps the data, and indicates it again.
            Err((_, data)) => data.refuse(),
        }
    }
}

async fn serve(net: Net) -> Result {
    let listener = net.provider().listener().bind(([127, 0, 0, 1], 0).into()).await?;
    let (kept, data) = channel();
    let handlers = Handlers::new().receive(Keeps(Mutex::new(kept)));
    let client = run_client(listener.local_addr());
    let from = listener.accept_with(handlers).await?;
    let mut to = listener.accept().await?;
    from.enable(Events::RECEIVE)?;
    let mut relayed = 0;
    while relayed < 5 {
        let retained = data.recv().expect("data comes");
        // Each piece can be sent by itself; the memory goes back when the last one is dropped.
        for piece in retained.into_pieces().map_err(|(error, _)| error)? {
            let (sent, _piece) = to.send(piece).await;
            relayed += sent?;
        }
    }
    to.shutdown().await?;
    client.join().expect("the client has got its bytes");
    Ok(())
}

/// A client on the host: what it sends on its first connection comes back on the second.
fn run_client(server: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut first = TcpStream::connect(server).expect("the server listens");
        let mut second = TcpStream::connect(server).expect("the server listens");
        first.write_all(b"relay").expect("sent");
        first.shutdown(Shutdown::Write).expect("ended");
        let mut text = String::new();
        second.read_to_string(&mut text).expect("relayed");
        assert_eq!(text, "relay");
        println!("{text:?} has come without a copy");
    })
}
