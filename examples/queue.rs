//! Receive queues and time limits on the user-mode kernel: several receives are under way on one connection.
//!
//! ```console
//! $ cargo run --example queue
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use wsk::{Net, ReceiveHalf, Result};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

/// Limit on the wait for a client, and for the end of a connection.
const LIMIT: Duration = Duration::from_secs(10);

async fn serve(net: Net) -> Result {
    let listener = net.provider().listener().bind(([127, 0, 0, 1], 0).into()).await?;
    let client = run_client(listener.local_addr());
    // A connection that comes when the time is just up is the result, and not lost.
    let connection = listener.accept().within(LIMIT).await?;
    let (mut receive, mut send) = connection.into_split();
    println!("{} bytes", count(&mut receive).await?);
    send.shutdown().within(LIMIT).await?;
    client.join().expect("the client has sent its bytes");
    Ok(())
}

/// Counts the bytes of a stream with four receives under way, whose bytes come out in order.
async fn count(receive: &mut ReceiveHalf) -> Result<usize> {
    let mut total = 0;
    let mut queue = receive.queue(4, 4096)?;
    while let Some(buffer) = queue.next().await? {
        total += buffer.len();
        queue.put_back(buffer);
    }
    Ok(total)
}

/// A client on the host: it sends a megabyte.
fn run_client(server: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(server).expect("the server listens");
        stream.write_all(&vec![7; 1 << 20]).expect("sent");
    })
}
