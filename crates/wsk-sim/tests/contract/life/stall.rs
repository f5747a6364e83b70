//! Requests of any kind that stay pending as long as a test needs.

use std::sync::mpsc;

use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};

/// A machine that completes every request late, on its completer thread, and on which `rule` will be broken.
pub(crate) fn stalling(rule: &'static str) -> Sim {
    let sim = Sim::builder().completion(Completion::PendLate).build();
    sim.expect(rule);
    sim
}

/// Blocks the completer thread inside a completion routine.
#[derive(Debug)]
pub(crate) struct Stall {
    go: mpsc::Sender<()>,
    request: Request,
}

impl Stall {
    /// Blocks completions: further requests stay pending, on a machine of [`stalling`].
    #[track_caller]
    pub(crate) fn new(client: &Client) -> Self {
        let (go, going) = mpsc::channel();
        let (enter, entered) = mpsc::channel();
        let hook = move |_, _| {
            enter.send(()).expect("the test waits for this");
            // The test may fail before the release; then this ends, too.
            let _ = going.recv_timeout(BOUND);
        };
        let request = client.open_with(Request::new().hook(hook), &SocketOptions::new(Category::Basic));
        entered.recv_timeout(BOUND).expect("the request completes");
        Self { go, request }
    }

    /// Lets the requests complete.
    #[track_caller]
    pub(crate) fn end(self) {
        self.go.send(()).expect("the completion routine waits");
        self.request.socket().close().ok();
    }
}

/// The provider's table of a socket.
///
/// # Safety
/// `T` is the table of the socket's category.
pub(crate) unsafe fn table<T>(socket: &Socket) -> &'static T {
    // SAFETY: the tables of the provider are constant; the caller knows which one it is.
    unsafe { &*socket.dispatch().cast::<T>() }
}
