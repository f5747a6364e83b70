//! Datagrams: sending and receiving over UDP.
//!
//! ```text
//!  Provider::datagram ─▶ DatagramBuilder ──bind──▶ DatagramSocket ──receive_from().await──▶ Datagram
//!                         options that must            │
//!                         precede bind                 └──send_to().await
//! ```
//!
//! Datagrams have no order to keep, so any number of receives and sends may be under way at the same time.
//!
//! Files: `shared` is the state that handles and operations share, `builder` makes the socket, `transfer` has
//! the operations.

mod builder;
mod shared;
mod transfer;

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;

pub use builder::DatagramBuilder;
use shared::DatagramRef;
pub use transfer::{Datagram, ReceiveFrom, SendTo};

use crate::address;
use crate::buffer::{Buffer, IoBuf};
use crate::client::Pause;
use crate::error::Result;
use crate::options::{GetOption, SetOption, kind};
use crate::socket::{CloseReason, Closed, WaitClosed, get_option, set_option};

/// A bound datagram socket. Dropping it closes it in the background; see [`DatagramSocket::close`].
///
/// ```
/// # use wsk::{Buffer, DatagramSocket, Result};
/// /// Sends back what comes.
/// async fn echo(socket: DatagramSocket) -> Result<()> {
///     let mut buffer = Buffer::try_with_capacity(2048)?;
///     loop {
///         let (received, filled) = socket.receive_from(buffer).await;
///         buffer = match received {
///             // A datagram that cannot be sent is lost, as datagrams may be.
///             Ok(datagram) => socket.send_to(filled, datagram.from).await.1,
///             Err(error) if error.is_transient() => {
///                 socket.pause().await;
///                 filled
///             }
///             Err(error) => return Err(error),
///         };
///     }
/// }
/// ```
pub struct DatagramSocket {
    core: DatagramRef,
    local: SocketAddr,
}

impl DatagramSocket {
    /// Returns the address it is bound to, with the port that was assigned (`WskGetLocalAddress`), in
    /// canonical form.
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.local)
    }

    /// Waits up to a quarter of a second before something is tried again that has failed with an error that
    /// [passes](crate::Error::is_transient). It needs no memory; see
    /// [`Listener::pause`](crate::Listener::pause).
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub fn pause(&self) -> Pause {
        Pause::new(self.core.client().clone())
    }

    /// Receives the next datagram (`WskReceiveFrom`). The buffer comes back with its bytes.
    ///
    /// Any number of receives may be under way; datagrams go to the oldest.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time. A datagram that arrives in spite of it is lost, as datagrams may be; the
    /// buffer is not given back.
    ///
    /// # Errors
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED` when the socket was closed,
    /// `STATUS_INSUFFICIENT_RESOURCES`; what a datagram that was sent before has met,
    /// `STATUS_PORT_UNREACHABLE` for instance, which [passes](crate::Error::is_transient).
    pub fn receive_from(&self, buffer: Buffer) -> ReceiveFrom {
        ReceiveFrom::new(&self.core, buffer)
    }

    /// Sends the bytes of `buffer` as one datagram (`WskSendTo`). The result is their number, and the buffer.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time; whether the datagram was sent is not known then. The buffer is not given
    /// back.
    ///
    /// # Errors
    /// `STATUS_INVALID_ADDRESS` for an address that a socket of this family cannot reach,
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED` when the socket was closed,
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn send_to<B: IoBuf>(&self, buffer: B, to: SocketAddr) -> SendTo<B> {
        SendTo::new(&self.core, buffer, address::for_family(to, address::Family::of(&self.local)))
    }

    /// Sets an option (`WskControlSocket`).
    ///
    /// # Cancel safety
    /// Once polled, the option is set, or goes to be set, also when this is dropped.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and any error of WSK.
    pub fn set<O: SetOption<kind::Datagram>>(
        &self,
        option: O,
    ) -> impl Future<Output = Result<()>> + Send + use<O> {
        set_option(self.core.socket().clone(), O::LEVEL, O::NAME, option.to_raw())
    }

    /// Reads an option (`WskControlSocket`).
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and any error of WSK.
    pub fn get<O: GetOption<kind::Datagram>>(&self) -> impl Future<Output = Result<O>> + Send + use<O> {
        let read = get_option(self.core.socket().clone(), O::LEVEL, O::NAME);
        async move { read.await.map(O::from_raw) }
    }

    /// Returns whether the socket can still be used, as far as is known. See [`DatagramSocket::closed`].
    pub fn is_open(&self) -> bool {
        self.core.is_open()
    }

    /// Waits until the socket is closed, and returns the reason: WSK has given it up, or this side closes it.
    ///
    /// It resolves at once if an operation is under way, because WSK ends those. Otherwise WSK reports
    /// nothing by itself, and the socket is asked several times a second, with a call that needs no memory.
    /// The future outlives the socket, whose memory it keeps.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        WaitClosed::new(self.core.socket().clone(), true)
    }

    /// Closes the socket (`WskCloseSocket`) and waits until that has completed. Operations that are under way
    /// end with `STATUS_CANCELLED`.
    ///
    /// # Cancel safety
    /// The close goes on when this is dropped.
    pub fn close(self) -> impl Future<Output = ()> + Send + use<> {
        Closed::new(self.core.socket().clone())
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        self.core.close_later();
    }
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket").field("local", &self.local).finish_non_exhaustive()
    }
}
