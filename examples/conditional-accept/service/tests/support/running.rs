//! The service on a network of its own, as tests start and stop it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gate_service::{Record, RecordSink, Settings};
use wsk::{Network, Passive};

/// Limit on a start. It is longer than the limits of the service itself.
const START: Duration = Duration::from_secs(20);

/// A service that listens.
pub(crate) struct Running<'a> {
    network: &'static Network,
    local: SocketAddr,
    passive: Passive<'a>,
}

/// A sink that learns the address of the service.
struct Addressed<S> {
    sink: S,
    local: Arc<OnceLock<SocketAddr>>,
}

impl<S: RecordSink> RecordSink for Addressed<S> {
    fn record(&self, record: Record) {
        if let Record::Loaded { local } = record {
            // It stays the same when the service listens again.
            let _ = self.local.set(local);
        }
        self.sink.record(record);
    }
}

impl<'a> Running<'a> {
    /// Starts a service, and waits until it listens.
    pub(crate) fn start<S: RecordSink>(
        settings: Settings,
        sink: S,
        threads: usize,
        passive: Passive<'a>,
    ) -> wsk::Result<Self> {
        // Tests run side by side, and a network is the one of its image.
        let network: &'static Network = Box::leak(Box::new(Network::new()));
        let local = Arc::new(OnceLock::new());
        let sink = Addressed { sink, local: Arc::clone(&local) };
        let config = gate_service::config(threads, |report| {
            // A failure is the result of the start.
            assert!(report.error().is_some(), "{report}");
        });
        let started = network.start(passive, config, move |net| gate_service::serve(net, settings, sink))?;
        started.wait_ready(START)?;
        started.keep();
        let local = *local.get().expect("a service that is ready has recorded that it listens");
        Ok(Self { network, local, passive })
    }

    /// Its address.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops it, and asserts that nothing is left within a limit.
    pub(crate) fn unload(self, limit: Duration) {
        assert!(self.network.stop_within(self.passive, limit), "an unload in time");
    }
}
