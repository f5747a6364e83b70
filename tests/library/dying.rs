//! Listeners that WSK gives up while they are being made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk::options::{ExclusiveAddress, KeepAlive};
use wsk::{Decision, Inspection};
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

/// The socket dies at one of the calls that make it, whichever that is: binding fails, and what there is is
/// closed.
///
/// Prevents: LIFE-17, LSN-07, CLOSE-12
#[test]
fn a_listener_may_die_at_every_call_that_makes_it() {
    for completion in COMPLETIONS {
        for awaited in [true, false] {
            Sim::builder().completion(completion).build().run(move |sim| {
                let driver = Driver::start();
                for fatal in 1.. {
                    let calls = Arc::new(AtomicUsize::new(0));
                    let counted = Arc::clone(&calls);
                    sim.choose_by(FaultPoint::DieInCall, move |_| {
                        u32::from(counted.fetch_add(1, Ordering::SeqCst) + 1 == fatal)
                    });
                    let gate = gate(refuse, |_| {});
                    let builder = driver.provider.listener().conditional(gate);
                    let builder = builder.option(KeepAlive(true)).option(ExclusiveAddress(true));
                    let mut bind = Box::pin(builder.bind(localhost()));
                    let made = if awaited {
                        wait(bind.as_mut()).is_ok()
                    } else {
                        // Driven up to the fatal call, and then dropped, perhaps before it has completed.
                        eventually(|| {
                            calls.load(Ordering::SeqCst) >= fatal
                                || matches!(poll(&mut bind), std::task::Poll::Ready(Ok(_)))
                        });
                        calls.load(Ordering::SeqCst) < fatal
                    };
                    sim.choose_naturally(FaultPoint::DieInCall);
                    drop(bind);
                    driver.await_sockets(0);
                    if made {
                        assert!(fatal > 4, "three options, the address and its reading");
                        break;
                    }
                }
                driver.unload();
            });
        }
    }
}

fn refuse(request: Inspection<'_>) -> Decision<'_> {
    request.reject()
}
