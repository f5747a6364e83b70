//! Datagrams on the user-mode kernel: an echo server over UDP.
//!
//! ```console
//! $ cargo run --example datagram
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::thread::JoinHandle;

use wsk::options::ExclusiveAddress;
use wsk::{Buffer, Net, Result};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

async fn serve(net: Net) -> Result {
    let builder = net.provider().datagram().option(ExclusiveAddress(true));
    let socket = builder.bind(([127, 0, 0, 1], 0).into()).await?;
    let client = run_client(socket.local_addr());
    let mut buffer = Buffer::try_with_capacity(512)?;
    let mut served = 0;
    while served < 3 {
        let (received, filled) = socket.receive_from(buffer).await;
        buffer = match received {
            Ok(datagram) => {
                println!("{} bytes from {}", datagram.len, datagram.from);
                served += 1;
                // A datagram that cannot be sent is lost, as datagrams may be.
                socket.send_to(filled, datagram.from).await.1
            }
            Err(error) if error.is_transient() => {
                socket.pause().await;
                filled
            }
            Err(error) => return Err(error),
        };
    }
    client.join().expect("the client has got its datagrams back");
    Ok(())
}

/// A client on the host: it sends three datagrams, and waits for each to come back.
fn run_client(server: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        for text in ["one", "two", "three"] {
            socket.send_to(text.as_bytes(), server).expect("sent");
            let mut reply = [0; 16];
            let (length, from) = socket.recv_from(&mut reply).expect("echoed");
            assert_eq!((&reply[..length], from), (text.as_bytes(), server));
        }
    })
}
