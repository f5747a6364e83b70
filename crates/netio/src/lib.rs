//! The WSK provider of this project as `netio.sys` for Wine, whose kernel runs in user mode.
//!
//! Wine loads drivers into one process and gives them an `ntoskrnl.exe` of its own. Its `netio.sys`
//! implements only part of WSK; this one replaces it and serves every client of the C interface.
//!
//! ```text
//!   drivers ──import──► NETIO.SYS                                   NTOSKRNL.EXE (Wine's)
//!      │                image     the exports                             ▲
//!      │                  │       missing functions:      executive ──────┤ IRPs, MDLs, events
//!      │                machine   one provider while there are clients    │
//!      │                  │                                               │
//!      └─dispatch table─ wsk_provider ────────────────────────────────────┘
//!                         │      └─ host: threads, reports ──► journal ──► DbgPrint, a file
//!                       sockets of the host
//! ```
//!
//! The parts that do not need Wine's kernel compile and are tested on every host. With the feature `image` a
//! Windows build is the image; it is linked with mingw-w64's import library of `ntoskrnl.exe`.
//!
//! # IRQL
//! Wine does not track the IRQL, but the rules of WSK depend on it. So each thread has one here ([`thread`]),
//! and the provider raises it around calls of client code. Callbacks and completion routines are called at
//! `DISPATCH_LEVEL` unless the [`settings`] change that, because TCP/IP on Windows nearly always does so.
//! Callbacks get `WSK_FLAG_AT_DISPATCH_LEVEL`. A driver that queries its kernel reads 0, as before.

pub mod host;
pub mod journal;
pub mod machine;
pub mod settings;
pub mod stub;
pub mod thread;

#[cfg(all(feature = "image", windows))]
mod image;

// Unit tests link the provider, which needs a kernel.
#[cfg(test)]
use nt_user as _;
