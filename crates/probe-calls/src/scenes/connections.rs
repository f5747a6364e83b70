//! Calls on connections in the wrong state, and observations of the data event.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::client::{Client, Kind};
use crate::line::Line;
use crate::recorder;
use crate::report::Report;
use crate::request::DATA;
use crate::socket::loopback;

/// The time that a connect may take to fail, in milliseconds: Windows tries three times.
const REFUSAL: u32 = 30_000;
/// The number of attempts to start a connect that lasts longer than the next call.
const ATTEMPTS: usize = 100;

pub(super) fn connects(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    // On Windows the connect is pending until the request is decided.
    let listener = client.open(Kind::listen(&recorder::LISTEN))?;
    listener.set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1)?.ok()?;
    listener.bind(&loopback(0))?.ok()?;
    let port = listener.port()?;
    report.begin("connect.second");
    let mut second = None;
    for _ in 0..ATTEMPTS {
        let (connection, _) = client.open_bound(Kind::connection())?;
        let first = connection.connect(&loopback(port))?;
        let again = connection.connect(&loopback(port))?;
        // It was pending all the time if it is now.
        let was_pending = first.is_pending();
        let (answer, _) = again.settle();
        if was_pending {
            second = Some(answer);
            break;
        }
    }
    match second {
        Some(answer) => report.answer("connect.second", &answer, ""),
        None => report.not_made("connect.second", "every first connect completed at once"),
    }
    let (_accepted, connected) = client.pair()?;
    report.call("connect.connected", || connected.connect(&loopback(port)))?;
    report.call("bind.connected", || connected.bind(&loopback(0)))?;
    Ok(())
}

pub(super) fn connect_again(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let listen = Kind::listen(&recorder::LISTEN);
    let (_listener, port) = client.open_bound(listen)?;
    let (closed, unused) = client.open_bound(listen)?;
    drop(closed);
    let (connection, _) = client.open_bound(Kind::connection())?;
    let (refused, _) = connection.connect(&loopback(unused))?.settle_within(REFUSAL);
    if refused.succeeded() {
        report.not_made("connect.after-failed", "another program listens on the port");
        return Ok(());
    }
    report.call("connect.after-failed", || connection.connect(&loopback(port)))?;
    Ok(())
}

pub(super) fn unconnected(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (connection, _) = client.open_bound(Kind::connection())?;
    report.call("send.unconnected", || connection.send(b"x"))?;
    report.call("receive.unconnected", || connection.receive(DATA, 0))?;
    report.call("disconnect.unconnected", || connection.disconnect(0, None))?;
    Ok(())
}

pub(super) fn transfers(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (accepted, peer) = client.pair()?;
    let flags = WSK_FLAG_WAITALL | WSK_FLAG_DRAIN;
    report.call("receive.waitall-drain", || accepted.receive(DATA, flags))?;
    report.call("send.empty", || accepted.send(b""))?;
    // It completes when the peer has everything; a transport that cannot know that may wait for the peer's
    // end.
    let end = accepted.disconnect(0, None)?;
    end.linger();
    report.call("send.after-disconnect", || accepted.send(b"x"))?;
    report.call("disconnect.second", || accepted.disconnect(0, None))?;
    peer.disconnect(0, None)?.ok()?;
    end.ok().map(drop)
}

pub(super) fn both_closed(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (accepted, peer) = client.pair()?;
    let end = peer.disconnect(0, None)?;
    // No bytes: the end of the peer's stream has come.
    accepted.receive(DATA, 0)?.ok()?;
    accepted.disconnect(0, None)?.ok()?;
    end.ok()?;
    report.call("send.both-closed", || accepted.send(b"x"))?;
    Ok(())
}

pub(super) fn abortive(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (accepted, _peer) = client.pair()?;
    report.call("disconnect.abortive-buffer", || accepted.disconnect(WSK_FLAG_ABORTIVE, Some(b"last")))?;
    Ok(())
}

pub(super) fn data_events(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (accepted, peer) = client.pair()?;
    let recorder = client.recorder();
    recorder.accept_nothing();
    accepted.events(WSK_EVENT_RECEIVE)?.ok()?;
    report.begin("event.bytes-accepted");
    peer.send(b"bytes")?.ok()?;
    if !recorder.await_data() {
        return Err(STATUS_IO_TIMEOUT);
    }
    let (indicated, at_entry) = recorder.data();
    let note = match at_entry {
        0 => "zero",
        all if all == indicated => "indicated",
        _ => "other",
    };
    report.observed("event.bytes-accepted", recorder.irql(), note);
    // Indicated data that was not accepted can be received.
    report.call("receive.after-nothing-accepted", || accepted.receive(DATA, 0))?;
    report.begin("backlog.first");
    let (answer, request) = peer.ideal_backlog()?.finish();
    let backlog = request.map_or(0, |mut request| request.parts().size);
    let mut note = Line::new();
    note.text(if backlog > 0 { "positive " } else { "zero " }).number(backlog);
    report.answer("backlog.first", &answer, core::str::from_utf8(note.bytes()).unwrap_or_default());
    Ok(())
}
