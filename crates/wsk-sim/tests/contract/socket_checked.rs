//! Invalid creations of sockets, and the reports of the checker (contract 4.6).

use std::ffi::c_void;
use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

use crate::support::*;

/// `WskSocket` with this context and table, which the checker has to report.
fn open(client: &Client, category: Category, context: *mut c_void, table: *const c_void) -> Request {
    // SAFETY: no event of the socket is ever enabled, so the members of the table are never called.
    unsafe { client.open_as(Request::new(), &SocketOptions::new(category), context, table) }
}

/// Catches: SOCK-03
#[test]
fn a_table_of_another_category_is_caught() {
    let sim = Sim::new();
    sim.expect("SOCK-03");
    sim.run(|sim| {
        let client = Client::new();
        // A table of one member, where one of three is read.
        let table = PoolBox::new(WSK_CLIENT_DATAGRAM_DISPATCH { WskReceiveFromEvent: None });
        for (count, category) in [Category::Listen, Category::Connection].into_iter().enumerate() {
            open(&client, category, ptr::null_mut(), table.as_ptr().cast()).socket();
            assert_caught(sim, "SOCK-03", "WskSocket");
            assert_eq!(sim.violations_of("SOCK-03").len(), count + 1);
        }
        open(&client, Category::Datagram, ptr::null_mut(), table.as_ptr().cast()).socket();
        assert_eq!(sim.violations_of("SOCK-03").len(), 2);
    });
}

/// Catches: SOCK-03
#[test]
fn a_table_on_the_stack_is_caught() {
    let sim = Sim::new();
    sim.expect("SOCK-03");
    sim.run(|sim| {
        let client = Client::new();
        let table = WSK_CLIENT_DATAGRAM_DISPATCH { WskReceiveFromEvent: None };
        open(&client, Category::Datagram, ptr::null_mut(), (&raw const table).cast()).socket();
        assert_caught(sim, "SOCK-03", "WskSocket");
    });
}

/// Catches: SOCK-04
#[test]
fn a_table_for_a_basic_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("SOCK-04");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let table = events.table(Category::Datagram);
        open(&client, Category::Basic, events.context(), table).socket();
        assert_caught(sim, "SOCK-04", "WskSocket");
    });
}

/// Catches: SOCK-06
#[test]
fn a_context_that_is_not_in_non_paged_memory_is_caught() {
    let sim = Sim::new();
    sim.expect("SOCK-06");
    sim.run(|sim| {
        let client = Client::new();
        let fit = PoolBox::new(0_u64);
        open(&client, Category::Listen, fit.as_ptr().cast(), ptr::null()).socket();
        assert!(sim.violations_of("SOCK-06").is_empty());
        let mut unfit = 0_u64;
        open(&client, Category::Listen, (&raw mut unfit).cast(), ptr::null()).socket();
        assert_caught(sim, "SOCK-06", "WskSocket");
    });
}

/// Catches: SOCK-15
#[test]
fn a_descriptor_that_is_not_cached_is_caught() {
    let sim = Sim::new();
    sim.expect("SOCK-15");
    sim.run(|sim| {
        let client = Client::new();
        let uncached = PoolBox::new([1_u64, 0, 0, 0, 0]);
        let security = uncached.as_ptr().cast();
        let options = SocketOptions { security, ..SocketOptions::new(Category::Listen) };
        client.open(&options).fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "SOCK-15", "WskSocket");
        let cached = Descriptor::cached(&client, true);
        client.open(&SocketOptions { security: cached.raw(), ..options.clone() }).socket();
        let released = cached.raw();
        drop(cached);
        client.open(&SocketOptions { security: released, ..options }).fails(STATUS_INVALID_PARAMETER);
        assert_eq!(sim.violations_of("SOCK-15").len(), 2);
    });
}
