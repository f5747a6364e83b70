//! The receiving direction: queued receives, the latch of the receive event, and the peer's end (contract
//! 5.6).
//!
//! ```text
//!            data, no receive queued                      SUCCESS with everything, PENDING
//!   Open ───────────────────────────► Running ─────────────────────────────────────────► Open
//!    ▲                                   │ partial SUCCESS, DATA_NOT_ACCEPTED: the rest is kept
//!    │ a receive posted since            ▼
//!    └──────── has completed ────────── Shut
//! ```

use std::io::{ErrorKind, IoSliceMut};
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{PFN_WSK_RECEIVE_EX_EVENT, STATUS_SUCCESS, WSK_DATA_INDICATION};

use crate::data::{Packet, Span};
use crate::request::{Completions, Request, RequestQueue};
use crate::socket::Socket;
use crate::transport::{Ready, Stream, Waiting, status_of};

/// Size of the buffer for data that is discarded.
const DRAIN_ROOM: usize = 16 * 1024;

/// Condition for the completion of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// With the first bytes.
    Some,
    /// With a full buffer.
    All {
        /// If cancelled early it reports the bytes received so far; otherwise they are kept for the next
        /// receive.
        tells_when_cancelled: bool,
    },
    /// Never: data is discarded until the connection ends.
    Drain,
}

/// A queued receive.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Memory that is still to be filled.
    span: Span,
    /// The whole buffer.
    whole: Span,
    want: Want,
}

impl Incoming {
    pub(super) fn new(whole: Span, want: Want) -> Self {
        Self { span: whole.again(), whole, want }
    }

    fn size(&self) -> usize {
        self.whole.left()
    }

    fn done(&self) -> usize {
        self.size() - self.span.left()
    }
}

/// Latch of the receive event that a receive found shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveLatch(u64);

/// Result of an attempt to serve a receive.
pub(super) enum Served {
    /// It is done, with this number of bytes.
    Done(usize),
    /// It has to wait.
    Waits,
}

/// An indication in progress.
#[derive(Debug)]
pub(super) struct Indicated {
    pub(super) list: *mut WSK_DATA_INDICATION,
    pub(super) packet: Box<Packet>,
    /// The client has released the list before its callback returned `STATUS_PENDING`.
    pub(super) released: bool,
}

/// The receiving direction.
///
/// # Invariants
/// `kept` precedes the data in the stream. While `current` is `Some` nothing is read, because the data that
/// the callback does not take comes first.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The stream may have data.
    readable: bool,
    /// The transport has reported that the peer has ended its side.
    end_in_sight: bool,
    /// The end was read.
    ended: bool,
    receives: RequestQueue<Incoming>,
    /// Bytes that were read from the stream and not received yet, from `kept_from` on.
    kept: Vec<u8>,
    kept_from: usize,
    /// The receive event waits for a receive to complete.
    shut: bool,
    /// Number of times that the latch was shut. A receive opens only the latch that it found shut.
    shuts: u64,
    /// A receive was served while the latch was shut: the latch opens when its request has completed.
    opening: bool,
    /// Data is indicated to the receive event although receives wait: the documented race (RCV-19).
    pub(super) event_first: bool,
    /// Number of receives that began and ended at the end of the stream.
    end_reads: u32,
    /// The receive-ex callback, which replaces the receive event.
    pub(super) ex: Option<PFN_WSK_RECEIVE_EX_EVENT>,
    pub(super) current: Option<Indicated>,
    /// Lists that the client retains, by their heads.
    retained: Vec<Indicated>,
    /// The client was notified of the end, or has missed it.
    pub(super) end_notified: bool,
    /// The connection was reset, and the client is not notified yet.
    pub(super) reset_due: bool,
}

// SAFETY: the list pointers lead into the packets beside them.
unsafe impl Send for Inbound {}

impl Inbound {
    pub(super) fn note(&mut self, ready: Ready) {
        self.readable |= ready.readable || ready.peer_closed || ready.failed;
        self.end_in_sight |= ready.peer_closed;
    }

    /// Creates the state of a new connection, whose stream has not reported anything yet.
    pub(super) fn begin(&mut self) {
        self.readable = true;
    }

    /// Returns whether the peer sends no further data.
    pub(super) fn peer_has_ended(&self) -> bool {
        self.ended || self.end_in_sight
    }

    /// Returns whether the peer's end has been received, possibly behind unread data.
    pub(super) fn has_ended(&self, stream: &dyn Stream) -> bool {
        self.peer_has_ended() || matches!(stream.peek(), Ok(Waiting::End))
    }

    /// Returns whether the end is next, and the client is not notified of it.
    pub(super) fn end_is_due(&self) -> bool {
        self.ended && self.kept_bytes() == 0 && self.current.is_none() && !self.end_notified
    }

    /// Returns whether there may be data for the receive event.
    pub(super) fn may_have_data(&self) -> bool {
        !self.shut && self.current.is_none() && (self.kept_bytes() > 0 || (self.readable && !self.ended))
    }

    /// Returns whether bytes are kept that can be received.
    pub(super) fn has_kept(&self) -> bool {
        self.kept_bytes() > 0
    }

    /// Returns whether receives wait.
    pub(super) fn has_receives(&self) -> bool {
        !self.receives.is_empty()
    }

    /// Returns the number of bytes that the oldest receive has so far; `None` if none waits.
    pub(super) fn gathered(&mut self) -> Option<usize> {
        self.receives.front_mut().map(|first| first.done())
    }

    fn kept_bytes(&self) -> usize {
        self.kept.len() - self.kept_from
    }

    /// Returns the number of bytes that have arrived and are not received.
    pub(super) fn backlog(&self, stream: &dyn Stream) -> usize {
        self.kept_bytes() + stream.unread().unwrap_or(0)
    }

    /// Puts bytes back before everything else.
    fn keep_first(&mut self, bytes: &[u8]) {
        self.kept.splice(..self.kept_from, bytes.iter().copied());
        self.kept_from = 0;
    }

    fn use_kept(&mut self, bytes: usize) {
        self.kept_from += bytes;
        if self.kept_from == self.kept.len() {
            self.kept = Vec::new();
            self.kept_from = 0;
        }
    }

    /// Queues a receive.
    pub(super) fn push(&mut self, request: Request, socket: &Arc<Socket>, incoming: Incoming) {
        self.receives.push(request, socket, incoming);
    }

    /// Returns whether a receive may be served now, ahead of no other.
    pub(super) fn is_free(&self) -> bool {
        self.receives.is_empty() && self.current.is_none()
    }

    /// Returns the latch of the receive event, if it is shut.
    pub(super) fn latch(&self) -> Option<ReceiveLatch> {
        self.shut.then_some(ReceiveLatch(self.shuts))
    }

    /// Returns the latch that the served receives open when their requests have completed.
    pub(super) fn take_opening(&mut self) -> Option<ReceiveLatch> {
        std::mem::take(&mut self.opening).then(|| self.latch()).flatten()
    }

    /// Opens the latch, after a receive that found it shut has completed.
    pub(super) fn open(&mut self, latch: ReceiveLatch) {
        if self.shuts == latch.0 {
            self.shut = false;
        }
    }

    /// Counts a non-empty receive that began and ended at the end of the stream, and returns the count.
    pub(super) fn end_read(&mut self) -> u32 {
        self.end_reads = self.end_reads.saturating_add(1);
        self.end_reads
    }

    /// Serves the queued receives.
    pub(super) fn pump(
        &mut self,
        stream: &mut dyn Stream,
        socket: &Arc<Socket>,
        completions: &mut Completions,
    ) -> Result<(), NTSTATUS> {
        while self.current.is_none()
            && !self.event_first
            && (self.readable || self.ended || self.kept_bytes() > 0)
            && let Some((request, mut incoming)) = self.pop()
        {
            match self.serve(&mut incoming, stream) {
                Ok(Served::Done(bytes)) => {
                    self.opening |= self.shut;
                    completions.push(request, STATUS_SUCCESS, bytes);
                }
                Ok(Served::Waits) => {
                    self.receives.push_front(request, socket, incoming);
                    break;
                }
                Err(status) => {
                    completions.push(request, status, 0);
                    return Err(status);
                }
            }
        }
        self.look_for_end(stream)
    }

    /// Takes the next receive to serve.
    fn pop(&mut self) -> Option<(Request, Incoming)> {
        let begun = self.receives.front_mut().is_some_and(|first| first.done() > 0);
        let (request, incoming) = self.receives.pop()?;
        if begun
            && incoming.done() == 0
            && let Some(first) = self.receives.front_mut()
            && let Want::All { tells_when_cancelled } = &mut first.want
        {
            // The first one is being cancelled, and a later one continues behind its bytes: the first one has
            // to report them.
            *tells_when_cancelled = true;
        }
        Some((request, incoming))
    }

    /// Checks whether the end is next, if the peer has ended its side, without reading data that may be for
    /// the
    /// event.
    pub(super) fn look_for_end(&mut self, stream: &dyn Stream) -> Result<(), NTSTATUS> {
        let hidden = self.kept_bytes() > 0 || self.current.is_some();
        if !self.end_in_sight || !self.readable || self.ended || hidden {
            return Ok(());
        }
        match stream.peek() {
            Ok(Waiting::End) => self.ended = true,
            Ok(Waiting::Data | Waiting::Nothing) => {}
            Err(error) => return Err(status_of(&error)),
        }
        Ok(())
    }

    /// Serves one receive as far as possible.
    pub(super) fn serve(
        &mut self,
        incoming: &mut Incoming,
        stream: &mut dyn Stream,
    ) -> Result<Served, NTSTATUS> {
        match incoming.want {
            Want::Drain => self.drain(stream),
            _ if incoming.size() == 0 => self.probe(stream),
            Want::Some => self.fill(incoming, stream),
            Want::All { .. } => loop {
                let before = incoming.done();
                match self.fill(incoming, stream)? {
                    Served::Done(bytes) if bytes < incoming.size() && incoming.done() > before => {}
                    served => return Ok(served),
                }
            },
        }
    }

    /// Moves bytes into the buffer once. `Done` has the total number of bytes; without new ones the stream
    /// has ended.
    fn fill(&mut self, incoming: &mut Incoming, stream: &mut dyn Stream) -> Result<Served, NTSTATUS> {
        if self.kept_bytes() > 0 {
            let copied = incoming.span.fill(&self.kept[self.kept_from..]);
            self.use_kept(copied);
        } else if !self.ended {
            if !self.readable {
                return Ok(Served::Waits);
            }
            match incoming.span.fill_with(|pieces| stream.try_read(pieces)) {
                Ok(moved) => self.has_read(moved.bytes, moved.short),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Served::Waits);
                }
                Err(error) => return Err(status_of(&error)),
            }
        }
        Ok(Served::Done(incoming.done()))
    }

    /// Records the result of a non-empty read.
    fn has_read(&mut self, bytes: usize, short: bool) {
        if bytes == 0 {
            self.ended = true;
            self.readable = false;
        } else if short && !self.end_in_sight {
            // The transport reports again when more arrives, but not an end that it has already reported.
            self.readable = false;
        }
    }

    /// Serves a receive of no bytes: it is done when there is data, or the end.
    fn probe(&mut self, stream: &dyn Stream) -> Result<Served, NTSTATUS> {
        if self.kept_bytes() > 0 || self.ended {
            return Ok(Served::Done(0));
        }
        if !self.readable {
            return Ok(Served::Waits);
        }
        match stream.peek() {
            Ok(Waiting::Data) => Ok(Served::Done(0)),
            Ok(Waiting::End) => {
                self.ended = true;
                Ok(Served::Done(0))
            }
            Ok(Waiting::Nothing) => {
                self.readable = false;
                Ok(Served::Waits)
            }
            Err(error) => Err(status_of(&error)),
        }
    }

    fn drain(&mut self, stream: &mut dyn Stream) -> Result<Served, NTSTATUS> {
        let mut room = [0; DRAIN_ROOM];
        self.use_kept(self.kept_bytes());
        while self.readable && !self.ended {
            match stream.try_read(&mut [IoSliceMut::new(&mut room)]) {
                Ok(bytes) => self.has_read(bytes, bytes < room.len()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(status_of(&error)),
            }
        }
        Ok(if self.ended { Served::Done(0) } else { Served::Waits })
    }

    /// Fills a packet for the receive event; false if there is no data.
    pub(super) fn fill_packet(
        &mut self,
        packet: &mut Packet,
        stream: &mut dyn Stream,
    ) -> Result<bool, NTSTATUS> {
        if self.kept_bytes() > 0 {
            let bytes = self.kept_bytes().min(packet.room().len());
            packet.room()[..bytes].copy_from_slice(&self.kept[self.kept_from..self.kept_from + bytes]);
            packet.set_length(bytes);
            self.use_kept(bytes);
            return Ok(true);
        }
        if !self.readable || self.ended {
            return Ok(false);
        }
        let room = packet.room();
        let wanted = room.len();
        match stream.try_read(&mut [IoSliceMut::new(room)]) {
            Ok(bytes) => {
                self.has_read(bytes, bytes < wanted);
                packet.set_length(bytes);
                Ok(bytes > 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(false)
            }
            Err(error) => Err(status_of(&error)),
        }
    }

    /// Puts back bytes that the callback has not taken, which come first from now on, and shuts the latch.
    pub(super) fn not_taken(&mut self, bytes: &[u8]) {
        self.keep_first(bytes);
        self.shut = true;
        self.shuts += 1;
    }

    /// Records that the client retains a list.
    pub(super) fn retain(&mut self, indicated: Indicated) {
        self.retained.push(indicated);
    }

    /// Takes back a list that the client retained.
    pub(super) fn take_retained(&mut self, list: *mut WSK_DATA_INDICATION) -> Option<Box<Packet>> {
        let index = self.retained.iter().position(|kept| kept.list == list)?;
        Some(self.retained.swap_remove(index).packet)
    }

    /// Takes all indications that the client may still access.
    pub(super) fn take_indicated(&mut self) -> impl Iterator<Item = Box<Packet>> {
        self.retained.drain(..).chain(self.current.take()).map(|indicated| indicated.packet)
    }

    /// Returns whether `list` is an element of an indicated list, and not its head.
    pub(super) fn is_inside(&self, list: *mut WSK_DATA_INDICATION) -> bool {
        self.retained
            .iter()
            .chain(&self.current)
            .any(|held| held.list != list && held.packet.has_element(list))
    }

    /// Removes the request of `irp`, which is being cancelled, and returns the number of bytes that it
    /// reports.
    pub(super) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        let Some(mut incoming) = self.receives.remove_cancelled(irp) else { return 0 };
        match incoming.want {
            Want::All { tells_when_cancelled: true } => incoming.done(),
            Want::All { tells_when_cancelled: false } => {
                // The client gets the buffer back only when the request completes, which is later.
                let mut bytes = Vec::new();
                let done = incoming.done();
                incoming.whole.drain(done, &mut bytes);
                self.keep_first(&bytes);
                0
            }
            Want::Some | Want::Drain => 0,
        }
    }

    /// Ends all queued requests with one status.
    pub(super) fn end_all(&mut self, status: NTSTATUS, completions: &mut Completions) {
        self.receives.end_all(status, completions);
    }

    /// Discards received data: nothing is received any more.
    pub(super) fn discard(&mut self) {
        self.use_kept(self.kept_bytes());
        self.readable = false;
    }
}
