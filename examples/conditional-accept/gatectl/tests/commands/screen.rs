//! Output of a command, for a test that runs beside it.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Limit on the waits of a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Output of a command so far.
#[derive(Clone, Default)]
pub(crate) struct Screen(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (text, changed) = &*self.0;
        text.lock().expect("no test panics with it").extend_from_slice(bytes);
        changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().expect("no test panics with it").clone()).expect("text")
    }

    /// Waits until this is on it.
    pub(crate) fn wait_for(&self, part: &str) {
        let (text, changed) = &*self.0;
        let text = text.lock().expect("no test panics with it");
        let missing = |text: &mut Vec<u8>| !String::from_utf8_lossy(text).contains(part);
        let (text, waited) =
            changed.wait_timeout_while(text, LIMIT, missing).expect("no test panics with it");
        assert!(!waited.timed_out(), "{part:?} is not in {:?}", String::from_utf8_lossy(&text));
    }
}
