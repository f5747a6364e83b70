//! Binding, accepting, and the options of a listener.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::client::{Client, Kind};
use crate::recorder;
use crate::report::Report;
use crate::socket::{loopback, v4, v6_loopback};

/// An address for documentation, which no machine has (RFC 5737).
const NOT_LOCAL: [u8; 4] = [192, 0, 2, 1];
/// An option that no header names.
const UNKNOWN: u32 = 0x7777;

pub(super) fn binds(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let listen = Kind::listen(&recorder::LISTEN);
    let (bound, _) = client.open_bound(listen)?;
    report.call("bind.second", || bound.bind(&loopback(0)))?;
    let failed = client.open(listen)?;
    report.call("bind.not-local", || failed.bind(&v4(NOT_LOCAL, 0)))?;
    report.call("bind.after-failed", || failed.bind(&loopback(0)))?;
    let other = client.open(listen)?;
    report.call("bind.other-family", || other.bind(&v6_loopback()))?;
    Ok(())
}

pub(super) fn accepts(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let listen = Kind::listen(&recorder::LISTEN);
    let unbound = client.open(listen)?;
    report.call("accept.unbound", || unbound.accept())?;
    let (listener, port) = client.open_bound(listen)?;
    report.begin("accept.cancelled");
    let (answer, _) = listener.accept()?.cancel();
    report.answer("accept.cancelled", &answer, "");
    let (connection, _) = client.open_bound(Kind::connection())?;
    report.begin("accept.cancelled-while-connecting");
    let accept = listener.accept()?;
    let connect = connection.connect(&loopback(port))?;
    let (answer, socket) = accept.cancel();
    report.answer("accept.cancelled-while-connecting", &answer, "");
    drop(connect);
    drop(socket);
    Ok(())
}

pub(super) fn options(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (bound, _) = client.open_bound(Kind::listen(&recorder::LISTEN))?;
    report.call("conditional.after-bind", || bound.set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1))?;
    report.call("option.after-bind", || bound.set(SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1))?;
    // Not connected to: they lack a callback, should the option be accepted.
    for (call, table) in
        [("conditional.null-inspect", &recorder::NO_INSPECT), ("conditional.null-abort", &recorder::NO_ABORT)]
    {
        let listener = client.open(Kind::listen(table))?;
        report.call(call, || listener.set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1))?;
    }
    let datagram = client.open(Kind::datagram())?;
    report.call("conditional.datagram", || datagram.set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1))?;
    report.call("option.unknown", || bound.set(SOL_SOCKET, UNKNOWN, 1))?;
    report.call("option.keep-idle", || bound.set(IPPROTO_TCP, TCP_KEEPIDLE, 60))?;
    report.call("option.no-delay", || bound.set(IPPROTO_TCP, TCP_NODELAY, 1))?;
    // Last, as Windows before 1703 has no stream sockets.
    let stream = client.open(Kind::stream_socket())?;
    report.call("conditional.stream", || stream.set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1))?;
    Ok(())
}
