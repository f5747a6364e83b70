//! Sockets made wrongly, the client object, and the extended receive callback.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::client::{Client, Kind};
use crate::recorder;
use crate::report::Report;

pub(super) fn sockets(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let two = Kind { flags: WSK_FLAG_LISTEN_SOCKET | WSK_FLAG_CONNECTION_SOCKET, ..Kind::basic() };
    let (_, socket) = report.call("socket.two-categories", || client.socket(two))?;
    drop(socket);
    let listen = Kind::listen(&recorder::LISTEN);
    let unnamed = Kind { unnamed: true, ..Kind::connection() };
    let (_, socket) = report.call("socket.no-protocol", || client.socket(unnamed))?;
    drop(socket);
    let (_, socket) = report.call("socket.null-client", || client.socket_of_null(listen))?;
    drop(socket);
    Ok(())
}

pub(super) fn client(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    report.call("control.unknown-code", || client.control(0x7777))?;
    report.begin("name.null-process");
    let (answer, request) = client.resolve("localhost")?.finish();
    if let (true, Some(mut request)) = (answer.succeeded(), request) {
        client.free_addresses(&mut request);
    }
    report.answer("name.null-process", &answer, "");
    Ok(())
}

pub(super) fn receive_ex(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (with, _peer) = client.pair()?;
    report.call("ioctl.receive-ex-irp", || with.receive_ex())?;
    let (without, _peer) = client.pair()?;
    report.begin("ioctl.receive-ex-no-irp");
    let answer = without.receive_ex_now()?;
    report.answer("ioctl.receive-ex-no-irp", &answer, "");
    Ok(())
}
