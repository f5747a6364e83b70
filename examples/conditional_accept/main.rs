//! x
mod cli;
mod log;
fn main() { let _ = cli::Options::from_command_line(); }
