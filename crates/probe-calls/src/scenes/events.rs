//! Switching events.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::client::{Client, Kind};
use crate::recorder;
use crate::report::Report;
use crate::socket::Socket;

fn switch(report: &mut Report<'_>, call: &str, socket: &Socket<'_>, mask: u32) -> Result<(), NTSTATUS> {
    report.begin(call);
    let answer = socket.events(mask)?;
    report.answer(call, &answer, "");
    Ok(())
}

/// Enables events, which must succeed.
fn enable(socket: &Socket<'_>, mask: u32) -> Result<(), NTSTATUS> {
    socket.events(mask)?.ok().map(drop)
}

pub(super) fn switches(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let listen = Kind::listen(&recorder::LISTEN);
    let unbound = client.open(listen)?;
    switch(report, "events.listen-unbound", &unbound, WSK_EVENT_ACCEPT)?;
    let datagram = client.open(Kind::datagram())?;
    switch(report, "events.datagram-unbound", &datagram, WSK_EVENT_RECEIVE_FROM)?;
    let (unconnected, _) = client.open_bound(Kind::connection())?;
    switch(report, "events.unconnected", &unconnected, WSK_EVENT_RECEIVE)?;
    // Not connected to: it has no callback, should the event be enabled.
    let (without, _) = client.open_bound(Kind::listen(&recorder::NO_ACCEPT))?;
    switch(report, "events.null-callback", &without, WSK_EVENT_ACCEPT)?;
    let (listener, _) = client.open_bound(listen)?;
    switch(report, "events.foreign", &listener, WSK_EVENT_RECEIVE_FROM)?;
    enable(&listener, WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE)?;
    switch(report, "events.disable-inherited", &listener, WSK_EVENT_DISABLE | WSK_EVENT_RECEIVE)?;
    let (connection, _peer) = client.pair()?;
    enable(&connection, WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT)?;
    let both = WSK_EVENT_DISABLE | WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT;
    switch(report, "events.disable-two", &connection, both)?;
    let basic = client.open(Kind::basic())?;
    switch(report, "events.basic", &basic, WSK_EVENT_RECEIVE)?;
    Ok(())
}

pub(super) fn statics(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    client.static_events(WSK_EVENT_RECEIVE)?.ok()?;
    report.begin("static.second");
    let answer = client.static_events(WSK_EVENT_RECEIVE)?;
    report.answer("static.second", &answer, "");
    report.begin("static.accepted");
    let (accepted, peer) = client.pair()?;
    peer.send(b"static")?.ok()?;
    let came = client.recorder().await_data();
    let irql = client.recorder().irql();
    report.observed("static.accepted", irql, if came { "on" } else { "off" });
    drop((accepted, peer));
    // The events of a client can be set before its first socket only, so this is another one.
    let other = Client::new()?;
    let _first = other.open(Kind::listen(&recorder::LISTEN))?;
    report.begin("static.after-socket");
    let answer = other.static_events(WSK_EVENT_RECEIVE)?;
    report.answer("static.after-socket", &answer, "");
    Ok(())
}
