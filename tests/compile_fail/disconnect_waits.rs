//! Prevents: DISC-14, IRQL-13, DISC-06

use wsk::{Connection, DisconnectHandler, DisconnectKind};

struct Closes(std::sync::Mutex<Option<Connection>>);

impl DisconnectHandler for Closes {
    fn disconnected(&self, _kind: DisconnectKind) {
        let connection = self.0.lock().unwrap().take().unwrap();
        wsk::executor::block_on(connection.close()).unwrap();
    }
}

fn main() {}
