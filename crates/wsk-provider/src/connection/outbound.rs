//! The sending direction: queued sends, then the client's FIN.

use std::io::ErrorKind;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{STATUS_SUCCESS, nt_success};

use crate::behaviours::GracefulEnd;
use crate::data::Span;
use crate::request::{Completions, Request, RequestQueue};
use crate::socket::Socket;
use crate::transport::{Ready, Stream, status_of};

/// Maximum ideal backlog.
const LARGEST_BACKLOG: usize = 4 << 20;

/// A queued send.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Data that is still to be written.
    pub(super) span: Span,
    /// `Information` of the request on success.
    pub(super) information: usize,
}

/// A queued graceful disconnect.
#[derive(Debug)]
pub(super) struct Fin {
    /// Rest of the final buffer.
    span: Span,
}

/// The sending direction.
#[derive(Debug)]
pub(super) struct Outbound {
    /// The transport may take more.
    writable: bool,
    sends: RequestQueue<Outgoing>,
    /// The client has disconnected gracefully.
    closed: bool,
    fins: RequestQueue<Fin>,
    /// The FIN was passed to the transport, behind all data.
    end_sent: bool,
    /// Number of bytes of queued sends.
    waiting: usize,
    ideal: usize,
    /// The client was notified of `ideal`, or need not be.
    ideal_notified: bool,
}

impl Outbound {
    pub(super) fn new(ideal: usize) -> Self {
        Self {
            writable: true,
            sends: RequestQueue::default(),
            closed: false,
            fins: RequestQueue::default(),
            end_sent: false,
            waiting: 0,
            ideal,
            ideal_notified: true,
        }
    }

    pub(super) fn note(&mut self, ready: Ready) {
        self.writable |= ready.writable || ready.failed;
    }

    /// Returns whether the client has disconnected gracefully.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns whether the FIN was passed to the transport.
    pub(super) fn end_sent(&self) -> bool {
        self.end_sent
    }

    /// Returns whether sends or a disconnect are queued.
    pub(super) fn is_busy(&self) -> bool {
        !self.sends.is_empty() || !self.fins.is_empty()
    }

    /// Returns the ideal send backlog in bytes.
    pub(super) fn ideal(&self) -> usize {
        self.ideal
    }

    /// Sets the ideal backlog, of which the client is then notified.
    pub(super) fn set_ideal(&mut self, ideal: usize) {
        if self.ideal != ideal {
            self.ideal = ideal;
            self.ideal_notified = false;
        }
    }

    /// Returns whether the client has to be notified of the ideal backlog.
    pub(super) fn backlog_due(&self) -> bool {
        !self.ideal_notified
    }

    /// Returns the ideal backlog, once for each notification.
    pub(super) fn take_backlog(&mut self) -> Option<usize> {
        (!std::mem::replace(&mut self.ideal_notified, true)).then_some(self.ideal)
    }

    /// Writes as much of `span` as possible, if no send is queued.
    pub(super) fn write_now(&mut self, span: &mut Span, stream: &mut dyn Stream) -> Result<(), NTSTATUS> {
        if self.sends.is_empty() { self.write(span, stream) } else { Ok(()) }
    }

    fn write(&mut self, span: &mut Span, stream: &mut dyn Stream) -> Result<(), NTSTATUS> {
        while self.writable && span.left() > 0 {
            match span.drain_with(|pieces| stream.try_write(pieces)) {
                Ok(moved) => self.writable = !moved.short,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(status_of(&error)),
            }
        }
        Ok(())
    }

    /// Queues a send.
    pub(super) fn push(&mut self, request: Request, socket: &Arc<Socket>, outgoing: Outgoing) {
        self.waiting += outgoing.span.left();
        if self.waiting >= self.ideal && self.ideal < LARGEST_BACKLOG {
            // The client has more data in flight than the ideal, and the transport is slower: raise the
            // ideal, as Windows does.
            self.set_ideal((self.ideal * 2).min(LARGEST_BACKLOG));
        }
        self.sends.push(request, socket, outgoing);
    }

    /// Queues a graceful disconnect, with a final buffer.
    pub(super) fn close(&mut self, request: Request, socket: &Arc<Socket>, span: Span) {
        self.closed = true;
        self.fins.push(request, socket, Fin { span });
    }

    /// Writes the queued data, and the FIN behind it; `peer_ended` if the peer has ended its side.
    pub(super) fn pump(
        &mut self,
        stream: &mut dyn Stream,
        peer_ended: bool,
        socket: &Arc<Socket>,
        completions: &mut Completions,
    ) -> Result<(), NTSTATUS> {
        while self.writable
            && let Some((request, mut outgoing)) = self.sends.pop()
        {
            let before = outgoing.span.left();
            let written = self.write(&mut outgoing.span, stream);
            self.waiting = self.waiting.saturating_sub(before - outgoing.span.left());
            if outgoing.span.left() == 0 {
                completions.push(request, STATUS_SUCCESS, outgoing.information);
            } else {
                self.sends.push_front(request, socket, outgoing);
            }
            written?;
        }
        if self.closed && self.sends.is_empty() {
            self.send_fin(stream, peer_ended, socket, completions)?;
        }
        Ok(())
    }

    fn send_fin(
        &mut self,
        stream: &mut dyn Stream,
        peer_ended: bool,
        socket: &Arc<Socket>,
        completions: &mut Completions,
    ) -> Result<(), NTSTATUS> {
        // Without a request the disconnect was cancelled; the FIN is sent nevertheless.
        let fin = self.fins.pop();
        if !self.end_sent {
            if let Some((request, mut fin)) = fin {
                let written = self.write(&mut fin.span, stream);
                let unfinished = fin.span.left() > 0;
                self.fins.push_front(request, socket, fin);
                written?;
                if unfinished {
                    return Ok(());
                }
            }
            stream.shut_write().map_err(|error| status_of(&error))?;
            self.end_sent = true;
        } else if let Some((request, fin)) = fin {
            self.fins.push_front(request, socket, fin);
        }
        // The disconnect is complete when the peer has acknowledged everything, or has ended too. If the
        // transport cannot tell, it is when the transport has taken everything, including the FIN: the rest
        // proceeds by itself, and a peer may wait for this FIN before it ends.
        let done = peer_ended
            || (socket.provider().live_config.behaviours().graceful_end == GracefulEnd::Acknowledged
                && stream.drained().map_err(|error| status_of(&error))? != Some(false));
        if done && let Some((request, _)) = self.fins.pop() {
            completions.push(request, STATUS_SUCCESS, 0);
        }
        Ok(())
    }

    /// Removes the request of `irp`, which is being cancelled, if it is queued here.
    pub(super) fn cancelled(&mut self, irp: *mut IRP) {
        if let Some(outgoing) = self.sends.remove_cancelled(irp) {
            self.waiting = self.waiting.saturating_sub(outgoing.span.left());
        } else {
            self.fins.remove_cancelled(irp);
        }
    }

    /// Ends all queued requests with one status.
    pub(super) fn end_all(&mut self, status: NTSTATUS, completions: &mut Completions) {
        self.abort(status, status, completions);
    }

    /// Ends the queued sends and the disconnect.
    pub(super) fn abort(&mut self, sends: NTSTATUS, fins: NTSTATUS, completions: &mut Completions) {
        debug_assert!(!nt_success(sends) && !nt_success(fins), "requests that end early have not been sent");
        self.waiting = 0;
        self.sends.end_all(sends, completions);
        self.fins.end_all(fins, completions);
    }
}
