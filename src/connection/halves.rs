//! The two directions of a connection.

use core::fmt;
use core::ops::Deref;

use super::queue::ReceiveQueue;
use super::receive::{Drain, Receive, ReceiveBuf, ReceiveExact, ReceiveFlags};
use super::send::{Posted, SendFlags, Sending};
use super::shared::ConnectionRef;
use super::{Connection, Control, Shutdown, ShutdownAfter};
use crate::buffer::{Buffer, IoBuf};
use crate::error::Result;
use crate::listener::Endpoints;

/// A control that keeps the connection open: dropping the last one closes it.
///
/// # Invariants
/// It is counted in the connection's `owners`.
struct Owner(Control);

impl Owner {
    fn new(connection: ConnectionRef) -> Self {
        // INVARIANT: counted here, and no more in `drop`.
        connection.own();
        Self(Control::new(connection))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.connection().disown();
    }
}

/// The halves of a connection that has got its socket.
pub(super) fn pair(connection: ConnectionRef, endpoints: Endpoints) -> (ReceiveHalf, SendHalf) {
    connection.common().state.lock().endpoints = endpoints;
    let receive = ReceiveHalf { owner: Owner::new(connection.clone()) };
    (receive, SendHalf { owner: Owner::new(connection), shut_down: false })
}

/// The receiving half of a [`Connection`], from [`Connection::into_split`].
///
/// The connection is closed when both halves are dropped. The methods of [`Control`] can be called on a half,
/// too.
pub struct ReceiveHalf {
    owner: Owner,
}

impl ReceiveHalf {
    /// Receives into `buffer` as soon as there is anything (`WskReceive`). The result is the number of bytes
    /// and the buffer, whose length is that number; 0 means that the peer has ended its side.
    ///
    /// One receive is under way at a time. One whose future is forgotten ([`core::mem::forget`]) leaves the
    /// connection busy for good.
    ///
    /// # Cancel safety
    /// May be dropped at any time. Bytes that arrive in spite of it are the first that the next receive gets;
    /// the buffer is not given back. With a [time limit](Receive::within) it is.
    ///
    /// # Errors
    /// `STATUS_CONNECTION_RESET` and the like, `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED` when the
    /// connection was closed, `STATUS_INSUFFICIENT_RESOURCES`; `STATUS_DEVICE_BUSY` after a forgotten
    /// receive. Bytes that came before an error are in the buffer.
    ///
    /// # Mixing with the receive event
    /// Bytes that a dropped receive left precede all that the [`ReceiveHandler`](crate::ReceiveHandler) is
    /// given later. A receive that they satisfy posts nothing, so it does not make up for data the handler
    /// did not take.
    pub fn receive<B: ReceiveBuf>(&mut self, buffer: B) -> Receive<'_, B> {
        self.receive_with(buffer, ReceiveFlags::empty())
    }

    /// Receives until `buffer` is full (`WskReceive` with `WSK_FLAG_WAITALL`).
    ///
    /// # Cancel safety
    /// May be dropped at any time. Bytes that arrive in spite of it are the first that the next receive gets;
    /// the buffer is not given back.
    ///
    /// # Errors
    /// `STATUS_END_OF_FILE` when the peer has ended its side before, and the errors of
    /// [`ReceiveHalf::receive`]. The bytes that came are in the buffer.
    pub fn receive_exact<B: ReceiveBuf>(&mut self, buffer: B) -> ReceiveExact<'_, B> {
        ReceiveExact::new(self.connection(), buffer)
    }

    /// Receives with flags (`WskReceive`); otherwise the same as [`ReceiveHalf::receive`].
    ///
    /// # Cancel safety
    /// May be dropped at any time. Bytes that arrive in spite of it are the first that the next receive gets;
    /// the buffer is not given back.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for flags that have no name, and the errors of [`ReceiveHalf::receive`].
    pub fn receive_with<B: ReceiveBuf>(&mut self, buffer: B, flags: ReceiveFlags) -> Receive<'_, B> {
        Receive::new(self.connection(), buffer, flags)
    }

    /// Makes a queue that has up to `depth` receives under way, each into a buffer of `size` bytes, and hands
    /// out their bytes in order. So data finds a buffer also while earlier bytes are being used.
    ///
    /// Its buffers are allocated here; the operations take their memory from what the client keeps, when they
    /// are posted. Nothing is received before the first [`next`](ReceiveQueue::next).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if either is 0, `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// ```
    /// # use wsk::{Connection, Result, SendHalf};
    /// /// Sends back what comes, while more is coming in.
    /// async fn echo(connection: Connection) -> Result<()> {
    ///     let (mut receive, mut send) = connection.into_split();
    ///     let mut queue = receive.queue(4, 4096)?;
    ///     while let Some(filled) = queue.next().await? {
    ///         let (sent, buffer) = send.send(filled).await;
    ///         sent?;
    ///         queue.put_back(buffer);
    ///     }
    ///     send.shutdown().await
    /// }
    /// ```
    pub fn queue(&mut self, depth: usize, size: usize) -> Result<ReceiveQueue<'_>> {
        ReceiveQueue::try_new(self.connection(), depth, size)
    }

    /// Discards whatever comes until the peer has ended its side or the connection is gone
    /// (`WSK_FLAG_DRAIN`), after a [`shutdown`](SendHalf::shutdown) for instance.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// The same as those of [`ReceiveHalf::receive`].
    pub fn drain(&mut self) -> Drain<'_> {
        Drain::new(self.connection())
    }

    /// Creates a handle that watches and ends the connection, but does not keep it open.
    pub fn control(&self) -> Control {
        self.owner.0.clone()
    }

    /// Puts the two halves of one connection together again.
    ///
    /// # Errors
    /// [`ReuniteError`], which gives the halves back, if they are of different connections.
    pub fn reunite(self, send: SendHalf) -> core::result::Result<Connection, ReuniteError> {
        if self.connection().is_same(send.connection()) {
            Ok(Connection { receive: self, send })
        } else {
            Err(ReuniteError { receive: self, send })
        }
    }
}

/// The sending half of a [`Connection`], from [`Connection::into_split`].
///
/// The connection is closed when both halves are dropped; dropping this one alone tells the peer nothing, so
/// [shut it down](SendHalf::shutdown) first. The methods of [`Control`] can be called on a half, too.
pub struct SendHalf {
    owner: Owner,
    /// This side was ended gracefully.
    shut_down: bool,
}

impl SendHalf {
    /// Sends all of `buffer` (`WskSend`). The result is the number of bytes, always all of them, and the
    /// buffer. With an empty buffer there is nothing to do.
    ///
    /// WSK does not buffer: this resolves when the transport has taken every byte. To have several sends
    /// under way, [`post`](SendHalf::post) them.
    ///
    /// # Cancel safety
    /// Dropping it after its first poll asks for cancellation; how much had been sent by then is not known,
    /// so the connection can only be closed. The buffer is not given back.
    ///
    /// # Errors
    /// `STATUS_LOCAL_DISCONNECT` after a [`shutdown`](SendHalf::shutdown), `STATUS_CONNECTION_ABORTED` after
    /// a send that was dropped under way or a posted one that failed, `STATUS_CONNECTION_RESET` and the like,
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED` when the connection was closed,
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn send<B: IoBuf>(&mut self, buffer: B) -> Sending<'_, B> {
        self.send_with(buffer, SendFlags::empty())
    }

    /// Sends with flags (`WskSend`); otherwise the same as [`SendHalf::send`].
    ///
    /// # Cancel safety
    /// Dropping it after its first poll asks for cancellation; the connection can only be closed then.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for flags that have no name, and the errors of [`SendHalf::send`].
    pub fn send_with<B: IoBuf>(&mut self, buffer: B, flags: SendFlags) -> Sending<'_, B> {
        Sending::new(self.connection(), buffer, flags, self.shut_down)
    }

    /// Submits a send of all of `buffer` at once (`WskSend`), before this returns, and not at the first poll.
    ///
    /// Any number of posted sends may be under way. They go out in the order of the calls, and before
    /// whatever is sent afterwards.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; not in completion routines.
    ///
    /// # Cancel safety
    /// Dropping the future asks for cancellation; the connection can only be closed then. [`Posted::detach`]
    /// lets the send go on instead.
    ///
    /// # Errors
    /// The same as those of [`SendHalf::send`], as the output of the future. After one, also before it is
    /// looked at, every later send and shutdown fails with `STATUS_CONNECTION_ABORTED`: others may have gone
    /// out behind it, so the connection can only be closed.
    ///
    /// ```
    /// # use wsk::{Buffer, Result, SendHalf};
    /// # async fn example(send: &mut SendHalf) -> Result<()> {
    /// let head = send.post(Buffer::try_from_slice(b"head")?);
    /// let body = send.post(Buffer::try_from_slice(b"body")?);
    /// let (sent, _) = head.await;
    /// sent?;
    /// let (sent, _) = body.await;
    /// sent.map(drop)
    /// # }
    /// ```
    pub fn post<B: IoBuf>(&mut self, buffer: B) -> Posted<B> {
        self.post_with(buffer, SendFlags::empty())
    }

    /// Submits a send with flags at once; otherwise the same as [`SendHalf::post`].
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; not in completion routines.
    ///
    /// # Cancel safety
    /// The same as that of [`SendHalf::post`].
    ///
    /// # Errors
    /// The same as those of [`SendHalf::send_with`], as the output of the future.
    pub fn post_with<B: IoBuf>(&mut self, buffer: B, flags: SendFlags) -> Posted<B> {
        Posted::new(self.connection(), buffer, flags, self.shut_down)
    }

    /// Ends this side gracefully (`WskDisconnect`): what was sent is transmitted, then the end of the stream.
    /// Nothing can be sent any more from the first poll on; receiving goes on until the peer ends its side.
    ///
    /// It resolves when the transport has finished, which a peer that is stuck can put off for good: give it
    /// a [time limit](Shutdown::within), and [abort](Control::abort) or close the connection when that
    /// expires.
    ///
    /// # Cancel safety
    /// Dropping it asks for cancellation, which usually comes too late. Nothing can be sent all the same.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` for a second one, `STATUS_CONNECTION_ABORTED` after a send that was lost
    /// (see [`SendHalf::post`]), `STATUS_CONNECTION_RESET` and the like,
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED`, `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn shutdown(&mut self) -> Shutdown<'_> {
        Shutdown::new(self.owner.0.connection(), &mut self.shut_down)
    }

    /// Sends `last`, then ends this side gracefully, in one request; otherwise the same as
    /// [`SendHalf::shutdown`]. The buffer comes back with the result.
    ///
    /// # Cancel safety
    /// The same as that of [`SendHalf::shutdown`].
    ///
    /// # Errors
    /// The same as those of [`SendHalf::shutdown`].
    pub fn shutdown_after(&mut self, last: Buffer) -> ShutdownAfter<'_> {
        ShutdownAfter::new(self.owner.0.connection(), last, &mut self.shut_down)
    }

    /// Creates a handle that watches and ends the connection, but does not keep it open.
    pub fn control(&self) -> Control {
        self.owner.0.clone()
    }
}

impl Deref for ReceiveHalf {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.owner.0
    }
}

impl Deref for SendHalf {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.owner.0
    }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiveHalf").field(&self.owner.0).finish()
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(&self.owner.0).finish()
    }
}

/// Error of [`ReceiveHalf::reunite`] for halves of different connections, with both of them.
#[derive(Debug)]
pub struct ReuniteError {
    receive: ReceiveHalf,
    send: SendHalf,
}

impl ReuniteError {
    /// Returns the halves.
    pub fn into_inner(self) -> (ReceiveHalf, SendHalf) {
        (self.receive, self.send)
    }
}

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of different connections")
    }
}

impl core::error::Error for ReuniteError {}
