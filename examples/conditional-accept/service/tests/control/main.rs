//! The control device in user mode: the code that the driver ships, with the IRPs of the user-mode kernel.

#[path = "../support/client.rs"]
mod client;
mod death;
mod fuzz;
mod handles;
#[path = "../support/io.rs"]
mod io;
mod malformed;
mod questions;
mod races;
mod records;
#[path = "../support/running.rs"]
mod running;
mod service;
