//! Description of the objects that clients have not released: the reason why a wait does not end.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::{Look, Registration};
use crate::client::Client;
use crate::provider::Provider;

/// Maximum number of sockets that are described.
const SOCKETS: usize = 4;

/// Adds one part to a list of parts.
fn add(text: &mut String, part: &str) {
    if !text.is_empty() {
        text.push_str("; ");
    }
    text.push_str(part);
}

/// Formats a count with its noun.
fn count(number: usize, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {several}") }
}

/// Describes the objects of one client.
fn of_client(client: &Arc<Client>, captured: &str, look: &mut Look) -> String {
    let (captures, (calls, requests)) = (client.captures(), client.under_way());
    let sockets = client.look_at_sockets(look).unwrap_or_default();
    let mut text = String::new();
    if !sockets.is_empty() {
        let mut part = count(sockets.len(), "socket is open", "sockets are open");
        for (index, socket) in sockets.iter().take(SOCKETS).enumerate() {
            // Writing to a string does not fail.
            let _ = write!(part, "{} {}", if index == 0 { ':' } else { ',' }, socket.look_at(look));
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

/// Lists the threads that made the captures, if available.
fn captured(registration: &Registration, look: &mut Look) -> String {
    let Some(state) = look.lock(&registration.state) else { return String::new() };
    let mut text = String::new();
    for (index, capture) in state.captures.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{} thread `{}`", if index == 0 { ", captured by" } else { "," }, capture.name);
    }
    text
}

impl Provider {
    /// Describes the objects that clients have not released: sockets with their requests, captures, requests
    /// on the client. Empty if there are none.
    ///
    /// The wait for a lock has a timeout: a lock that is not released does not block this function, and is
    /// mentioned in the result.
    pub fn awaited(&self) -> String {
        let look = &mut Look::begin();
        let (registrations, clients) = self.0.registrar.look(look);
        let mut text = String::new();
        for registration in registrations {
            let captured = captured(&registration, look);
            add(&mut text, &of_client(&registration.client, &captured, look));
        }
        for client in clients {
            add(&mut text, &of_client(&client, "", look));
        }
        if look.missed() {
            add(&mut text, "a lock of the provider is still held");
        }
        text
    }

    /// Returns the registrations and sockets with callbacks or memory in `image`, which is about to be
    /// unloaded. `None` if there are none.
    ///
    /// The wait for a lock has a timeout: objects behind a lock that is not released are not counted.
    pub fn left_in(&self, image: &Range<usize>) -> Option<String> {
        let look = &mut Look::begin();
        let (registrations, of_modules) = self.0.registrar.look(look);
        let lies_in = |registration: &Registration| {
            image.contains(&registration.dispatch) || image.contains(&registration.block)
        };
        let clients = registrations.iter().map(|registration| &registration.client).chain(&of_modules);
        let sockets: Vec<_> =
            clients.flat_map(|client| client.look_at_sockets(look).unwrap_or_default()).collect();
        let sockets = sockets.iter().filter(|socket| socket.is_called_in(image, look)).count();
        let registrations = registrations.iter().filter(|registration| lies_in(registration)).count();
        let registrations = registrations + self.0.registrar.modules.count_in(image, look);
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::ptr;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use nt_user::Kernel;
    use wsk_sys::{STATUS_SUCCESS, WSK_CLIENT_DISPATCH, WSK_CLIENT_NPI, WSK_REGISTRATION};

    use super::*;
    use crate::config::Config;
    use crate::host::{Host, Report};
    use crate::socket::{Category, Context, Options, Role, Socket, SocketParams, Tables};
    use crate::transport::live::Live;

    #[derive(Debug)]
    struct Threads(Kernel);

    impl Host for Threads {
        fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            self.0.spawn(name, body).map(drop)
        }

        fn report(&self, _: Report) {}
    }

    static DISPATCH: WSK_CLIENT_DISPATCH =
        WSK_CLIENT_DISPATCH { Version: 0x0100, Reserved: 0, WskClientEvent: None };

    /// A provider with one client, whose registration block is leaked, and one socket of it.
    fn provider(kernel: &Kernel) -> (Provider, Arc<Registration>, Arc<Socket>) {
        let network = Arc::new(Live::new().expect("the network can be used"));
        let provider = Provider::new(Config::default(), network, Arc::new(Threads(kernel.clone())));
        let mut npi = WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: &raw const DISPATCH };
        let block = Box::leak(Box::new(WSK_REGISTRATION::zeroed()));
        // SAFETY: the structure lives during the call, the table and the block for ever.
        assert_eq!(unsafe { provider.register(&raw mut npi, block) }, STATUS_SUCCESS);
        let registration = Arc::clone(&provider.0.registrar.registrations()[0]);
        let plan = SocketParams {
            category: Category::Basic,
            family: crate::address::Family::V4,
            socket_type: 0,
            protocol: 0,
            accepted: false,
            context: Context(ptr::null_mut()),
            tables: Tables::default(),
            options: Options::default(),
            inspection: None,
            role: Role::Basic,
        };
        let socket = Socket::create(&registration.client, plan);
        (provider, registration, socket)
    }

    /// Runs a query on another thread, which must not hang.
    fn ask<R: Send + 'static>(
        provider: &Provider,
        question: impl FnOnce(&Provider) -> R + Send + 'static,
    ) -> R {
        let (sender, receiver) = mpsc::channel();
        let provider = provider.clone();
        let asker = thread::spawn(move || sender.send(question(&provider)));
        let said = receiver.recv_timeout(Duration::from_secs(20)).expect("it does not wait for the lock");
        asker.join().expect("it ends").expect("it is heard");
        said
    }

    #[test]
    fn a_lock_that_is_held_does_not_block_the_description() {
        let kernel = Kernel::new(nt_user::Config::default());
        let _inside = kernel.enter();
        let (provider, registration, socket) = provider(&kernel);
        let busy = "a lock of the provider is still held";
        assert!(!ask(&provider, Provider::awaited).contains(busy));
        let held = socket.lock();
        let said = ask(&provider, Provider::awaited);
        assert!(said.contains("1 socket is open: Basic socket") && said.contains("busy"), "{said}");
        assert!(said.ends_with(busy), "{said}");
        drop(held);
        let held = registration.state.lock();
        let said = ask(&provider, Provider::awaited);
        assert!(said.contains("1 socket is open") && said.ends_with(busy), "{said}");
        drop(held);
        let held = provider.0.registrar.state.lock();
        assert_eq!(ask(&provider, Provider::awaited), busy);
        drop(held);
    }

    #[test]
    fn a_lock_that_is_held_keeps_no_image_from_going() {
        let kernel = Kernel::new(nt_user::Config::default());
        let _inside = kernel.enter();
        let (provider, registration, socket) = provider(&kernel);
        let table = registration.dispatch;
        let left = move |provider: &Provider| provider.left_in(&(table..table + 1));
        let all = Some("1 registration".to_owned());
        assert_eq!(ask(&provider, left), all);
        let held = socket.lock();
        assert_eq!(ask(&provider, left), all);
        drop(held);
        let held = provider.0.registrar.state.lock();
        assert_eq!(ask(&provider, left), None);
        drop(held);
    }
}
