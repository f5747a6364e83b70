//! Stream sockets in the other role (Windows 10 1703).

use wsk_sys::nt::NTSTATUS;

use crate::client::{Client, Kind};
use crate::recorder;
use crate::report::Report;
use crate::socket::loopback;

pub(super) fn roles(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (_target, port) = client.open_bound(Kind::listen(&recorder::LISTEN))?;
    let unbound = client.open(Kind::stream_socket())?;
    report.call("stream.listen-unbound", || unbound.listen())?;
    report.call("stream.connect-unbound", || unbound.connect(&loopback(port)))?;
    let (listening, _) = client.open_bound(Kind::stream_socket())?;
    report.call("stream.accept-before-listen", || listening.accept())?;
    listening.listen()?.ok()?;
    report.call("stream.connect-listening", || listening.connect(&loopback(port)))?;
    report.call("stream.send-listening", || listening.send(b"x"))?;
    let (connected, _) = client.open_bound(Kind::stream_socket())?;
    connected.connect(&loopback(port))?.ok()?;
    report.call("stream.accept-connected", || connected.accept())?;
    report.call("stream.listen-connected", || connected.listen())?;
    Ok(())
}
