//! Memory, locks, events, buffers, addresses and errors of the library.

#[path = "support/harness.rs"]
mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wsk::Buffer;
use wsk::address::{Family, SockAddr, canonical, for_family};
use wsk::memory::{Cache, OutOfMemory, PoolBox, PoolVec, Ref};
use wsk::sync::{Event, EventKind, SpinLock};
use wsk::{Error, Operation, Status};

/// Counts how often values of it were dropped.
#[derive(Clone, Debug)]
struct Witness(Arc<AtomicUsize>);

impl Witness {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        (Self(drops.clone()), drops)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_box_drops_its_value_once_wherever_the_pointer_travels() {
    harness::run(|_| {
        let (witness, drops) = Witness::new();
        let raw = PoolBox::into_raw(PoolBox::try_new((witness, 7)).unwrap());
        // SAFETY: the pointer was just given up and is taken back once.
        let mut value = unsafe { PoolBox::from_raw(raw) };
        value.1 += 1;
        assert_eq!(value.1, 8);
        let (witness, number) = PoolBox::into_inner(value);
        assert_eq!((number, drops.load(Ordering::Relaxed)), (8, 0));
        drop(PoolBox::try_new(witness).unwrap());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_vector_never_grows_past_its_capacity() {
    harness::run(|_| {
        let (witness, drops) = Witness::new();
        let mut vector = PoolVec::try_with_capacity(3).unwrap();
        for _ in 0..3 {
            vector.push(witness.clone()).unwrap();
        }
        let rejected = vector.push(witness).unwrap_err();
        assert_eq!((vector.len(), vector.capacity()), (3, 3));
        drop(rejected);
        drop(vector.pop());
        drop(vector);
        assert_eq!(drops.load(Ordering::Relaxed), 4);
        assert!(matches!(PoolVec::<u64>::try_with_capacity(usize::MAX), Err(OutOfMemory)));
    });
}

#[test]
fn a_vector_closes_the_gap_of_a_removed_value() {
    harness::run(|_| {
        let (witness, drops) = Witness::new();
        let mut vector = PoolVec::try_with_capacity(4).unwrap();
        for number in 0..4 {
            vector.push((number, witness.clone())).unwrap();
        }
        drop(witness);
        let left =
            |vector: &PoolVec<(u32, Witness)>| vector.iter().map(|(number, _)| *number).collect::<Vec<_>>();
        // From the midst, the end, and the front; a place behind the end is none.
        for (index, expected) in [(1, vec![0, 2, 3]), (2, vec![0, 2]), (0, vec![2])] {
            assert!(vector.remove(index).is_some());
            assert_eq!(left(&vector), expected);
        }
        assert!(vector.remove(1).is_none() && vector.remove(usize::MAX).is_none());
        // The three, and the one that was cloned.
        assert_eq!(drops.load(Ordering::Relaxed), 4);
        assert!(vector.remove(0).is_some() && vector.remove(0).is_none());
        assert_eq!(drops.load(Ordering::Relaxed), 5);
    });
}

#[test]
fn a_reference_drops_its_value_with_the_last_owner() {
    harness::run(|_| {
        let (witness, drops) = Witness::new();
        let mut first = Ref::try_new(witness).unwrap();
        assert!(Ref::get_mut(&mut first).is_some());
        let context = Ref::into_raw(first.clone());
        // What the trampoline of a callback does, twice.
        for _ in 0..2 {
            // SAFETY: `context` still has its owner.
            let inside = unsafe { Ref::clone_from_raw(context) };
            assert!(Ref::ptr_eq(&first, &inside));
            assert_eq!(Ref::strong_count(&inside), 3);
        }
        assert!(Ref::get_mut(&mut first).is_none());
        drop(first);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        // SAFETY: the pointer was given up above and is taken back once.
        drop(unsafe { Ref::from_raw(context) });
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn references_are_counted_across_threads() {
    harness::run(|_| {
        let (witness, drops) = Witness::new();
        let cache = Cache::try_new(4).unwrap();
        for _ in 0..20 {
            let shared = Ref::try_new_in(witness.clone(), &cache).map_err(|(error, _)| error).unwrap();
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let mine = shared.clone();
                    harness::thread(move || {
                        for _ in 0..500 {
                            let copy = mine.clone();
                            assert!(Ref::ptr_eq(&copy, &mine));
                        }
                    })
                })
                .collect();
            drop(shared);
            harness::join_all(threads);
        }
        assert_eq!(drops.load(Ordering::Relaxed), 20);
    });
}

#[test]
fn a_cache_asks_the_pool_for_nothing_once_it_is_warm() {
    harness::run(|_| {
        let cache = Cache::try_new(8).unwrap();
        let round = |count: usize| {
            let make =
                |index| Ref::try_new_in([index; 40], &cache).unwrap_or_else(|_| panic!("out of memory"));
            let blocks: Vec<_> = (0..count).map(make).collect();
            assert!(blocks.iter().enumerate().all(|(index, block)| **block == [index; 40]));
        };
        round(8);
        let warm = harness::pool_allocations();
        (0..100).for_each(|_| round(8));
        assert_eq!(harness::pool_allocations(), warm);
        // What does not fit the lists goes back to the pool.
        let live = harness::pool_blocks();
        round(20);
        assert_eq!(harness::pool_blocks(), live);
    });
}

#[test]
fn a_block_outlives_the_handles_of_its_cache() {
    harness::run(|_| {
        let cache = Cache::try_new(8).unwrap();
        let small = Ref::try_new_in(1_u8, &cache).map_err(|(error, _)| error).unwrap();
        let large = Ref::try_new_in([2_u8; 9000], &cache).map_err(|(error, _)| error).unwrap();
        drop(cache);
        assert_eq!((*small, large[8999]), (1, 2));
    });
}

#[test]
fn running_out_of_memory_is_a_value() {
    harness::run(|_| {
        let cache = Cache::try_new(8).unwrap();
        let (witness, drops) = Witness::new();
        harness::without_memory(|| {
            assert_eq!(PoolBox::try_new(1).unwrap_err(), OutOfMemory);
            assert_eq!(Ref::try_new(1).unwrap_err(), OutOfMemory);
            assert!(Cache::try_new(1).is_err());
            assert!(Event::try_new(EventKind::Notification).is_err());
            let error = Buffer::try_with_capacity(10).unwrap_err();
            assert!(error.is_out_of_memory());
            // What could not be stored comes back.
            let Err((OutOfMemory, witness)) = Ref::try_new_in(witness, &cache) else {
                panic!("there is memory")
            };
            assert_eq!(drops.load(Ordering::Relaxed), 0);
            drop(witness);
        });
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_buffer_whose_mdl_cannot_be_made_leaves_nothing_behind() {
    harness::run(|_| {
        let live = harness::pool_blocks();
        harness::failing(2, || {
            assert!(Buffer::try_with_capacity(10).unwrap_err().is_out_of_memory());
        });
        assert_eq!(harness::pool_blocks(), live);
    });
}

#[test]
fn a_spin_lock_lets_one_thread_in() {
    harness::run(|_| {
        let shared = Arc::new(SpinLock::new((0_u64, 0_u64)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shared = shared.clone();
                harness::thread(move || {
                    for _ in 0..2_000 {
                        shared.with(|(left, right)| {
                            *left += 1;
                            *right += 1;
                            assert_eq!(left, right);
                        });
                    }
                })
            })
            .collect();
        harness::join_all(threads);
        assert_eq!(shared.with(|both| *both), (8_000, 8_000));
    });
}

/// Waiting needs a `Passive`, which the compile-fail examples of `wsk::irql` and `wsk::sync` show to be out
/// of reach for other threads and under a lock.
///
/// Prevents: IRQL-13
#[test]
fn events_let_through_as_many_as_their_kind_says() {
    harness::run(|passive| {
        let stays = Event::try_new(EventKind::Notification).unwrap();
        assert!(!stays.wait(passive, Some(Duration::ZERO)));
        stays.set();
        assert!(stays.is_set() && stays.wait(passive, None) && stays.wait(passive, Some(Duration::ZERO)));
        stays.reset();
        assert!(!stays.is_set());

        let once = Event::try_new(EventKind::Synchronization).unwrap();
        let setter = {
            let once = once.clone();
            harness::thread(move || harness::at_dispatch(|| once.set()))
        };
        assert!(once.wait(passive, None));
        assert!(!once.wait(passive, Some(Duration::ZERO)));
        setter.join();
    });
}

#[test]
fn a_wait_lasts_as_long_as_it_was_told() {
    harness::run(|passive| {
        let event = Event::try_new(EventKind::Notification).unwrap();
        let start = Instant::now();
        assert!(!event.wait(passive, Some(Duration::from_millis(30))));
        assert!(start.elapsed() >= Duration::from_millis(25), "{:?}", start.elapsed());
    });
}

#[test]
fn a_buffer_holds_what_fits() {
    harness::run(|_| {
        let mut buffer = Buffer::try_with_capacity(8).unwrap();
        assert!(buffer.is_empty() && buffer.capacity() == 8 && buffer.all_mut() == [0; 8]);
        buffer.extend_from_slice(b"hello").unwrap();
        let error = buffer.extend_from_slice(b"world").unwrap_err();
        assert_eq!(error.status(), Status::INVALID_BUFFER_SIZE);
        assert_eq!(&*buffer, b"hello");
        buffer.truncate(4);
        buffer.truncate(6);
        assert_eq!(buffer.len(), 4);
        buffer.set_len(5).unwrap();
        assert_eq!(buffer.as_slice(), b"hello");
        assert!(buffer.set_len(9).is_err());
        buffer.clear();
        buffer.extend_from_slice(&[]).unwrap();
        assert_eq!(buffer.as_ref(), b"");
        buffer.set_len(8).unwrap();
        buffer[7] = 1;
        assert_eq!(buffer.as_mut_slice(), b"hello\0\0\x01");
        let empty = Buffer::try_from_slice(&[]).unwrap();
        assert_eq!((empty.len(), empty.capacity()), (0, 1));
        if let Ok(too_large) = usize::try_from(1_u64 << 32) {
            assert!(Buffer::try_with_capacity(too_large).unwrap_err().is_out_of_memory());
        }
    });
}

/// Prevents: LIFE-07
#[test]
fn addresses_survive_the_way_through_the_storage() {
    assert_eq!(size_of::<SockAddr>(), 128);
    for text in ["127.0.0.1:7007", "0.0.0.0:0", "[::1]:65535", "[2001:db8::1]:80", "[::ffff:10.0.0.1]:9"] {
        let address: SocketAddr = text.parse().unwrap();
        assert_eq!(SockAddr::from(address).to_socket_addr(), Some(address));
    }
    let SocketAddr::V6(mut scoped) = "[fe80::1]:1".parse().unwrap() else { unreachable!() };
    scoped.set_scope_id(7);
    scoped.set_flowinfo(0x0102_0304);
    assert_eq!(SockAddr::from(SocketAddr::V6(scoped)).to_socket_addr(), Some(SocketAddr::V6(scoped)));
    // The bytes are those of the header: the port and the address in network order.
    let storage = SockAddr::from("1.2.3.4:258".parse::<SocketAddr>().unwrap());
    // SAFETY: the storage is 128 initialised bytes.
    let bytes = unsafe { storage.as_ptr().cast::<[u8; 8]>().read() };
    assert_eq!(bytes[2..], [1, 2, 1, 2, 3, 4]);
    assert_eq!(SockAddr::unspecified().to_socket_addr(), None);
    assert_eq!(SockAddr::wildcard(Family::V6).to_socket_addr(), Some("[::]:0".parse().unwrap()));
}

#[test]
fn mapped_addresses_are_converted_both_ways() {
    let v4: SocketAddr = "10.0.0.1:9".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:10.0.0.1]:9".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
    assert_eq!(for_family(v4, Family::V6), Some(mapped));
    assert_eq!(for_family(mapped, Family::V4), Some(v4));
    assert_eq!(for_family(v6, Family::V4), None);
    assert_eq!((canonical(mapped), canonical(v4), canonical(v6)), (v4, v4, v6));
    assert_eq!((Family::of(&v4), Family::of(&mapped)), (Family::V4, Family::V6));
}

/// Prevents: LAY-39
#[test]
fn errors_name_the_operation_and_the_status() {
    let error = Error::new(Operation::Accept, wsk_sys::STATUS_CANCELLED);
    assert!(error.is_cancelled() && !error.is_timeout());
    assert_eq!(
        error.to_string(),
        "accepting a connection (WskAccept) failed with STATUS_CANCELLED (0xC0000120): \
         the request was cancelled",
    );
    assert_eq!(format!("{error:?}"), "Error(Accept, STATUS_CANCELLED (0xC0000120))");
    let unknown = Error::new(Operation::Spawn, 0xC0FF_EE00_u32.cast_signed());
    assert_eq!(unknown.to_string(), "starting a task failed with status 0xC0FFEE00");
    assert!(Status::PENDING.is_success() && Status::EVENT_PENDING.is_success());
    assert!(!Status::BUFFER_OVERFLOW.is_success());
}

/// The report at the end of these tests does fail them.
#[test]
#[should_panic(expected = "violations:")]
fn a_broken_rule_fails_a_test() {
    harness::run(|_| {
        harness::kernel().report(nt_user::Severity::Violation, "NT-IRQL", "the test", "on purpose");
    });
}

#[test]
#[should_panic(expected = "left behind:")]
fn a_block_that_is_left_behind_fails_a_test() {
    harness::run(|_| std::mem::forget(PoolBox::try_new(7_u64).unwrap()));
}

#[test]
#[should_panic(expected = "the body says so")]
fn a_panic_fails_a_test() {
    harness::run(|_| panic!("the body says so"));
}
