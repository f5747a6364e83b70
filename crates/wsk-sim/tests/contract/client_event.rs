//! `WskClientEvent`, of which no event is defined (contract 4.24).

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use wsk_sim::raw::*;
use wsk_sim::{Level, Sim};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

/// Registers a client with this callback, and counts its calls in the context.
fn with_client(event: Option<PFN_WSK_CLIENT_EVENT>, body: impl FnOnce(&AtomicU32)) {
    let calls = PoolBox::new(AtomicU32::new(0));
    let dispatch = PoolBox::new(WSK_CLIENT_DISPATCH {
        Version: MAKE_WSK_VERSION(1, 0),
        Reserved: 0,
        WskClientEvent: event,
    });
    let block = PoolBox::new(WSK_REGISTRATION::zeroed());
    let mut npi = WSK_CLIENT_NPI { ClientContext: calls.as_ptr().cast(), Dispatch: dispatch.as_ptr() };
    // SAFETY: table, block and context outlive the registration.
    assert_eq!(unsafe { WskRegister(&raw mut npi, block.as_ptr()) }, STATUS_SUCCESS);
    body(&calls);
    // SAFETY: the block is registered.
    unsafe { WskDeregister(block.as_ptr()) };
}

/// Counts a call.
///
/// # Safety
/// The context is the counter of [`with_client`].
unsafe fn count(context: *mut c_void) {
    // SAFETY: the caller guarantees that the context is the counter of `with_client`.
    unsafe { &*context.cast::<AtomicU32>() }.fetch_add(1, SeqCst);
}

unsafe extern "system" fn proper(
    context: *mut c_void,
    _event: u32,
    _info: *mut c_void,
    _length: usize,
) -> NTSTATUS {
    // SAFETY: the provider passes the context that the client registered with.
    unsafe { count(context) };
    STATUS_NOT_IMPLEMENTED
}

unsafe extern "system" fn agreeable(
    context: *mut c_void,
    _event: u32,
    _info: *mut c_void,
    _length: usize,
) -> NTSTATUS {
    // SAFETY: the provider passes the context that the client registered with.
    unsafe { count(context) };
    STATUS_SUCCESS
}

unsafe extern "system" fn writing(
    context: *mut c_void,
    _event: u32,
    info: *mut c_void,
    length: usize,
) -> NTSTATUS {
    // SAFETY: the provider passes the context that the client registered with.
    unsafe { count(context) };
    // SAFETY: the information has this length; the test writes it on purpose.
    unsafe { info.cast::<u8>().write_bytes(0, length) };
    STATUS_NOT_IMPLEMENTED
}

/// Shows: EVT-53
#[test]
fn no_client_event_ever_comes_and_the_callback_may_be_null() {
    for_each_mode(|sim| {
        with_client(Some(proper), |calls| {
            with_client(None, |_| {
                let client = Client::new();
                let (connection, peer) = accepted_pair(&client, &Recorder::new());
                peer.send(b"x");
                assert_eq!(connection.receive_all(1), b"x");
                sim.provider().transports_changed();
                sim.provider().addresses_changed();
                sim.provider().depart();
                connection.close().ok();
                drop(client);
                sim.provider().arrive();
            });
            assert_eq!(calls.load(SeqCst), 0);
        });
    });
}

/// Catches: EVT-54
#[test]
fn an_answer_to_an_unknown_client_event_other_than_not_implemented_is_caught() {
    for level in [Level::Passive, Level::Dispatch] {
        let sim = Sim::builder().callbacks(level).build();
        sim.expect("EVT-54");
        sim.run(|sim| {
            with_client(Some(proper), |calls| {
                assert_eq!(sim.provider().try_client_event(7), 1);
                assert_eq!(calls.load(SeqCst), 1);
                assert!(sim.violations_of("EVT-54").is_empty());
            });
            for (count, wrong) in [agreeable as PFN_WSK_CLIENT_EVENT, writing].into_iter().enumerate() {
                with_client(Some(wrong), |_| assert_eq!(sim.provider().try_client_event(7), 1));
                assert_eq!(sim.violations_of("EVT-54").len(), count + 1);
            }
            assert!(sim.violations_of("EVT-54").iter().all(|violation| violation.call == "WskClientEvent"));
        });
    }
}
