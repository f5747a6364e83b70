//! Support of several test programs of the transport.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use wsk_provider::transport::{ListenSink, Stream};
// Links a kernel, which the provider calls: Windows linkers require it even for functions that no test
// reaches.
use wsk_sim as _;

/// Forwards the streams of a listener.
pub(crate) struct Incoming(Mutex<Sender<Box<dyn Stream>>>);

impl ListenSink for Incoming {
    fn incoming(&self, stream: Box<dyn Stream>) {
        // The receiver may be dropped when a test ends.
        let _ = self.0.lock().unwrap().send(stream);
    }

    fn failed(&self, error: io::Error) {
        panic!("listener failed: {error}");
    }
}

/// Returns a sink and the receiver of its streams.
pub(crate) fn incoming() -> (Arc<Incoming>, Receiver<Box<dyn Stream>>) {
    let (sender, receiver) = channel();
    (Arc::new(Incoming(Mutex::new(sender))), receiver)
}
