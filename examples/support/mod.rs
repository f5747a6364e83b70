//! Start and stop of the small programs: a driver with one network, on a simulated kernel.

use std::sync::mpsc::channel;

use wsk::{Net, Network, NetworkConfig, Passive, Result};
use wsk_sim::Sim;

static NETWORK: Network = Network::new();

/// Runs a driver on a thread of a simulated kernel, until `serve` has ended. Afterwards it fails if the
/// driver broke a rule of WSK or left anything behind.
pub(crate) fn run<F, S>(serve: F)
where
    F: FnOnce(Net) -> S + Send + 'static,
    S: Future<Output = Result> + Send + 'static,
{
    Sim::new().run(|_| {
        // SAFETY: this is the start of a system thread, which runs at PASSIVE_LEVEL and holds no lock.
        let passive = unsafe { Passive::assume() };
        let (ended, end) = channel();
        let config = NetworkConfig { report: |report| panic!("{report}"), ..NetworkConfig::DEFAULT };
        let serve = |net| async move {
            serve(net).await?;
            ended.send(()).expect("main waits");
            Ok(())
        };
        let started = NETWORK.start(passive, config, serve).expect("a system thread");
        end.recv().expect("the driver serves");
        // This is `DriverUnload`: it stops the network and waits until nothing of it is left.
        drop(started);
    });
}
