//! What the Windows suites do not show under Wine, and why.

/// Suites that are not run there.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[
    (
        "wsk::compile_fail",
        "it asks the compiler, and there is none for Windows; what it asks does not depend on the system",
    ),
    (
        "wsk::contract",
        "a good part of it needs a host that tells when the peer has everything, or that lets an address be shared after a \
         bind; its tests have yet to be told apart by that",
    ),
    (
        "wsk::library",
        "some ten of its 114 tests disconnect before the peer does, share an address after a bind or meet a reset that Wine \
         shows as something else; they have yet to be told apart and listed",
    ),
];

/// The host does not tell when the peer has acknowledged what was sent, so a graceful disconnect ends with the peer's.
const DRAIN: &str =
    "Wine does not tell when the peer has everything: a graceful disconnect lasts until the peer ends too";
/// What sharing an address takes there.
const SHARING: &str =
    "Wine lets a second socket bind an address only if the first was allowed to share it before its own bind";

/// A test that fails under Wine for a reason of Wine's own. It is run, and must fail.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) suite: &'static str,
    pub(super) test: &'static str,
    pub(super) why: &'static str,
}

/// All of them.
pub(super) const FAILING: &[Failing] = &[
    Failing { suite: "wsk-provider::integrity", test: "cancelled_receives_lose_nothing", why: DRAIN },
    Failing {
        suite: "wsk-provider::integrity",
        test: "declined_and_kept_indications_lose_nothing",
        why: DRAIN,
    },
    Failing {
        suite: "wsk-provider::lend",
        test: "a_lent_thread_serves_the_sockets",
        why: "Wine's reports seem to come singly, and a thread is lent for four of one poll: none was in half a minute",
    },
    Failing { suite: "wsk-provider::sockets", test: "addresses_are_shared_as_asked", why: SHARING },
    Failing {
        suite: "wsk-provider::transport",
        test: "a_granted_overlap_works_and_strangers_still_collide",
        why: SHARING,
    },
    Failing { suite: "wsk-sim::smoke", test: "a_connection_by_accept_carries_data_both_ways", why: DRAIN },
];
