//! Wholeness of the stream that is sent: once its end was asked for, nothing is taken out of the middle.

use std::time::Duration;

use wsk::{Buffer, ReceiveHalf, SendHalf};
use wsk_sim::raw::{End, Peer};

use crate::support::*;

/// Bytes more than any transport buffers for a peer that does not read.
const MUCH: usize = 15 << 20;
/// A time that passes while a test waits.
const SHORT: Duration = Duration::from_millis(5);

fn much() -> Buffer {
    let mut buffer = Buffer::try_with_capacity(MUCH).unwrap();
    buffer.set_len(MUCH).unwrap();
    buffer
}

/// Reads to the end of the stream, which is graceful, behind all bytes.
fn reads_it_all(peer: Peer) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || match peer.end() {
        End::Graceful(bytes) => assert_eq!(bytes.len(), MUCH, "a stream with a hole looks whole"),
        End::Reset => panic!("it was reset"),
    })
}

/// Runs `body` with a connection whose peer does not read yet, in every mode.
fn with_connection(body: impl Fn(ReceiveHalf, SendHalf, Peer) + Clone + Send + 'static) {
    for_each_mode(move |_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let (receive, send) = connection.into_split();
        body(receive, send, peer);
        drop(listener);
        driver.unload();
    });
}

/// A shutdown with a last buffer that is dropped goes on: the peer gets all of it, or would see a reset.
#[test]
fn a_dropped_last_buffer_is_sent_whole() {
    with_connection(|receive, mut send, peer| {
        let mut ending = Box::pin(send.shutdown_after(much()));
        assert!(poll(&mut ending).is_pending());
        drop(ending);
        reads_it_all(peer).join().unwrap();
        drop((receive, send));
    });
}

/// A posted send is not cancelled behind which the end was asked for, when it is dropped.
#[test]
fn a_posted_send_that_is_dropped_before_the_end_is_sent_whole() {
    with_connection(|receive, mut send, peer| {
        let posted = send.post(much());
        let mut ending = Box::pin(send.shutdown());
        assert!(poll(&mut ending).is_pending());
        drop(posted);
        let reader = reads_it_all(peer);
        ready(&mut ending).unwrap();
        reader.join().unwrap();
        drop(ending);
        drop((receive, send));
    });
}

/// Nor is it when its time is up: it resolves when it is sent.
#[test]
fn a_posted_send_whose_time_is_up_before_the_end_is_sent_whole() {
    with_connection(|receive, mut send, peer| {
        let posted = send.post(much());
        let mut ending = Box::pin(send.shutdown());
        assert!(poll(&mut ending).is_pending());
        let mut posted = Box::pin(posted.within(SHORT));
        assert!(poll(&mut posted).is_pending());
        std::thread::sleep(SHORT * 2);
        assert!(poll(&mut posted).is_pending(), "it was cancelled");
        let reader = reads_it_all(peer);
        let (sent, buffer) = ready(&mut posted);
        assert_eq!((sent.unwrap(), buffer.len()), (MUCH, MUCH));
        ready(&mut ending).unwrap();
        reader.join().unwrap();
        drop(ending);
        drop((receive, send));
    });
}

/// An abort ends such a send, and the peer sees a reset.
#[test]
fn an_abort_ends_a_send_before_the_end() {
    with_connection(|receive, mut send, peer| {
        let mut posted = Box::pin(send.post(much()).within(SHORT));
        let control = send.control();
        let mut ending = Box::pin(send.shutdown());
        assert!(poll(&mut ending).is_pending() && poll(&mut posted).is_pending());
        wait(control.abort()).unwrap();
        let (sent, buffer) = ready(&mut posted);
        assert!(sent.is_err() && buffer.len() == MUCH);
        assert!(ready(&mut ending).is_err());
        assert!(matches!(peer.end(), End::Reset));
        drop(ending);
        drop((receive, send));
    });
}
