//! Prevents: IRQL-06, IRQL-07, IRQL-13, REG-25

use core::time::Duration;
use wsk::Client;

fn anywhere(client: &Client) {
    let _ = Client::register();
    let _ = client.capture(Duration::ZERO);
}

fn main() {}
