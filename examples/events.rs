//! Events on the user-mode kernel: connections, data and disconnects that come to handlers.
//!
//! ```console
//! $ cargo run --example events
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use wsk::{
    AcceptHandler, Connection, DisconnectHandler, DisconnectKind, Events, Handlers, Incoming, Indication,
    ListenerEvents, Net, ReceiveHandler, Result, Taken,
};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

/// Handler of all that happens on a connection. It runs in WSK's callbacks, at up to `DISPATCH_LEVEL`.
struct Prints;

impl ReceiveHandler for Prints {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        println!("{} bytes have come", data.len());
        data.accept()
    }
}

impl DisconnectHandler for Prints {
    fn disconnected(&self, kind: DisconnectKind) {
        println!("the peer has disconnected: {kind:?}");
    }
}

/// Handler of new connections, which hands them to the task.
struct Accepts(Mutex<Sender<Connection>>);

impl AcceptHandler for Accepts {
    type Handlers = Handlers<Prints, Prints>;

    fn accept(&self, incoming: Incoming<'_, Self::Handlers>) {
        // Without memory the connection is refused.
        if let Ok(connection) = incoming.accept(Handlers::new().receive(Prints).disconnect(Prints)) {
            self.0.lock().expect("no handler panics").send(connection).expect("the task waits");
        }
    }
}

async fn serve(net: Net) -> Result {
    let (accepted, connections) = channel();
    let builder = net.provider().listener().on_accept(Accepts(Mutex::new(accepted)));
    let listener = builder.bind(([127, 0, 0, 1], 0).into()).await?;
    // Each connection starts with these events on.
    listener.inherit(Events::RECEIVE | Events::DISCONNECT)?;
    listener.enable(ListenerEvents::ACCEPT)?;
    let client = run_client(listener.local_addr());
    // A driver would not block here; this program has nothing else to do.
    let mut connection = connections.recv().expect("the client comes");
    client.join().expect("the client has sent its bytes");
    connection.shutdown().await?;
    connection.close().await;
    Ok(())
}

/// A client on the host: it sends two pieces of data and ends its side.
fn run_client(server: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(server).expect("the server listens");
        stream.write_all(b"some data").expect("sent");
        stream.write_all(b"and more").expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
        let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(1)));
        let _ = stream.read(&mut [0]);
    })
}
