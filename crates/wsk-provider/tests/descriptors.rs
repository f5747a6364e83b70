//! A listener on a host that is out of descriptors. The test needs its own process, whose limit it lowers.
#![cfg(unix)]

mod common;

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use wsk_provider::transport::live::Live;
use wsk_provider::transport::{BindOptions, Transport};

use common::incoming;

#[test]
fn connections_wait_until_descriptors_are_free() {
    const CLIENTS: usize = 3;
    let limit = libc::rlimit { rlim_cur: 128, rlim_max: 128 };
    // SAFETY: the limit is read during the call only.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let live = Live::new().unwrap();
    live.start(Arc::new(|_, job| std::thread::Builder::new().spawn(job).map(drop)), Arc::new(|_| ()))
        .unwrap();
    let (sink, streams) = incoming();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = live.listen(local, &BindOptions::default(), sink).unwrap();
    listener.set_accepting(false);
    let address = listener.local_address().unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut others = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        others.push(file);
    }
    listener.set_accepting(true);
    assert!(streams.recv_timeout(Duration::from_millis(200)).is_err());
    drop(others);
    for _ in 0..CLIENTS {
        streams.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    drop(clients);
}
