//! Output of records: the gate puts them into a queue from any thread, and one thread of the host prints
//! them.
//!
//! ```text
//!  callbacks, at DISPATCH_LEVEL ─┐
//!  connection tasks ─────────────┼─► bounded queue ─► printing thread ─► standard output
//!  the front (may wait) ─────────┘      full: counted, never waited for
//! ```

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use gate_protocol::text::Line;
use gate_service::record::{Record, RecordSink};

use crate::cli::Format;

/// Records that may wait to be printed: what ten thousand clients that come and go at once give.
const QUEUE: usize = 1 << 16;

/// A reader of standard output that takes nothing for so long is not waited for at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Interval of checks whether the reader takes output.
const LOOK: Duration = Duration::from_millis(50);

/// The entrance of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    queue: SyncSender<(Instant, Record)>,
    lost: Arc<AtomicU64>,
}

impl RecordSink for Journal {
    fn record(&self, record: Record) {
        // A callback must not wait for a slow reader of our output. `Disconnected` means that printing
        // failed; the printing thread has told the front.
        if let Err(TrySendError::Full(_)) = self.queue.try_send((Instant::now(), record)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread that prints.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Gets what came of the printing.
    result: Receiver<io::Result<()>>,
    /// Number of bytes that standard output has taken.
    taken: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Printer {
    /// Starts printing to standard output. `failed` is called if that is not possible any more.
    pub(crate) fn start(
        format: Format,
        failed: impl FnOnce() + Send + 'static,
    ) -> io::Result<(Journal, Self)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let (lost, taken) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (done, result) = sync_channel(1);
        let counter = Arc::clone(&taken);
        std::thread::Builder::new().name("printer".to_owned()).spawn(move || {
            // The stream knows whether it is a terminal, and leaves the colours out if not.
            let out = anstream::AutoStream::auto(io::stdout());
            let result = print(&receiver, format, CountingWriter { out, taken: &counter });
            if result.is_err() {
                failed();
            }
            // Who waits for it no longer does not need it.
            let _ = done.send(result);
        })?;
        Ok((Journal { queue: sender, lost: Arc::clone(&lost) }, Self { result, taken, lost }))
    }

    /// Prints `last`, if any, and waits until everything up to [`Record::Unloaded`] is printed or no
    /// [`Journal`] is left. It gives up when the reader of standard output takes nothing.
    ///
    /// Returns how many records found the queue full and were not printed.
    pub(crate) fn finish(self, journal: Journal, last: Option<Record>) -> io::Result<u64> {
        let Self { result, taken, lost } = self;
        let mut last = last.map(|last| (journal.queue, (Instant::now(), last)));
        let (mut seen, mut since) = (taken.load(Ordering::Relaxed), Instant::now());
        loop {
            last = last.and_then(|(queue, record)| match queue.try_send(record) {
                Err(TrySendError::Full(record)) => Some((queue, record)),
                // A printer that has failed says why.
                Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            });
            match result.recv_timeout(LOOK) {
                Ok(result) => return result.map(|()| lost.load(Ordering::Relaxed)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the printing thread panicked"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = taken.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= PATIENCE {
                // The thread waits for that reader, and ends with the program.
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the reader has stopped reading; the last records were not printed",
                ));
            }
        }
    }
}

/// The most that is written at once: a pipe takes all of a write or lets the writer wait, and what is under
/// way does not count.
const MAX_WRITE: usize = 1024;

/// A writer that counts the bytes it takes: bytes in a buffer before it are not counted.
struct CountingWriter<'a, W> {
    out: W,
    taken: &'a AtomicU64,
}

impl<W: Write> Write for CountingWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes.get(..MAX_WRITE).unwrap_or(bytes))?;
        self.taken.fetch_add(taken as u64, Ordering::Relaxed);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints what comes out of the queue. Output is passed on whenever the queue is empty.
fn print(queue: &Receiver<(Instant, Record)>, format: Format, out: impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    let start = Instant::now();
    loop {
        let (time, record) = match queue.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Disconnected) => return out.flush(),
            Err(TryRecvError::Empty) => {
                out.flush()?;
                let Ok(next) = queue.recv() else { return Ok(()) };
                next
            }
        };
        match format {
            Format::Json => {
                serde_json::to_writer(&mut out, &record)?;
                out.write_all(b"\n")?;
            }
            Format::Text => {
                let time = time.saturating_duration_since(start);
                writeln!(out, "{}", Line { time, record: &record })?;
            }
        }
        if matches!(record, Record::Unloaded { .. }) {
            return out.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use gate_service::record::{AcceptBy, RequestId};

    use super::*;

    fn printed(format: Format, records: &[Record]) -> String {
        let (sender, receiver) = sync_channel(records.len());
        for record in records {
            sender.send((Instant::now(), *record)).expect("there is room");
        }
        drop(sender);
        let mut out = Vec::new();
        print(&receiver, format, anstream::StripStream::new(&mut out)).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    fn remote() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 2], 5555))
    }

    #[test]
    fn json_is_one_object_per_line_up_to_unloaded() {
        let accepted = Record::Accepted { remote: remote(), by: AcceptBy::Event };
        let unloaded = Record::Unloaded { violations: 0, leaks: 0 };
        assert_eq!(
            printed(Format::Json, &[accepted, unloaded, accepted]),
            "{\"event\":\"accepted\",\"remote\":\"127.0.0.2:5555\",\"by\":\"event\"}\n\
             {\"event\":\"unloaded\",\"violations\":0,\"leaks\":0}\n"
        );
    }

    #[test]
    fn text_is_a_line_for_each_up_to_unloaded() {
        let accepted = Record::Accepted { remote: remote(), by: AcceptBy::Irp };
        let unloaded = Record::Unloaded { violations: 0, leaks: 0 };
        let lines = printed(Format::Text, &[accepted, unloaded, accepted]);
        let lines: Vec<_> = lines.lines().map(|line| &line[11..]).collect();
        assert_eq!(
            lines,
            [
                "accepted    127.0.0.2:5555         by irp",
                "unloaded                           violations 0, leaks 0"
            ]
        );
    }

    #[test]
    fn a_full_queue_is_counted_and_not_waited_for() {
        let (queue, _receiver) = sync_channel(1);
        let journal = Journal { queue, lost: Arc::default() };
        for _ in 0..3 {
            journal.record(Record::Abort { id: RequestId { key: 1, serial: 2 } });
        }
        assert_eq!(journal.lost.load(Ordering::Relaxed), 2);
    }

    /// A reader that takes a few bytes at a time is seen to take them, long before the records come to their
    /// end.
    #[test]
    fn what_a_slow_reader_takes_is_counted() {
        struct Slow<'a>(&'a AtomicU64, Vec<u64>);
        impl Write for Slow<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1.push(self.0.load(Ordering::Relaxed));
                Ok(bytes.len().min(10))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = sync_channel(1);
        sender.send((Instant::now(), Record::Unloaded { violations: 0, leaks: 0 })).expect("there is room");
        let taken = AtomicU64::new(0);
        let mut out = CountingWriter { out: Slow(&taken, Vec::new()), taken: &taken };
        print(&receiver, Format::Json, &mut out).expect("it takes all");
        // {"event":"unloaded","violations":0,"leaks":0} and the end of the line.
        assert_eq!(out.out.1, [0, 10, 20, 30, 40]);
        assert_eq!(taken.load(Ordering::Relaxed), 46);
        // A reader that takes all there is gets it in pieces.
        let mut out = CountingWriter { out: Vec::new(), taken: &taken };
        assert_eq!(out.write(&[0; 5000]).expect("memory"), MAX_WRITE);
    }

    #[test]
    fn output_that_fails_ends_the_printing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = sync_channel(1);
        sender.send((Instant::now(), Record::Loaded { local: remote() })).expect("there is room");
        let error = print(&receiver, Format::Json, Closed).expect_err("nothing takes it");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
