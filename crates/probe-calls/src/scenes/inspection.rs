//! Decisions about connection requests that cannot be decided.
//!
//! On Windows a request is a SYN, and the connect of the other side is pending until the decision; the
//! provider here has complete connections to inspect. Both are served: connects are started, and ended after
//! the decision.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::client::{Client, Kind};
use crate::recorder;
use crate::report::Report;
use crate::request::Pending;
use crate::socket::{Socket, loopback};

/// A bound listener with conditional accept, and its port.
fn listener(client: &Client) -> Result<(Socket<'_>, u16), NTSTATUS> {
    let listener = client.open(Kind::listen(&recorder::LISTEN))?;
    listener.set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1)?.ok()?;
    listener.bind(&loopback(0))?.ok()?;
    let port = listener.port()?;
    Ok((listener, port))
}

/// A request that is being inspected: the connection that it comes from, and its connect. The connect is
/// dropped first.
struct Asking<'c> {
    connect: Pending<'c>,
    connection: Socket<'c>,
}

fn ask(client: &Client, port: u16) -> Result<Asking<'_>, NTSTATUS> {
    let before = client.recorder().inspected();
    let (connection, _) = client.open_bound(Kind::connection())?;
    let connect = connection.connect(&loopback(port))?;
    let asking = Asking { connect, connection };
    if client.recorder().await_inspection(before) { Ok(asking) } else { Err(STATUS_IO_TIMEOUT) }
}

pub(super) fn decisions(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (listener, port) = listener(client)?;
    let recorder = client.recorder();
    let asking = ask(client, port)?;
    if !recorder.await_return() {
        return Err(STATUS_IO_TIMEOUT);
    }
    let id = recorder.id();
    // The key of a living request: one that never was might be followed as a pointer.
    let unknown = WSK_INSPECT_ID { SerialNumber: id.SerialNumber.wrapping_add(0x1000), ..id };
    report.call("inspect.unknown", || listener.inspect_complete(unknown, WskInspectReject))?;
    report.call("inspect.pend", || listener.inspect_complete(id, WskInspectPend))?;
    report.call("inspect.seven", || listener.inspect_complete(id, WSK_INSPECT_ACTION(7)))?;
    // This call decides, unless one of those above has.
    let (_, _) = listener.inspect_complete(id, WskInspectReject)?.settle();
    report.call("inspect.decided", || listener.inspect_complete(id, WskInspectReject))?;
    drop(asking);
    let unbound = client.open(Kind::listen(&recorder::LISTEN))?;
    report.call("inspect.unbound", || unbound.inspect_complete(id, WskInspectReject))?;

    let Asking { connect, connection } = ask(client, port)?;
    if !recorder.await_return() {
        return Err(STATUS_IO_TIMEOUT);
    }
    let id = recorder.id();
    // Where the connection is up it is reset; where it is not, its connect ends here.
    drop(connect);
    if let Ok(reset) = connection.disconnect(WSK_FLAG_ABORTIVE, None) {
        drop(reset.settle());
    }
    drop(connection);
    if recorder.await_abort(id) {
        report.call("inspect.aborted", || listener.inspect_complete(id, WskInspectReject))?;
    } else {
        report.not_made("inspect.aborted", "no abort within two seconds after the end of the connect");
    }
    Ok(())
}

pub(super) fn early(report: &mut Report<'_>, client: &Client) -> Result<(), NTSTATUS> {
    let (listener, port) = listener(client)?;
    let recorder = client.recorder();
    recorder.hold_next();
    let asking = ask(client, port)?;
    let id = recorder.id();
    report.begin("inspect.early");
    let decision = listener.inspect_complete(id, WskInspectReject)?;
    // The callback is still running, so the request cannot have been decided by its return.
    let in_time = recorder.left() == 0;
    recorder.release();
    if !recorder.await_return() {
        return Err(STATUS_IO_TIMEOUT);
    }
    let (answer, _) = decision.settle();
    if in_time {
        report.answer("inspect.early", &answer, "");
    } else {
        report.not_made("inspect.early", "the callback had returned: another processor is needed");
    }
    // If that was not a decision, this is.
    let (_, _) = listener.inspect_complete(id, WskInspectReject)?.settle();
    drop(asking);
    Ok(())
}
