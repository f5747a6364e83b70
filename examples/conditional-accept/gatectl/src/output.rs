//! Output as lines of text and as JSON objects. Each is flushed as soon as it is complete, so that the reader
//! of a pipe sees it at once.

use std::fmt::Display;
use std::io::{self, Write};

use gate_protocol::Limits;
use serde::Serialize;

/// Writes a line.
pub(crate) fn line(out: &mut dyn Write, line: impl Display) -> io::Result<()> {
    // One call for the whole line: lines of other writers do not come between.
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Writes an object on a line of its own.
pub(crate) fn json(out: &mut dyn Write, object: &impl Serialize) -> io::Result<()> {
    line(out, serde_json::to_string(object)?)
}

/// A limit for people; zero stands for none.
pub(crate) fn limit(number: u32, unit: &str) -> String {
    if number == Limits::NONE { "none".to_owned() } else { format!("{number}{unit}") }
}
