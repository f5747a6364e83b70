//! The control device in user mode: the code that the driver ships, with the IRPs of the user-mode kernel.

mod death;
mod fuzz;
mod handles;
mod io;
mod malformed;
mod questions;
mod races;
mod records;
mod service;
