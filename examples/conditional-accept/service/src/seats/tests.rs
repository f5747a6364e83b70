//! Whoever comes and goes in whatever order: the seats are those of a list that is searched.

use core::net::IpAddr;
use std::collections::HashMap;
use std::time::Duration;
use std::vec::Vec;

use nt_user::{Config, Kernel};
use proptest::prelude::*;
use wsk::memory::Cache;

use super::*;

/// Runs `body` in a kernel, of which nothing is left.
fn run(body: impl FnOnce(&Kernel)) {
    let kernel = Kernel::new(Config::default());
    let entered = kernel.enter();
    body(&kernel);
    drop(entered);
    let left = kernel.shutdown(Duration::from_secs(20));
    assert!(kernel.violations().is_empty() && left.is_clean(), "{:?}\n{left}", kernel.violations());
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

const LIMITS: Limits = Limits { clients: 100, per_source: 1, idle_timeout: 0 };

#[test]
fn a_source_is_an_address_or_a_network_of_64_bits() {
    run(|_| {
        let (hall, cache) = (Hall::try_new().expect("memory"), Cache::try_new(8).expect("memory"));
        let mut seats = Vec::new();
        for (text, taken) in [
            ("10.0.0.1", Ok(())),
            ("10.0.0.2", Ok(())),
            ("10.0.0.1", Err(Reason::Source)),
            ("::ffff:10.0.0.2", Err(Reason::Source)),
            ("2001:db8::1", Ok(())),
            ("2001:db8::2", Err(Reason::Source)),
            ("2001:db8:0:0:ffff:ffff:ffff:ffff", Err(Reason::Source)),
            ("2001:db8:0:1::1", Ok(())),
            // As numbers they are those of IPv4 addresses above.
            ("0:0:a00:1::", Ok(())),
            ("::10.0.0.1", Ok(())),
        ] {
            assert_eq!(hall.room(LIMITS, ip(text), Guest::Connected), taken, "{text}");
            let seat = hall.take(LIMITS, ip(text), Guest::Connected, &cache);
            assert_eq!(seat.as_ref().map(drop).map_err(|reason| *reason), taken, "{text}");
            seats.extend(seat);
        }
        assert_eq!(hall.count(), (6, 6));
        seats.clear();
        assert_eq!(hall.count(), (0, 0));
        assert_eq!(hall.room(LIMITS, ip("10.0.0.1"), Guest::Connected), Ok(()));
    });
}

/// Without memory for a source nobody of it comes in, and nothing is left behind.
#[test]
fn a_source_without_memory_has_no_seats() {
    run(|kernel| {
        let (hall, cache) = (Hall::try_new().expect("memory"), Cache::try_new(0).expect("memory"));
        kernel.faults().fail_nth(1);
        assert_eq!(hall.take(LIMITS, ip("::1"), Guest::Connected, &cache).map(drop), Err(Reason::Memory));
        assert_eq!(hall.count(), (0, 0));
        let _seat = hall.take(LIMITS, ip("::1"), Guest::Connected, &cache).expect("memory");
        // A source that is there takes no more of it.
        kernel.faults().fail_from(1);
        let more = Limits { per_source: 2, ..LIMITS };
        hall.take(more, ip("::2"), Guest::Pended, &cache).expect("the source is known");
        kernel.faults().clear();
    });
}

/// However many requests are pended, half of the places are for clients that are served: those of others are none of theirs.
#[test]
fn pended_requests_take_half_of_the_places() {
    run(|_| {
        let (hall, cache) = (Hall::try_new().expect("memory"), Cache::try_new(8).expect("memory"));
        for (clients, half) in [(1, 1), (2, 1), (5, 3)] {
            let limits = Limits { clients, per_source: Limits::NONE, idle_timeout: 0 };
            let take = |guest| hall.take(limits, ip("10.0.0.1"), guest, &cache);
            let mut pended: Vec<_> = (0..half).map(|_| take(Guest::Pended).expect("a place")).collect();
            assert_eq!(hall.room(limits, ip("10.0.0.2"), Guest::Pended), Err(Reason::Full));
            assert_eq!(take(Guest::Pended).map(drop), Err(Reason::Full));
            let served: Vec<_> = (half..clients).map(|_| take(Guest::Connected).expect("a place")).collect();
            assert_eq!(take(Guest::Connected).map(drop), Err(Reason::Full));
            drop(served);
            // One is answered: there is room for another.
            drop(pended.pop());
            pended.push(take(Guest::Pended).expect("a place"));
            drop(pended);
            // Nothing is kept for pended requests.
            let all: Vec<_> = (0..clients).map(|_| take(Guest::Connected).expect("a place")).collect();
            assert_eq!(take(Guest::Pended).map(drop), Err(Reason::Full));
            drop(all);
            assert_eq!(hall.count(), (0, 0));
        }
    });
}

proptest! {
    #[test]
    fn seats_are_counted_as_a_list_counts_them(
        clients in 1..40_u32, per_source in 0..6_u32, steps in proptest::collection::vec((0..24_u32, any::<bool>(), any::<bool>()), 0..400)
    ) {
        let limits = Limits { clients, per_source, idle_timeout: 0 };
        let mut outcome = Ok(());
        run(|_| {
            let (hall, cache) = (Hall::try_new().expect("memory"), Cache::try_new(64).expect("memory"));
            let mut seats: Vec<(u32, Seat)> = Vec::new();
            outcome = (|| {
                for (number, comes, pends) in &steps {
                    let guest = if *pends { Guest::Pended } else { Guest::Connected };
                    let mut counts = HashMap::<u32, u32>::new();
                    for (source, _) in &seats {
                        *counts.entry(*source).or_default() += 1;
                    }
                    prop_assert_eq!(hall.count(), (seats.len() as u32, counts.len() as u32));
                    if *comes {
                        let pended = seats.iter().filter(|(_, seat)| seat.guest == Guest::Pended).count() as u32;
                        let expected = if seats.len() as u32 >= clients || *pends && pended >= clients.div_ceil(2) {
                            Err(Reason::Full)
                        } else if per_source != 0 && counts.get(number).is_some_and(|count| *count >= per_source) {
                            Err(Reason::Source)
                        } else {
                            Ok(())
                        };
                        let remote = IpAddr::from(number.to_be_bytes());
                        prop_assert_eq!(hall.room(limits, remote, guest), expected);
                        let seat = hall.take(limits, remote, guest, &cache);
                        prop_assert_eq!(seat.as_ref().map(drop).map_err(|reason| *reason), expected);
                        seats.extend(seat.ok().map(|seat| (*number, seat)));
                    } else if let Some(at) = seats.iter().position(|(source, _)| source == number) {
                        seats.swap_remove(at);
                    }
                }
                Ok(())
            })();
        });
        outcome?;
    }
}
