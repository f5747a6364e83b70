//! Safe Rust over Winsock Kernel (WSK), the socket interface of the Windows kernel.
//!
//! A driver registers a [`Client`], captures the [`Provider`], and makes listeners and connections with it:
//!
//! ```
//! use core::time::Duration;
//! use wsk::executor::Spawner;
//! use wsk::{AbortHandler, Buffer, Connection, Decision, InspectHandler, InspectId, Inspection, Provider, Result};
//!
//! /// Lets in whoever comes from this machine.
//! struct Gate;
//!
//! impl InspectHandler for Gate {
//!     fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
//!         if request.peer_addr().ip().is_loopback() { request.accept() } else { request.reject() }
//!     }
//! }
//!
//! impl AbortHandler for Gate {
//!     fn abort(&self, _id: InspectId) {}
//! }
//!
//! async fn serve(provider: Provider, spawner: Spawner) -> Result<()> {
//!     let listener = provider.listener().conditional(Gate).bind("[::]:7007".parse().unwrap()).await?;
//!     loop {
//!         match listener.accept().await {
//!             // Without memory for a task the connection is dropped, which resets it.
//!             Ok(connection) => drop(spawner.spawn(async move { echo(connection).await.unwrap_or(()) })),
//!             // Memory is out, or a peer was gone before its turn came: the next one may have more luck.
//!             Err(error) if error.is_transient() => listener.pause().await,
//!             // The listener has died, or is closed.
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! async fn echo(connection: Connection) -> Result<()> {
//!     let mut buffer = Buffer::try_with_capacity(4096)?;
//!     loop {
//!         let (received, filled) = connection.receive(buffer).await;
//!         if received? == 0 {
//!             return connection.disconnect().await;
//!         }
//!         let (sent, empty) = connection.send(filled).await;
//!         sent?;
//!         buffer = empty;
//!     }
//! }
//! ```
//!
//! # What the types keep
//! - Futures may be dropped at any moment: nothing leaks, no received byte is lost, nothing WSK can reach is freed.
//! - Handles may be dropped anywhere up to `DISPATCH_LEVEL`: `Drop` never fails, blocks, allocates or calls WSK's
//!   close itself; the client's reaper thread does.
//! - What may wait asks for a [`Passive`], which no callback has.
//! - All memory is non-paged, and running out of it is an error value.
//!
//! # Where things are
//! | module | what |
//! |---|---|
//! | [`client`] | registration, capture, unloading |
//! | [`listener`] | conditional accept, accepting by IRP and by event |
//! | [`connection`] | receiving, sending, disconnecting, events |
//! | `operation` | one asynchronous request: a block with two owners |
//! | `socket` | what all sockets share: rundown protection before the close |
//! | [`executor`] | tasks on system threads, `block_on`, timers |
//! | [`memory`], [`sync`], [`irql`] | non-paged memory, spin locks and events, levels as types |
//!
//! # Features
//! `wdk`, off by default, is for drivers: kernel types are those of the crate `wdk-sys`. Without it, and wherever the
//! target is not Windows, the library builds and runs with no WDK at all.
#![no_std]

pub mod address;
pub mod buffer;
pub mod client;
pub mod connection;
pub mod error;
pub mod executor;
pub mod irql;
pub mod listener;
pub mod memory;
mod operation;
mod socket;
pub mod sync;
pub mod time;

pub use buffer::Buffer;
pub use client::{Client, Provider, SecurityDescriptor, StillHeld};
pub use connection::{
    Connection, DisconnectHandler, DisconnectKind, Events, Handlers, Indication, NoEvents, ReceiveHandler,
    RetainedData, SendBacklogHandler, Taken,
};
pub use error::{Error, Operation, Result, Status};
pub use irql::Passive;
pub use listener::{
    AbortHandler, AcceptHandler, Decision, Incoming, InspectHandler, InspectId, InspectToken, Inspection,
    Listener, ListenerBuilder, ListenerEvents, Verdict,
};
pub use socket::{CloseReason, Disabled};

// Unit tests link what stands in for the kernel: linkers of Windows want it even for what no test here reaches.
#[cfg(test)]
use nt_user as _;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
