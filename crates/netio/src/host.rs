//! The embedder of the provider: threads of the process, and the journal.

use std::io;
use std::sync::Arc;
use std::thread::Builder;

use wsk_provider::{CallSite, Host, Report};

use crate::journal::Journal;
use crate::thread;

/// [`Host`] in a process in which every thread may call the kernel. Wine makes the thread object at the first
/// call.
#[derive(Debug)]
pub struct Process {
    journal: Arc<Journal>,
}

impl Process {
    /// A host that reports to `journal`.
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal }
    }
}

impl Host for Process {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Builder::new().name(name.to_owned()).spawn(body).map(drop)
    }

    fn report(&self, report: Report) {
        self.journal.report(&report);
    }

    fn enter_callback(&self, name: &'static str, _at_dispatch: bool) -> u64 {
        thread::enter_callback(name);
        0
    }

    fn leave_callback(&self, _token: u64) {
        thread::leave_callback();
    }

    fn call_site(&self) -> CallSite {
        thread::call_site()
    }
}
