//! Support of several test programs of the transport.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use wsk_provider::transport::{ListenSink, Stream};
// Has a kernel linked, which the provider calls: linkers of Windows want it even for what nothing here
// reaches.
use wsk_sim as _;

/// Passes on what a listener takes.
pub(crate) struct Incoming(Mutex<Sender<Box<dyn Stream>>>);

impl ListenSink for Incoming {
    fn incoming(&self, stream: Box<dyn Stream>) {
        // Nobody is there any more when a test is ending.
        let _ = self.0.lock().unwrap().send(stream);
    }

    fn failed(&self, error: io::Error) {
        panic!("listener failed: {error}");
    }
}

/// A sink, and where what it is given comes out.
pub(crate) fn incoming() -> (Arc<Incoming>, Receiver<Box<dyn Stream>>) {
    let (sender, receiver) = channel();
    (Arc::new(Incoming(Mutex::new(sender))), receiver)
}
