//! Lifetimes: memory that the client lends, objects that the provider owns, and sockets that die
//! (contract 4.4, 5.2).

mod dead;
mod indicated_data;
mod memory;
mod objects;
mod short;
mod stall;

pub(crate) use stall::{Stall, stalling, table};
