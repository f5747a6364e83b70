//! Registrations, sockets, and memory that is valid only during a callback.

use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

use crate::support::*;

const FREE: &str = "ExFreePoolWithTag";

fn dispatch() -> PoolBox<WSK_CLIENT_DISPATCH> {
    PoolBox::new(WSK_CLIENT_DISPATCH { Version: MAKE_WSK_VERSION(1, 0), Reserved: 0, WskClientEvent: None })
}

/// # Safety
/// The pointers are valid for `WskRegister`; the checker keeps memory that is freed too early.
unsafe fn register(dispatch: &PoolBox<WSK_CLIENT_DISPATCH>, block: *mut WSK_REGISTRATION) {
    let mut npi = WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: dispatch.as_ptr() };
    // SAFETY: the caller passes what `WskRegister` asks for.
    assert_eq!(unsafe { WskRegister(&raw mut npi, block) }, STATUS_SUCCESS);
}

/// Catches: LIFE-01
#[test]
fn a_client_table_freed_before_the_deregistration_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-01");
    sim.run(|sim| {
        let (table, block) = (dispatch(), PoolBox::new(WSK_REGISTRATION::zeroed()));
        // SAFETY: the block outlives the registration; the table is invalid on purpose.
        unsafe { register(&table, block.as_ptr()) };
        drop(table);
        assert_caught(sim, "LIFE-01", FREE);
        // SAFETY: the block is registered.
        unsafe { WskDeregister(block.as_ptr()) };
    });
}

/// Catches: LIFE-03
#[test]
fn a_registration_block_freed_before_the_deregistration_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-03");
    sim.run(|sim| {
        let (table, block) = (dispatch(), PoolBox::new(WSK_REGISTRATION::zeroed()));
        let registration = block.as_ptr();
        // SAFETY: the table outlives the registration; the block is invalid on purpose.
        unsafe { register(&table, registration) };
        drop(block);
        assert_caught(sim, "LIFE-03", FREE);
        // SAFETY: the checker keeps a block that is still needed.
        unsafe { WskDeregister(registration) };
    });
}

/// Catches: LIFE-03
#[test]
fn a_registration_block_that_moves_or_lies_on_the_stack_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-03");
    sim.run(|sim| {
        let (table, block) = (dispatch(), PoolBox::new(WSK_REGISTRATION::zeroed()));
        // SAFETY: table and block outlive the registration.
        unsafe { register(&table, block.as_ptr()) };
        let moved = PoolBox::new(WSK_REGISTRATION { ..*block });
        let mut npi = WSK_PROVIDER_NPI { Client: ptr::null_mut(), Dispatch: ptr::null() };
        // SAFETY: the provider recognizes a block that has moved.
        let status = unsafe { WskCaptureProviderNPI(moved.as_ptr(), WSK_NO_WAIT, &raw mut npi) };
        assert_eq!(status, STATUS_DEVICE_NOT_READY);
        assert_caught(sim, "LIFE-03", "WskCaptureProviderNPI");
        // SAFETY: the block is registered.
        unsafe { WskDeregister(block.as_ptr()) };
        let mut on_stack = WSK_REGISTRATION::zeroed();
        // SAFETY: as it happens, the block lives until the deregistration below.
        unsafe { register(&table, &raw mut on_stack) };
        assert_caught(sim, "LIFE-03", "WskRegister");
        // SAFETY: the block is registered.
        unsafe { WskDeregister(&raw mut on_stack) };
    });
}

/// Catches: LIFE-05
#[test]
fn writing_to_a_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-05");
    sim.run(|sim| {
        /// A table that a client stores in place of the provider's.
        static HOOKED: u64 = 0;
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let head = listener.raw();
        // SAFETY: the socket is open, so its head is there.
        let dispatch = unsafe { &raw mut (*head).Dispatch };
        // SAFETY: the socket is open, so its head is there; the kit has read it before; the test writes it on
        // purpose.
        unsafe { dispatch.write_volatile((&raw const HOOKED).cast()) };
        listener.close().ok();
        assert_caught(sim, "LIFE-05", "WskCloseSocket");
    });
}

/// Catches: LIFE-13
#[test]
fn an_address_used_after_the_callback_that_lent_it_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-13").expect("BIND-12");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let _peer = Peer::connect(address);
        let accept = events.accept();
        let other = client.datagram(&Recorder::new());
        // SAFETY: the provider keeps what it has lent, in place and made useless.
        unsafe { Request::new().bind_at(&other, accept.pointers.local) }.fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "LIFE-13", "WskBind");
    });
}
