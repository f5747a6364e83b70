//! Accepting by IRP.

use std::task::Poll;

use wsk::{Error, Status};
use wsk_sim::raw::Peer;

use crate::support::*;

/// Every parameter that the contract binds the client to is made by the library; the checker looks at each of them.
///
/// Prevents: LSN-09, LSN-10, LSN-12, LSN-13, LSN-14, LSN-15, LSN-18, LSN-19, LSN-20
/// Prevents: IRP-01, IRP-02, IRP-03, IRP-05, IRP-12, IRP-23, IRP-24
#[test]
fn a_connection_is_taken_in_every_mode() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        assert_eq!(connection.local_addr(), listener.local_addr());
        wait(connection.close());
        peer.expect_reset();
        wait(listener.close());
        driver.unload();
    });
}
