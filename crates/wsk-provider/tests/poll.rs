//! A host whose poll fails for a while. The test needs its own process, whose descriptors it exchanges.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsk_provider::transport::live::Live;
use wsk_provider::transport::{BindOptions, Transport};

use common::incoming;

/// Far longer than every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the polling descriptors of this process.
fn polls() -> Vec<RawFd> {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let polls = open
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("anon_inode:[eventpoll]")));
    polls.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Replaces the file of `to` with that of `from`.
fn exchange(from: RawFd, to: RawFd) {
    // SAFETY: both are open, and users of `to` are meant to see the other file.
    assert_eq!(unsafe { libc::dup2(from, to) }, to);
}

#[test]
fn a_failed_poll_is_reported_and_retried() {
    let live = Live::new().unwrap();
    let (complain, complaints) = channel();
    let complain = Mutex::new(complain);
    live.start(
        Arc::new(|_, job| std::thread::Builder::new().spawn(job).map(drop)),
        Arc::new(move |what| complain.lock().unwrap().send(what.to_owned()).unwrap()),
    )
    .unwrap();
    let (sink, streams) = incoming();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = live.listen(local, &BindOptions::default(), sink).unwrap();
    let address = listener.local_address().unwrap();
    let null = File::open("/dev/null").unwrap();
    // SAFETY: the descriptors are open.
    let kept: Vec<_> = polls().into_iter().map(|poll| (poll, unsafe { libc::dup(poll) })).collect();
    assert!(!kept.is_empty());
    for (poll, _) in &kept {
        exchange(null.as_raw_fd(), *poll);
    }
    live.kick();
    complaints.recv_timeout(PATIENCE).expect("the failure is reported");
    let _peer = TcpStream::connect(address).unwrap();
    assert!(streams.recv_timeout(Duration::from_millis(200)).is_err(), "nothing is heard");
    for (poll, copy) in &kept {
        exchange(*copy, *poll);
    }
    streams.recv_timeout(PATIENCE).expect("the stream is delivered");
    assert!(complaints.try_recv().is_err(), "once is enough");
    live.stop();
}
