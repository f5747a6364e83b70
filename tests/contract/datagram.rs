//! The datagram calls and their control messages (contract 4.13, 4.14).

use std::net::SocketAddr;
use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

use crate::support::*;

/// The table of a datagram socket.
fn table(socket: &Socket) -> &'static WSK_PROVIDER_DATAGRAM_DISPATCH {
    // SAFETY: a datagram socket has the table of its category, which lasts as long as the provider.
    unsafe { &*socket.dispatch().cast() }
}

/// `WskSendTo` with a length and a pointer of control messages that need not go together.
fn send_to(socket: &Socket, to: SocketAddr, length: u32, control: PCMSGHDR) -> Request {
    let function = table(socket).WskSendTo.expect("the table has WskSendTo");
    let (buffer, address) = (Buffer::of(b"x"), CAddress::new(to));
    let (mut descriptor, remote) = (buffer.wsk_buf(), address.as_ptr());
    Request::new().keep((buffer, address)).submit("WskSendTo", |irp| {
        // SAFETY: the request keeps buffer and address; the provider looks at no control messages without a length.
        unsafe { function(socket.raw(), &raw mut descriptor, 0, remote, length, control, irp) }
    })
}

/// The same with `WskSendMessages`.
fn send_messages(socket: &Socket, to: SocketAddr, length: u32, control: PCMSGHDR) -> Request {
    let function = table(socket).WskSendMessages.expect("the table has WskSendMessages");
    let (list, address) = (BufferList::new(&[Buffer::of(b"x")]), CAddress::new(to));
    let (head, remote) = (list.head(), address.as_ptr());
    Request::new().keep((list, address)).submit("WskSendMessages", |irp| {
        // SAFETY: as above.
        unsafe { function(socket.raw(), head, 0, remote, length, control, irp) }
    })
}

/// A length of zero stands for no control messages, whatever the pointer is: clients that work on Windows always pass one.
///
/// Catches: DGR-07
#[test]
fn a_pointer_to_no_control_messages_is_ignored() {
    let sim = Sim::new();
    sim.expect_advice("DGR-07");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        for (count, send) in [send_to, send_messages].into_iter().enumerate() {
            let control = PoolBox::new([0_u64; 4]);
            let request = send(&socket, own, 0, control.as_ptr().cast());
            // The request does not need what has no length.
            drop(control);
            assert_eq!(request.ok().information, 1);
            assert_eq!(socket.receive_datagram(8), (b"x".to_vec(), own));
            assert_eq!(sim.violations_of("DGR-07").len(), count + 1);
        }
    });
}

/// Catches: DGR-07
#[test]
fn a_length_without_control_messages_is_caught() {
    let sim = Sim::new();
    sim.expect("DGR-07");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        for (call, send) in
            [("WskSendTo", send_to as fn(_, _, _, _) -> _), ("WskSendMessages", send_messages)]
        {
            let request: Request = send(&socket, own, 32, ptr::null_mut());
            request.fails(STATUS_INVALID_PARAMETER);
            assert_caught(sim, "DGR-07", call);
        }
        assert!(
            sim.violations_of("DGR-07").iter().all(|report| report.severity == wsk_sim::Severity::Violation)
        );
    });
}
