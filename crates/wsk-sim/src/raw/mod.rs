//! Raw calls: a C-like client for tests of the provider and of the checker.
//!
//! All calls go through the dispatch tables, as in a driver written in C, one call at a time, and report
//! every detail of the result. They can be wrong in any way that a driver's calls can be, which many tests
//! need. Only memory stays valid: each [`Request`] keeps its buffers alive, each [`Socket`] keeps its table
//! and its [`Recorder`], and everything is in non-paged pool.
//!
//! ```text
//!   Client ──open──► Request ──socket()──► Socket ──accept(), send(), …──► Request ──wait()──► Done
//!                                            │ events
//!                                            ▼
//!                                         Recorder ──inspect(), accept(), …──► Inspect, Accept, …
//! ```
//!
//! The usual form of a call is a method of [`Socket`]; the form with all parameters, or for a special
//! request, is a method of [`Request`]:
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
mod thread;
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
pub use thread::*;
pub use wait::BOUND;
