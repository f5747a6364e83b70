//! Raw calls: a C-like client for tests of the provider and of the checker.
//!
//! Everything here goes through the dispatch tables as a driver written in C would, one call at a time, and tells
//! all there is to know about it. The calls can be wrong in any way a driver's can: that is what many tests are
//! about. What stays right is memory: each [`Request`] keeps the buffers it uses, [`Socket`]s remember their table
//! and keep their [`Recorder`], and everything lies in non-paged pool.
//!
//! ```text
//!   Client ──open──► Request ──socket()──► Socket ──accept(), send(), …──► Request ──wait()──► Done
//!                                            │ events
//!                                            ▼
//!                                         Recorder ──inspect(), accept(), …──► Inspect, Accept, …
//! ```
//!
//! A call is a method of [`Socket`] when its usual form will do, and of [`Request`] when the request is special or
//! all parameters are wanted:
//!
//! ```
//! use wsk_sim::{Sim, raw::*};
//! use wsk_sys::STATUS_INVALID_PARAMETER;
//!
//! let sim = Sim::new();
//! sim.expect("LSN-09");
//! sim.run(|_| {
//!     let client = Client::new();
//!     let (listener, address) = client.bound_listener(&Recorder::new());
//!     let accept = listener.accept().pends();
//!     let peer = Peer::connect(address);
//!     let socket = accept.socket();
//!     socket.send(b"hello").ok();
//!     assert_eq!(peer.receive(5), b"hello");
//!     Request::new().accept(&listener, None, 7).fails(STATUS_INVALID_PARAMETER);
//! });
//! ```

mod address;
mod buffer;
mod calls;
mod client;
mod events;
mod peer;
mod pool;
mod recorder;
mod request;
mod socket;
mod table;
mod wait;

pub use address::*;
pub use buffer::*;
pub use calls::*;
pub use client::*;
pub use events::*;
pub use peer::*;
pub use pool::*;
pub use recorder::*;
pub use request::*;
pub use socket::*;
pub use wait::BOUND;
