//! Conditional accept on the user-mode kernel: each request is decided before there is a connection.
//!
//! ```console
//! $ cargo run --example conditional_accept
//! ```
//!
//! The program ends once it has served a client of its own.

mod support;

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use wsk::{Buffer, Decision, InspectHandler, Inspection, Net, Result};

/// Runs the driver: [`support::run`] starts and stops the network that [`serve`] gets.
fn main() {
    support::run(serve);
}

// Everything from here on is code that a driver can use, but for the clients.

/// Rejects the first request and accepts all others.
#[derive(Default)]
struct NotTheFirst(AtomicBool);

impl InspectHandler for NotTheFirst {
    /// Runs in WSK's callback, at up to `DISPATCH_LEVEL`. `request.pend()` would postpone the decision; the
    /// sample in `examples/conditional-accept` does that.
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        if self.0.swap(true, Ordering::Relaxed) { request.accept() } else { request.reject() }
    }
}

async fn serve(net: Net) -> Result {
    let builder = net.provider().listener().inspect(NotTheFirst::default());
    let listener = builder.bind(([127, 0, 0, 1], 0).into()).await?;
    let clients = run_clients(listener.local_addr());
    // Only the second request becomes a connection.
    let mut connection = listener.accept().await?;
    let (sent, _buffer) = connection.send(Buffer::try_from_slice(b"welcome\n")?).await;
    sent?;
    connection.shutdown().await?;
    clients.join().expect("one client was refused and one was served");
    Ok(())
}

/// Two clients on the host, one after the other. A rejected request looks like a reset connection.
fn run_clients(server: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let read = || {
            let mut text = String::new();
            TcpStream::connect(server)?.read_to_string(&mut text).map(|_| text)
        };
        let refused = read().expect_err("the first request is rejected");
        assert!(matches!(refused.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused));
        println!("first client: {refused}");
        let text = read().expect("the second request is accepted");
        assert_eq!(text, "welcome\n");
        println!("second client: {text:?}");
    })
}
