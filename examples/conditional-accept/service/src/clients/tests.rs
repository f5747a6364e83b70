//! Comparison of the client table with a plain list, for clients that come and go in any order.

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
        let (table, cache) = (ClientTable::try_new().expect("memory"), Cache::try_new(8).expect("memory"));
        let mut permits = Vec::new();
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
            assert_eq!(table.check(LIMITS, ip(text), ClientKind::Connected), taken, "{text}");
            let permit = table.acquire(LIMITS, ip(text), ClientKind::Connected, &cache);
            assert_eq!(permit.as_ref().map(drop).map_err(|reason| *reason), taken, "{text}");
            permits.extend(permit);
        }
        assert_eq!(table.count(), (6, 6));
        permits.clear();
        assert_eq!(table.count(), (0, 0));
        assert_eq!(table.check(LIMITS, ip("10.0.0.1"), ClientKind::Connected), Ok(()));
    });
}

/// Without memory for a source its clients are rejected, and nothing is left behind.
#[test]
fn a_source_without_memory_has_no_seats() {
    run(|kernel| {
        let (table, cache) = (ClientTable::try_new().expect("memory"), Cache::try_new(0).expect("memory"));
        kernel.faults().fail_nth(1);
        assert_eq!(
            table.acquire(LIMITS, ip("::1"), ClientKind::Connected, &cache).map(drop),
            Err(Reason::Memory)
        );
        assert_eq!(table.count(), (0, 0));
        let _permit = table.acquire(LIMITS, ip("::1"), ClientKind::Connected, &cache).expect("memory");
        // A source that is there takes no more of it.
        kernel.faults().fail_from(1);
        let more = Limits { per_source: 2, ..LIMITS };
        table.acquire(more, ip("::2"), ClientKind::Pended, &cache).expect("the source is known");
        kernel.faults().clear();
    });
}

/// However many requests are pended, half of the places are for clients that are served: those of others are
/// none of theirs.
#[test]
fn pended_requests_take_half_of_the_places() {
    run(|_| {
        let (table, cache) = (ClientTable::try_new().expect("memory"), Cache::try_new(8).expect("memory"));
        for (clients, half) in [(1, 1), (2, 1), (5, 3)] {
            let limits = Limits { clients, per_source: Limits::NONE, idle_timeout: 0 };
            let acquire = |kind| table.acquire(limits, ip("10.0.0.1"), kind, &cache);
            let mut pended: Vec<_> =
                (0..half).map(|_| acquire(ClientKind::Pended).expect("a place")).collect();
            assert_eq!(table.check(limits, ip("10.0.0.2"), ClientKind::Pended), Err(Reason::Full));
            assert_eq!(acquire(ClientKind::Pended).map(drop), Err(Reason::Full));
            let served: Vec<_> =
                (half..clients).map(|_| acquire(ClientKind::Connected).expect("a place")).collect();
            assert_eq!(acquire(ClientKind::Connected).map(drop), Err(Reason::Full));
            drop(served);
            // One is answered: there is room for another.
            drop(pended.pop());
            pended.push(acquire(ClientKind::Pended).expect("a place"));
            drop(pended);
            // Nothing is kept for pended requests.
            let all: Vec<_> =
                (0..clients).map(|_| acquire(ClientKind::Connected).expect("a place")).collect();
            assert_eq!(acquire(ClientKind::Pended).map(drop), Err(Reason::Full));
            drop(all);
            assert_eq!(table.count(), (0, 0));
        }
    });
}

proptest! {
    #[test]
    fn permits_are_counted_as_a_list_counts_them(
        clients in 1..40_u32, per_source in 0..6_u32,
        steps in proptest::collection::vec((0..24_u32, any::<bool>(), any::<bool>()), 0..400)
    ) {
        let limits = Limits { clients, per_source, idle_timeout: 0 };
        let mut outcome = Ok(());
        run(|_| {
            let table = ClientTable::try_new().expect("memory");
            let cache = Cache::try_new(64).expect("memory");
            let mut permits: Vec<(u32, ClientPermit)> = Vec::new();
            outcome = (|| {
                for (number, comes, pends) in &steps {
                    let kind = if *pends { ClientKind::Pended } else { ClientKind::Connected };
                    let mut counts = HashMap::<u32, u32>::new();
                    for (source, _) in &permits {
                        *counts.entry(*source).or_default() += 1;
                    }
                    prop_assert_eq!(table.count(), (permits.len() as u32, counts.len() as u32));
                    if *comes {
                        let kinds = permits.iter().map(|(_, permit)| permit.kind);
                        let pended = kinds.filter(|kind| *kind == ClientKind::Pended).count() as u32;
                        let of_source = counts.get(number).copied().unwrap_or(0);
                        let is_full = permits.len() as u32 >= clients;
                        let expected = if is_full || *pends && pended >= clients.div_ceil(2) {
                            Err(Reason::Full)
                        } else if per_source != 0 && of_source >= per_source {
                            Err(Reason::Source)
                        } else {
                            Ok(())
                        };
                        let remote = IpAddr::from(number.to_be_bytes());
                        prop_assert_eq!(table.check(limits, remote, kind), expected);
                        let permit = table.acquire(limits, remote, kind, &cache);
                        prop_assert_eq!(permit.as_ref().map(drop).map_err(|reason| *reason), expected);
                        permits.extend(permit.ok().map(|permit| (*number, permit)));
                    } else if let Some(at) = permits.iter().position(|(source, _)| source == number) {
                        permits.swap_remove(at);
                    }
                }
                Ok(())
            })();
        });
        outcome?;
    }
}
