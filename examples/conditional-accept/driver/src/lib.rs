//! The conditional-accept sample as a driver: the front end of [`gate_service`] that the Windows kernel
//! loads.
//!
//! ```text
//!   DriverEntry ──► registry ──► Settings, bad values as records
//!        │                          │
//!        ├──► device   create, cleanup, close, device control ──► gate_service::control
//!        │                                                              │ policy, questions, records
//!        └──► service  wsk::Network ──► gate_service::serve ───────────────┘
//!                          a failure stays to be read through the device
//!   DriverUnload ──► the network stops ──► control shut down ──► link and device gone
//! ```
//!
//! All logic is in [`gate_service`] and [`gate_protocol`], where it is tested in user mode. This crate only
//! ties it to the kernel.
//!
//! | module | content |
//! |---|---|
//! | `entry` | load and unload |
//! | `device` | the control device and its dispatch routines |
//! | `security` | its access list |
//! | `registry` | reading values of a key |
//! | `configuration` | the parameters in them |
//! | `service` | the network that the service runs on |
//! | `debugger` | messages for a kernel debugger |
//! | `text` | counted strings of the kernel |
#![no_std]

mod configuration;
mod debugger;
mod device;
mod entry;
mod registry;
mod security;
mod service;
mod text;

// The panic handler: a bug check. No input from outside reaches a panic.
use wdk_panic as _;

/// For `alloc`, should anything ask for it. This driver does not: an allocation of `alloc` that fails is a
/// bug check, one of [`wsk::memory`] is an error value.
#[global_allocator]
static ALLOCATOR: wdk_alloc::WdkAllocator = wdk_alloc::WdkAllocator;
