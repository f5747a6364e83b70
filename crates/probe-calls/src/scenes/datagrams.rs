//! Datagram sockets: unbound, without an address, with more than fits.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::client::{Client, Kind};
use crate::line::Line;
use crate::report::Report;
use crate::request::{DATA, Ended};

/// The number of datagrams sent to a socket that receives none.
const MANY: usize = 4096;
/// The time that each of them may take, in milliseconds.
const NEXT: u32 = 500;

pub(super) fn datagrams(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let unbound = client.open(Kind::datagram())?;
    report.call("datagram.send-unbound", || unbound.send_to(b"x", Some(9)))?;
    report.call("datagram.receive-unbound", || unbound.receive_from(DATA))?;
    let unbound = client.open(Kind::datagram())?;
    report.call("ioctl.remote-unbound", || unbound.ioctl_address(SIO_WSK_SET_REMOTE_ADDRESS, 9))?;
    report.call("ioctl.sendto-unbound", || unbound.ioctl_address(SIO_WSK_SET_SENDTO_ADDRESS, 9))?;
    let (bound, port) = client.open_bound(Kind::datagram())?;
    report.call("datagram.no-address", || bound.send_to(b"x", None))?;

    bound.send_to(&[7; DATA], Some(port))?.ok()?;
    report.begin("datagram.truncated");
    let (answer, request) = bound.receive_from(8)?.finish();
    let flags = request.map_or(0, |mut request| request.parts().control_flags);
    let note = if flags & MSG_TRUNC == 0 { "no-flag" } else { "MSG_TRUNC" };
    report.answer("datagram.truncated", &answer, note);

    report.begin("datagram.depth");
    for _ in 0..MANY {
        bound.send_to(&[7; 32], Some(port))?.ok()?;
    }
    let mut taken = 0;
    while taken < MANY {
        let (answer, _) = bound.receive_from(DATA)?.settle_within(NEXT);
        if answer.ended != Ended::Completed || !answer.succeeded() {
            break;
        }
        taken += 1;
    }
    let mut note = Line::new();
    note.text(if taken < MANY { "limited " } else { "all " }).number(taken);
    report.observed("datagram.depth", 0, core::str::from_utf8(note.bytes()).unwrap_or_default());
    Ok(())
}
