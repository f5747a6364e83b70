//! The WSK provider of this project as `netio.sys`, for a Windows kernel that runs in user mode: Wine's.
//!
//! Wine loads drivers into one process and gives them an `ntoskrnl.exe` of its own. Its `netio.sys` has part of WSK only;
//! this one takes its place and serves every client of the C interface.
//!
//! ```text
//!   drivers ──import──► NETIO.SYS                                   NTOSKRNL.EXE (Wine's)
//!      │                image     the exports                             ▲
//!      │                  │       what this kernel lacks: executive ──────┤ IRPs, MDLs, events
//!      │                machine   one provider while there are clients    │
//!      │                  │                                               │
//!      └─dispatch table─ wsk_provider ────────────────────────────────────┘
//!                         │      └─ host: threads, reports ──► journal ──► DbgPrint, a file
//!                       sockets of the host
//! ```
//!
//! The parts that do not need that kernel compile and are tested on every host. With the feature `image` a Windows build
//! is the image; it is linked with mingw-w64's import library of `ntoskrnl.exe`.
//!
//! # IRQL
//! Wine keeps no IRQL. WSK's rules are in terms of it, so each thread has one here ([`thread`]), and the provider raises
//! it around the client code that it calls. Callbacks and completion routines are called at `DISPATCH_LEVEL` unless the
//! [`settings`] say otherwise: so does TCP/IP on Windows, nearly always, and a driver that can do with less there
//! fails there. They are told so with `WSK_FLAG_AT_DISPATCH_LEVEL`. A driver that asks its kernel reads 0, as before.

pub mod host;
pub mod journal;
pub mod machine;
pub mod settings;
pub mod stub;
pub mod thread;

#[cfg(all(feature = "image", windows))]
mod image;

// Unit tests link the provider, whose kernel is this one then.
#[cfg(test)]
use nt_user as _;
