//! Prevents: ABRT-13, IRQL-13, REG-25

use wsk::{AbortHandler, Client, InspectId, Passive};

/// An abort handler that would unload the driver.
struct Waits<'a>(Passive<'a>, std::sync::Mutex<Option<Client>>);

impl AbortHandler for Waits<'static> {
    fn abort(&self, _id: InspectId) {
        let client = self.1.lock().unwrap().take().unwrap();
        client.unload(self.0, core::time::Duration::MAX).unwrap();
    }
}

fn main() {}
