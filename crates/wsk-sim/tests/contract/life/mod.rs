//! Lifetimes: memory of the client, objects of the provider, and dead sockets (contract 4.4, 5.2).

mod dead;
mod indicated_data;
mod memory;
mod objects;
mod short;
mod stall;

pub(crate) use stall::{Stall, stalling, table};
