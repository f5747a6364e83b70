//! What clients have yet to give back, in words: for whoever wonders why a wait does not end.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::Registration;
use crate::client::Client;
use crate::provider::Provider;

/// How many sockets are described.
const SOCKETS: usize = 4;

/// Adds one part to a list of parts.
fn add(text: &mut String, part: &str) {
    if !text.is_empty() {
        text.push_str("; ");
    }
    text.push_str(part);
}

/// So many of something.
fn count(number: usize, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {several}") }
}

/// What one client has.
fn of_client(client: &Arc<Client>, captured: &str) -> String {
    let (captures, calls, requests) = (client.captures(), client.usage().0, client.usage().2);
    let sockets = client.sockets();
    let mut text = String::new();
    if !sockets.is_empty() {
        let mut part = count(sockets.len(), "socket is open", "sockets are open");
        for (index, socket) in sockets.iter().take(SOCKETS).enumerate() {
            // Writing to a string does not fail.
            let _ = write!(part, "{} {}", if index == 0 { ':' } else { ',' }, socket.as_open().description);
        }
        add(&mut text, &part);
    }
    if captures != 0 {
        let part = count(captures, "captured NPI is not released", "captured NPIs are not released");
        add(&mut text, &format!("{part}{captured}"));
    }
    if requests != 0 {
        let part = count(requests, "request on the client is pending", "requests on the client are pending");
        add(&mut text, &part);
    }
    if calls != 0 {
        add(
            &mut text,
            &count(calls, "call on the client has not returned", "calls on the client have not returned"),
        );
    }
    text
}

/// The threads that have captured, where that is known.
fn captured(registration: &Registration) -> String {
    let state = registration.state.lock();
    let mut text = String::new();
    for (index, capture) in state.captures.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{} thread `{}`", if index == 0 { ", captured by" } else { "," }, capture.name);
    }
    text
}

impl Provider {
    /// What the clients have yet to give back: sockets with their requests, captures, requests on the client. Empty if there is
    /// nothing.
    pub fn awaited(&self) -> String {
        let registrar = &self.0.registrar;
        let mut text = String::new();
        for registration in registrar.registrations() {
            add(&mut text, &of_client(&registration.client, &captured(&registration)));
        }
        for client in registrar.modules.clients() {
            add(&mut text, &of_client(&client, ""));
        }
        text
    }

    /// What the provider would still call, or write to, in `image`, which is about to go: registrations and sockets. `None` if it
    /// is nothing.
    pub fn left_in(&self, image: &Range<usize>) -> Option<String> {
        let registrar = &self.0.registrar;
        let lies_in = |registration: &Registration| {
            image.contains(&registration.dispatch) || image.contains(&registration.block)
        };
        let registrations =
            registrar.registrations().iter().filter(|registration| lies_in(registration)).count();
        let registrations = registrations + registrar.modules.count_in(image);
        let sockets = registrar.sockets().iter().filter(|socket| socket.is_called_in(image)).count();
        let mut text = String::new();
        if registrations != 0 {
            add(&mut text, &count(registrations, "registration", "registrations"));
        }
        if sockets != 0 {
            add(&mut text, &count(sockets, "socket", "sockets"));
        }
        (!text.is_empty()).then_some(text)
    }
}
