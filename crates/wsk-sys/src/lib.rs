//! Raw bindings of Winsock Kernel (`wsk.h`) and of the executive functions a WSK client needs ([`nt`]).
//!
//! Every item carries the name, type and value it has in the Windows headers and is re-exported flat from
//! this root, so C samples can be followed literally. Function pointers are `unsafe extern "system" fn`;
//! table entries are `Option`s of them because an entry may be NULL. Enumerations are transparent newtypes of
//! `i32`, so a foreign number without a name is not undefined behavior. Sizes and offsets are asserted at
//! compile time (`layout`) for 64-bit and 32-bit targets.
//!
//! | Module | Header part |
//! |---|---|
//! | [`version`], [`flags`], [`events`], [`control`], [`options`], [`ioctl`], [`inet`] | constants |
//! | [`status`], [`guid`] | `NTSTATUS` values, interface identifiers |
//! | [`sockaddr`], [`cmsg`], [`structs`], [`npi`] | data structures |
//! | [`functions`] | function and callback types |
//! | [`client`], [`provider`], [`wskndk`] | dispatch tables |
//! | [`imports`] | exports of `netio.sys` |
//! | [`tail`] | table members that older systems lack, behind a check of the OS build |
//!
//! # Feature `wdk`
//! For drivers built with the WDK: the kernel types in [`nt`] are those of `wdk-sys`, so a driver's own
//! pointers fit, and `netio.lib` is linked. Without it, and on every other system, they are those of
//! `windows-sys`, and nothing need be installed.
//!
//! `cargo xtask layouts` compares every structure and constant here with those that a C compiler sees in
//! `c/wsk_layout.h` and in the headers of mingw-w64 and of Wine, for each architecture.
#![no_std]
#![allow(non_snake_case, non_camel_case_types, non_upper_case_globals, clippy::upper_case_acronyms)]
// Header names that start with an underscore.
#![allow(clippy::used_underscore_items, clippy::pub_underscore_fields)]

mod enumeration;
mod layout;

pub mod client;
pub mod cmsg;
pub mod control;
pub mod events;
pub mod flags;
pub mod functions;
pub mod guid;
pub mod imports;
pub mod inet;
pub mod ioctl;
pub mod npi;
pub mod nt;
pub mod options;
pub mod provider;
pub mod sockaddr;
pub mod status;
pub mod structs;
pub mod tail;
pub mod version;
pub mod wskndk;

pub use client::*;
pub use cmsg::*;
pub use control::*;
pub use events::*;
pub use flags::*;
pub use functions::*;
pub use guid::*;
pub use imports::*;
pub use inet::*;
pub use ioctl::*;
pub use npi::*;
pub use options::*;
pub use provider::*;
pub use sockaddr::*;
pub use status::*;
pub use structs::*;
pub use tail::OsBuild;
pub use version::*;
pub use wskndk::*;
