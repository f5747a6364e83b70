//! `gatectl watch`: follows records.

use std::io::Write;
use std::time::{Duration, Instant};

use gate_protocol::record::Record;
use gate_protocol::text::{BAD, Columns, Line};
use serde::Serialize;

use crate::cli::WatchOptions;
use crate::driver::Driver;
use crate::error::{End, Error};
use crate::output;

/// Notice between records.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Remark {
    /// Records that were not fetched in time.
    Lost {
        /// Their number.
        records: u64,
    },
}

/// Prints records until as many came as were asked for, the time is up, or the driver's end.
pub fn watch(
    driver: &Driver,
    options: &WatchOptions,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<(), Error> {
    let WatchOptions { until, format } = *options;
    let end = until.end();
    let mut buffer = Vec::new();
    let (mut found, mut lost, mut time) = (0, 0, Duration::ZERO);
    let mut unloaded = false;
    // Records may come faster than they are printed: the time is up all the same.
    while end.is_none_or(|end| Instant::now() < end) {
        let records = match driver.records(&mut buffer, end) {
            Ok(Some(records)) => records,
            Ok(None) => break,
            // The record before was the last there can be.
            Err(Error::Gone) if unloaded => return Ok(()),
            Err(error) => return Err(error),
        };
        // What came at once goes out at once: fewer records are missed.
        let mut lines = Vec::new();
        // They were overwritten by those that come now.
        if let Some(missed @ 1..) = records.lost.checked_sub(lost) {
            if format.json {
                output::json(&mut lines, &Remark::Lost { records: missed })?;
            } else {
                let how = format_args!("{missed} records were not fetched in time");
                output::line(&mut lines, Columns { time, style: BAD, what: "lost", who: &"", how })?;
            }
        }
        lost = records.lost;
        for record in records.iter() {
            let timed = match record {
                Ok(timed) => timed,
                Err(error) => {
                    output::line(remarks, format_args!("cannot decode a record: {error}"))?;
                    continue;
                }
            };
            time = timed.time;
            if format.json {
                output::json(&mut lines, &timed.record)?;
            } else {
                output::line(&mut lines, Line { time, record: &timed.record })?;
            }
            unloaded = matches!(timed.record, Record::Unloaded { .. });
            found += 1;
            if Some(found) == until.count {
                break;
            }
        }
        out.write_all(&lines)?;
        out.flush()?;
        if Some(found) == until.count {
            return Ok(());
        }
    }
    match until.count {
        Some(wanted) => {
            let end = if end.is_some_and(|end| end <= Instant::now()) { End::Time } else { End::Stopped };
            Err(Error::Incomplete { found, wanted, what: "records came", end })
        }
        None => Ok(()),
    }
}
