//! Prevents: EVT-34, LSN-14, SOCK-03

use wsk::ConnectionHandlers;
use wsk::{Events, Listener};

/// A table of one's own making.
struct Own;

impl ConnectionHandlers for Own {
    const HANDLED: Events = Events::all();
    const DISPATCH: &'static wsk_sys::WSK_CLIENT_CONNECTION_DISPATCH = &wsk_sys::WSK_CLIENT_CONNECTION_DISPATCH {
        WskReceiveEvent: None,
        WskDisconnectEvent: None,
        WskSendBacklogEvent: None,
    };
}

fn accept(listener: &Listener) {
    drop(listener.accept_with(Own));
}

fn main() {}
