//! Conditional accept on the user-mode kernel: each connection request is decided before there is a
//! connection.
//!
//! ```console
//! $ cargo run --example conditional_accept
//! ```
//!
//! The program ends once it has refused one client of its own and accepted another. The sample in
//! `examples/conditional-accept` shows more: pended requests, a control device, and the same code as a
//! driver.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wsk::executor::block_on;
use wsk::{Buffer, Client, Decision, InspectHandler, Inspection, Passive, Provider, Result};
use wsk_sim::Sim;

/// Bound for WSK to appear, and for it to release everything at unload.
const LIMIT: Duration = Duration::from_secs(5);

/// Rejects the first request and accepts all others.
#[derive(Default)]
struct NotTheFirst(AtomicBool);

impl InspectHandler for NotTheFirst {
    /// Runs in WSK's callback, at up to `DISPATCH_LEVEL`. `request.pend()` would postpone the decision.
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        if self.0.swap(true, Ordering::Relaxed) { request.accept() } else { request.reject() }
    }
}

fn main() {
    // Runs `driver` on a thread of a simulated kernel. Afterwards it fails if the driver broke a rule of WSK
    // or left anything behind.
    Sim::new().run(|_| driver().expect("the driver runs to its end"));
}

/// Everything in here is code that a driver can use.
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
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = provider.listener().inspect(NotTheFirst::default()).bind(address).await?;
    let visitors = visit_twice(listener.local_addr());
    // Only the second request becomes a connection.
    let mut connection = listener.accept().await?;
    let (sent, _buffer) = connection.send(Buffer::try_from_slice(b"welcome\n")?).await;
    sent?;
    connection.shutdown().await?;
    visitors.join().expect("one client was refused and one was served");
    Ok(())
}

/// Two clients on the host, one after the other. A rejected request looks like a reset connection.
fn visit_twice(server: SocketAddr) -> std::thread::JoinHandle<()> {
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
