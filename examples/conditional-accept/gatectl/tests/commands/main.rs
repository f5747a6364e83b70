//! The commands against a scripted device.

mod ask;
mod plain;
mod screen;
mod script;
