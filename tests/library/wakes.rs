//! The tests' own waits: a result counts when somebody was woken for it, and is not found by looking again.
//!
//! [`wait`] and [`ready`] poll a future once and then when it was woken. Here they meet futures that forget
//! to wake. The reaper goes by the same rule, so an unloading that nobody tells of the last close or release
//! does not end.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use wsk_sim::{Completion, Sim};

use crate::support::*;

const SOON: Duration = Duration::from_millis(10);

/// Has its result at the second poll, and wakes for it or does not.
fn second_poll(wakes: bool) -> Pin<Box<dyn Future<Output = u8> + Send>> {
    let mut polled = false;
    Box::pin(poll_fn(move |context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(7);
        }
        if wakes {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }))
}

#[test]
fn who_was_woken_finds_the_result() {
    Sim::new().run(|_| {
        assert_eq!(wait(second_poll(true)), 7);
        assert_eq!(ready(&mut second_poll(true)), 7);
    });
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn a_wait_that_nobody_was_woken_for_fails() {
    Sim::new().run(|_| assert_eq!(wait_within(SOON, second_poll(false)), 0));
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn polling_does_not_find_what_nobody_was_woken_for() {
    Sim::new().run(|_| assert_eq!(ready_within(SOON, &mut second_poll(false)), 0));
}

#[test]
#[should_panic(expected = "there is no result within")]
fn a_wait_for_what_never_comes_says_so() {
    Sim::new().run(|_| wait_within(SOON, pending()));
}

#[test]
#[should_panic(expected = "there is no result within")]
fn polling_for_what_never_comes_says_so() {
    Sim::new().run(|_| ready_within(SOON, &mut Box::pin(pending())));
}

/// The closes complete when the reaper has long gone back to sleep.
///
/// Prevents: REG-27
#[test]
fn the_last_close_ends_the_unloading() {
    let slow = Sim::builder()
        .completion(Completion::PendLate)
        .provider(|config| config.late_by = Duration::from_millis(60))
        .build();
    slow.run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        assert_eq!(driver.client.open_sockets(), 2);
        driver.unload();
        drop((connection, listener));
        peer.expect_reset();
    });
}
