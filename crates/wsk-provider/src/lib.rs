//! Winsock Kernel itself: registration, sockets, dispatch tables and their state machines, over a
//! [`transport`].
//!
//! The crate serves any client of the C interface, `wsk` and raw drivers alike. It reaches the kernel through
//! [`wsk_sys::nt`] only, the network through [`transport::Transport`], and its embedder through
//! [`host::Host`]; behavior that differs between Windows systems is a setting ([`config`], [`behaviours`]).
//!
//! ```text
//!   dispatch   the tables and their entry points, one per function of wsk.h
//!   ├── registration   WskRegister … WskDeregister, capture and its waits
//!   ├── client         WskSocket, WskSocketConnect, WskControlClient
//!   └── socket         what all sockets share: state, calls, events, callbacks, death, close
//!       ├── listen         bind → listen, accept, delivery, inspection, abort
//!       ├── connection     connect, send, receive, the receive event, disconnect
//!       ├── datagram, stream
//!       └── control        options, IOCTLs, extensions
//!   request    ownership of an IRP; queues and cancellation
//!   data       buffers of the client, and indicated buffers of the provider
//!   worker     threads for completions and deferred callbacks
//!   address    SOCKADDRs, and rights to share an address
//!   transport  the network
//! ```
//!
//! Locks: each socket has one (`socket`), client objects and the tables of the provider have their own. No
//! lock is held while client code runs, be it a callback or a completion routine, and none but a leaf lock is
//! taken under a socket's lock.

#![allow(non_snake_case)]

// Unit tests link the provider, which needs this kernel: Windows linkers require it even for functions that
// no test reaches.
#[cfg(test)]
use nt_user as _;

pub mod behaviours;
pub mod config;
pub mod host;
pub mod transport;

mod address;
mod client;
mod connection;
mod control;
mod data;
mod datagram;
mod dispatch;
mod listen;
mod live_config;
mod provider;
mod registration;
mod request;
mod socket;
mod stream;
mod worker;

pub use behaviours::{Alternatives, Behaviours};
pub use client::set_provider_lookup;
pub use config::{Completion, Config, Level, Release};
pub use control::table as controls;
pub use host::{CallSite, FaultPoint, Host, Pin, Report, Severity};
pub use provider::{OpenSocket, Provider};
pub use socket::{Attachment, Extension, ExtensionCall};
