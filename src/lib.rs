//! Safe Rust over Winsock Kernel (WSK), the socket interface of the Windows kernel.
//!
//! A driver registers a [`Client`], captures the [`Provider`], and makes listeners and connections with it:
//!
//! ```
//! use wsk::executor::Spawner;
//! use wsk::{Buffer, Connection, Decision, InspectHandler, Inspection, Provider, Result};
//!
//! /// Accepts connections of this machine only.
//! struct Local;
//!
//! impl InspectHandler for Local {
//!     fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
//!         if request.peer_addr().ip().is_loopback() { request.accept() } else { request.reject() }
//!     }
//! }
//!
//! async fn serve(provider: Provider, spawner: Spawner) -> Result<()> {
//!     let listener = provider.listener().inspect(Local).bind("[::]:7007".parse().unwrap()).await?;
//!     loop {
//!         match listener.accept().await {
//!             // Without memory for a task the connection is dropped, which resets it.
//!             Ok(connection) => drop(spawner.spawn(async move { echo(connection).await.unwrap_or(()) })),
//!             // Out of memory, or the peer is gone already: the next one may succeed.
//!             Err(error) if error.is_transient() => listener.pause().await,
//!             // The listener has died, or is closed.
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! async fn echo(mut connection: Connection) -> Result<()> {
//!     let mut buffer = Buffer::try_with_capacity(4096)?;
//!     loop {
//!         let (received, filled) = connection.receive(buffer).await;
//!         if received? == 0 {
//!             return connection.shutdown().await;
//!         }
//!         let (sent, empty) = connection.send(filled).await;
//!         sent?;
//!         buffer = empty;
//!     }
//! }
//! ```
//!
//! # Guarantees
//! - Futures may be dropped at any moment: nothing leaks, no received byte is lost, nothing WSK can reach is
//!   freed.
//! - Handles may be dropped anywhere up to `DISPATCH_LEVEL`: `Drop` never fails, blocks, allocates or calls
//!   `WskCloseSocket` itself; the client's reaper thread does.
//! - Functions that may wait take a [`Passive`], which no callback has.
//! - All memory is non-paged, and running out of it is an error value.
//!
//! # Where things are
//! | task | start at |
//! |---|---|
//! | load and unload | [`Network`]; by hand [`Client::register`] |
//! | listen and accept | [`Provider::listener`], [`Listener::accept`], [`AcceptHandler`] |
//! | connect | [`Provider::connect`], [`Provider::connector`] |
//! | decide who may connect | [`ListenerBuilder::inspect`], [`Inspection`], [`InspectToken`] |
//! | receive and send | [`Connection::receive`], [`Connection::send`] |
//! | have several under way | [`Connection::into_split`], [`ReceiveHalf::queue`], [`SendHalf::post`] |
//! | limit an operation in time | [`Receive::within`] and that of every operation; [`time::timeout`] |
//! | datagrams | [`Provider::datagram`], [`DatagramSocket`] |
//! | watch and end a connection | [`Connection::control`], [`Control`] |
//! | set and read options | [`options`], [`ListenerBuilder::option`], [`Control::set`] |
//! | handle events | [`Handlers`], [`ReceiveHandler`], [`DisconnectHandler`] |
//! | run tasks | [`executor`], [`time`] |
//! | memory, locks, events | [`memory`], [`sync`] |
//!
//! # Features
//! `wdk`, off by default, is for drivers: kernel types are those of the crate `wdk-sys`. Without it, and
//! wherever the target is not Windows, the library builds and runs with no WDK at all.
#![no_std]

pub mod address;
mod buffer;
mod busy;
mod client;
mod connection;
mod datagram;
mod error;
pub mod executor;
mod irql;
mod listener;
pub mod memory;
mod network;
mod operation;
pub mod options;
mod socket;
pub mod sync;
pub mod time;

// The public interface is:
pub use buffer::{Buffer, IoBuf, Slice};
pub use busy::StillBusy;
pub use client::{Client, Pause, Provider, SecurityDescriptor};
pub use connection::{
    Abort, Connect, Connection, ConnectionBuilder, ConnectionHandlers, Control, DisconnectHandler,
    DisconnectKind, Drain, Events, Handlers, Indication, Posted, Receive, ReceiveBuf, ReceiveExact,
    ReceiveFlags, ReceiveHalf, ReceiveHandler, ReceiveNext, ReceiveQueue, RetainedData, RetainedPiece,
    RetainedPieces, ReuniteError, SendBacklogHandler, SendFlags, SendHalf, Sending, Shutdown, ShutdownAfter,
    Taken,
};
pub use datagram::{Datagram, DatagramBuilder, DatagramSocket, ReceiveFrom, SendTo};
pub use error::{Error, Operation, Result, Status};
pub use irql::Passive;
pub use listener::{
    AbortHandler, Accept, AcceptHandler, Decision, Incoming, InspectComplete, InspectHandler, InspectId,
    InspectToken, Inspection, Listener, ListenerBuilder, ListenerEvents, Verdict,
};
pub use network::{Net, Network, NetworkConfig, Report, Stage, Started};
pub use operation::{Limited, Within};
pub use socket::{CloseReason, Disabled};

// Unit tests link what stands in for the kernel: linkers of Windows want it even for what no test here
// reaches.
#[cfg(test)]
use nt_user as _;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
