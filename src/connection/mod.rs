//! A connection: receiving, sending, disconnecting, closing, and its events.
//!
//! ```text
//!                       shutdown                   peer's FIN
//!            ┌──────────▶ sending over ─────────────────┐
//!  connected ┤                                          ▼
//!            │ peer's FIN                         fully closed ──close──▶ closed, without a reset
//!            ├──────────▶ receiving over ──shutdown─────┘
//!            │
//!            └ abort, the peer's reset, or close: reset
//! ```
//!
//! A [`Connection`] can be [split](Connection::into_split) into a [`ReceiveHalf`] and a [`SendHalf`], which
//! work at the same time in two tasks, and any number of [`Control`]s watch and end it. Buffers are passed by
//! value and come back with the result, because WSK has them in between.
//!
//! Files: `shared` is the state that all of these share, `control` and `halves` are the handles, `receive`,
//! `queue`, `send` and `shutdown` the operations, `handlers`, `events` and `indication` the event callbacks.

mod connect;
mod control;
mod events;
mod halves;
mod handlers;
mod indicated;
mod indication;
mod kept;
mod pieces;
mod queue;

mod receive;
mod send;
mod shared;
mod shutdown;
mod stream;
mod turn;

use core::future::Future;

pub use connect::{Connect, ConnectionBuilder};
pub use control::{Control, Events};
pub use halves::{ReceiveHalf, ReuniteError, SendHalf};
pub use handlers::{
    ConnectionHandlers, DisconnectHandler, DisconnectKind, Handlers, ReceiveHandler, SendBacklogHandler,
};
pub use indication::{Indication, RetainedData, Taken};
pub use pieces::{RetainedPiece, RetainedPieces};
pub use queue::{ReceiveNext, ReceiveQueue};
pub use receive::{Drain, Receive, ReceiveBuf, ReceiveExact, ReceiveFlags};
pub use send::{Posted, SendFlags, Sending};
pub(crate) use shared::ConnectionRef;
pub use shutdown::{Abort, Shutdown, ShutdownAfter};

use crate::buffer::{Buffer, IoBuf};
use crate::listener::Endpoints;

/// An established connection.
///
/// Dropping it closes it in the background; see [`Connection::close`] and [`Connection::shutdown`]. A close
/// waits for [`RetainedData`] to be dropped. The methods of [`Control`] can be called on it, too.
///
/// Its handlers are dropped when the close has completed and neither a handle nor an operation or future of
/// it is left, at up to `DISPATCH_LEVEL`, never inside the `Drop` of another socket's handlers. So a handler
/// must not keep handles of its own connection for good: that is a cycle of memory that is never freed.
/// [`RetainedData`] that it keeps holds up the close besides, and with it the unloading.
///
/// ```
/// # use wsk::{Buffer, Connection, Result};
/// /// Sends back what comes.
/// async fn echo(mut connection: Connection) -> Result<()> {
///     let mut buffer = Buffer::try_with_capacity(4096)?;
///     loop {
///         let (received, filled) = connection.receive(buffer).await;
///         if received? == 0 {
///             return connection.shutdown().await;
///         }
///         let (sent, empty) = connection.send(filled).await;
///         sent?;
///         buffer = empty;
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Connection {
    receive: ReceiveHalf,
    send: SendHalf,
}

impl Connection {
    /// The handle of a connection that has got its socket.
    pub(crate) fn new(connection: ConnectionRef, endpoints: Endpoints) -> Self {
        let (receive, send) = halves::pair(connection, endpoints);
        Self { receive, send }
    }

    /// Splits the connection into its two directions, which can be used at the same time. It is closed when
    /// both are dropped.
    ///
    /// ```
    /// # use wsk::{Buffer, Connection, Result};
    /// # async fn example(connection: Connection, text: Buffer, room: Buffer) -> Result<()> {
    /// let (mut receive, mut send) = connection.into_split();
    /// // Sent while the answer is awaited.
    /// let posted = send.post(text);
    /// let (received, _) = receive.receive(room).await;
    /// let (sent, _) = posted.await;
    /// # received.and(sent).map(drop)
    /// # }
    /// ```
    pub fn into_split(self) -> (ReceiveHalf, SendHalf) {
        (self.receive, self.send)
    }

    /// Creates a handle that watches and ends the connection, but does not keep it open.
    pub fn control(&self) -> Control {
        self.receive.control()
    }

    /// Receives into `buffer` as soon as there is anything; see [`ReceiveHalf::receive`].
    ///
    /// # Cancel safety
    /// May be dropped at any time: no byte is lost. The buffer is not given back.
    ///
    /// # Errors
    /// The same as those of [`ReceiveHalf::receive`].
    pub fn receive<B: ReceiveBuf>(&mut self, buffer: B) -> Receive<'_, B> {
        self.receive.receive(buffer)
    }

    /// Receives until `buffer` is full; see [`ReceiveHalf::receive_exact`].
    ///
    /// # Cancel safety
    /// May be dropped at any time: no byte is lost. The buffer is not given back.
    ///
    /// # Errors
    /// The same as those of [`ReceiveHalf::receive_exact`].
    pub fn receive_exact<B: ReceiveBuf>(&mut self, buffer: B) -> ReceiveExact<'_, B> {
        self.receive.receive_exact(buffer)
    }

    /// Receives with flags; see [`ReceiveHalf::receive_with`].
    ///
    /// # Cancel safety
    /// May be dropped at any time: no byte is lost. The buffer is not given back.
    ///
    /// # Errors
    /// The same as those of [`ReceiveHalf::receive_with`].
    pub fn receive_with<B: ReceiveBuf>(&mut self, buffer: B, flags: ReceiveFlags) -> Receive<'_, B> {
        self.receive.receive_with(buffer, flags)
    }

    /// Discards whatever comes until the peer has ended its side; see [`ReceiveHalf::drain`].
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// The same as those of [`ReceiveHalf::receive`].
    pub fn drain(&mut self) -> Drain<'_> {
        self.receive.drain()
    }

    /// Sends all of `buffer`; see [`SendHalf::send`].
    ///
    /// # Cancel safety
    /// Once polled and dropped, the connection can only be closed. The buffer is not given back.
    ///
    /// # Errors
    /// The same as those of [`SendHalf::send`].
    pub fn send<B: IoBuf>(&mut self, buffer: B) -> Sending<'_, B> {
        self.send.send(buffer)
    }

    /// Sends with flags; see [`SendHalf::send_with`].
    ///
    /// # Cancel safety
    /// Once polled and dropped, the connection can only be closed. The buffer is not given back.
    ///
    /// # Errors
    /// The same as those of [`SendHalf::send_with`].
    pub fn send_with<B: IoBuf>(&mut self, buffer: B, flags: SendFlags) -> Sending<'_, B> {
        self.send.send_with(buffer, flags)
    }

    /// Ends this side gracefully; see [`SendHalf::shutdown`].
    ///
    /// # Cancel safety
    /// Dropping it asks for cancellation, which usually comes too late. Nothing can be sent all the same.
    ///
    /// # Errors
    /// The same as those of [`SendHalf::shutdown`].
    pub fn shutdown(&mut self) -> Shutdown<'_> {
        self.send.shutdown()
    }

    /// Ends this side gracefully after a last buffer, which comes back; see [`SendHalf::shutdown_after`].
    ///
    /// # Cancel safety
    /// The same as that of [`Connection::shutdown`].
    ///
    /// # Errors
    /// The same as those of [`SendHalf::shutdown`].
    pub fn shutdown_after(&mut self, last: Buffer) -> ShutdownAfter<'_> {
        self.send.shutdown_after(last)
    }

    /// Closes the connection and waits until no callback of it runs or will run; see [`Control::close`].
    ///
    /// # Cancel safety
    /// The close goes on when this is dropped.
    pub fn close(self) -> impl Future<Output = ()> + Send + use<> {
        Control::close(&self)
    }
}

impl core::ops::Deref for Connection {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.receive
    }
}

#[cfg(test)]
mod tests {
    use super::stream::Wholeness;
    use super::turn::Holder;
    use crate::sync::table;

    #[test]
    fn the_transitions_of_a_stream() {
        assert_eq!(
            table::<Wholeness>(),
            "Whole -> [Broken, Ended]\n\
             Broken -> []\n\
             Ended -> [Whole, Torn]\n\
             Torn -> [Broken]"
        );
    }

    #[test]
    fn the_transitions_of_a_turn() {
        assert_eq!(
            table::<Holder>(),
            "Free -> [Busy]\n\
             Busy -> [Free, Abandoned]\n\
             Abandoned -> [Free, Claimed]\n\
             Claimed -> [Busy, Abandoned]"
        );
    }
}
