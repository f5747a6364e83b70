//! A disconnect that came before its event was switched on: WSK may tell it then, or not.

use wsk::{Buffer, DisconnectKind, Events, Handlers};
use wsk_sim::Sim;
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::behaviours::LateDisconnect;

use crate::support::*;

/// The connection's owner finds the end by receiving, in any case; its handler hears of it once, or not at
/// all.
#[test]
fn a_handler_hears_of_an_earlier_disconnect_once_or_never() {
    for_each_choice(
        |behaviours, choice: LateDisconnect| behaviours.late_disconnect = choice,
        |_: &Sim, choice| {
            for abortive in [false, true] {
                let driver = Driver::start();
                let listener = driver.listen();
                let (tell, told) = channel();
                let peer = Peer::connect(listener.local_addr());
                let handlers = Handlers::new().disconnect(TellsDisconnects(tell));
                let mut connection = wait(listener.accept_with(handlers)).unwrap();
                let mut receive = Box::pin(connection.receive(Buffer::try_with_capacity(8).unwrap()));
                assert!(poll(&mut receive).is_pending());
                let kept = if abortive {
                    peer.reset();
                    None
                } else {
                    Some(peer.half_close().stream().try_clone().unwrap())
                };
                let (received, _) = ready(&mut receive);
                assert_eq!(received.is_err(), abortive);
                drop(receive);
                connection.enable(Events::DISCONNECT).unwrap();
                if choice == LateDisconnect::ToldWhenEnabled {
                    let kind = if abortive { DisconnectKind::Abortive } else { DisconnectKind::Graceful };
                    assert_eq!(told.next(), kind);
                }
                wait(connection.close());
                assert_eq!(told.now(), None);
                drop((kept, listener));
                driver.unload();
            }
        },
    );
}
