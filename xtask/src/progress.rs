//! Progress of a long step.
//!
//! ```text
//!  terminal:  ⠹ Building the driver  12s  Compiling wdk-sys v0.5.2      (one line, replaced by the next)
//!             ✓ Building the driver  31.2 s
//!  otherwise: Building the driver ...
//!             Building the driver: done in 31.2 s
//! ```
//!
//! Everything goes to standard error, so that results on standard output can be used by other programs.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Length of a child's last line that is shown.
const LINE: usize = 60;

/// A step that is under way. Dropped without [`Step::done`] it is shown as failed.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Shows that a step begins.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(name.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}  {prefix:.dim}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("{name} ...");
        }
        Self { name, started: Instant::now(), bar, finished: false }
    }

    /// Shows the last line that the step's program printed.
    pub(crate) fn line(&self, line: &str) {
        if let Some(bar) = &self.bar {
            let line: String = line.trim().chars().filter(|c| !c.is_control()).take(LINE).collect();
            bar.set_prefix(line);
        }
    }

    /// The step has ended well.
    pub(crate) fn done(mut self) {
        self.finish(true);
    }

    /// The step had nothing to do: it leaves no trace on a terminal.
    pub(crate) fn skipped(mut self) {
        self.finished = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn finish(&mut self, well: bool) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        match self.bar.take() {
            Some(bar) => {
                bar.finish_and_clear();
                let mark = if well { '✓' } else { '✗' };
                eprintln!("{mark} {}  {seconds:.1} s", self.name);
            }
            None if well => eprintln!("{}: done in {seconds:.1} s", self.name),
            None => eprintln!("{}: failed after {seconds:.1} s", self.name),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finish(false);
    }
}
