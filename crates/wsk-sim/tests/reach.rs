//! Coverage of the kit: the remaining functions of the tables, and misuse that the checker must detect.

use wsk_sim::raw::*;
use wsk_sim::{Completion, FaultPoint, Release, Sim};
use wsk_sys::*;

#[test]
fn a_stream_socket_listens() {
    Sim::new().run(|_| {
        let client = Client::new();
        let stream = client.socket(Category::Stream, &Recorder::new());
        let address = stream.bind_localhost();
        stream.listen().ok();
        let accept = stream.accept().pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        peer.send(b"to a stream");
        assert_eq!(socket.receive_all(11), b"to a stream");
    });
}

#[test]
fn a_stream_socket_connects() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (host, address) = host_listener();
        let stream = client.socket(Category::Stream, &Recorder::new());
        stream.bind(LOCALHOST).ok();
        stream.connect(address).ok();
        let peer = Peer::accept(&host);
        Request::new().send(&stream, &Buffer::of(b"from a stream"), WSK_FLAG_NODELAY).ok();
        assert_eq!(peer.receive(13), b"from a stream");
        peer.half_close();
        assert_eq!(stream.receive(&Buffer::new(1)).ok().information, 0);
    });
}

#[test]
fn socket_connect_in_one_request() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (host, address) = host_listener();
        let request = client.socket_connect(Request::new(), LOCALHOST, address, 0, None);
        let socket = request.socket();
        let peer = Peer::accept(&host);
        peer.send(b"hi");
        assert_eq!(socket.receive_some(8), b"hi");
        let refused = client.socket_connect(Request::new(), LOCALHOST, closed_port(), 0, None);
        refused.fails(STATUS_CONNECTION_REFUSED);
    });
}

#[test]
fn ipv6() {
    Sim::new().run(|_| {
        let client = Client::new();
        let listener = client.open(&SocketOptions::new(Category::Listen).v6()).socket();
        listener.bind(LOCALHOST_V6).ok();
        let accept = listener.accept().pends();
        let peer = Peer::connect(listener.local_address());
        assert_eq!(accept.socket().remote_address(), peer.local());
    });
}

#[test]
fn retained_data_is_released() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_receive(|_| ReceiveAnswer::retain());
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept_with(&events).pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        peer.send(b"kept");
        let received = events.receive();
        assert_eq!(received.bytes(), b"kept");
        assert_eq!(received.indicated, 4);
        assert_eq!(socket.release(received.list), STATUS_SUCCESS);
    });
}

#[test]
fn data_that_is_not_accepted_waits_for_a_request() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_receive(|_| ReceiveAnswer::part(1));
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept_with(&events).pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        peer.send(b"abc");
        assert_eq!(events.receive().bytes()[0], b'a');
        assert_eq!(socket.receive_all(2), b"bc");
    });
}

#[test]
fn datagrams_by_event() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_receive_from(|_| STATUS_PENDING);
        let (host, host_address) = host_datagram();
        let socket = client.datagram(&events);
        let address = socket.bind_localhost();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        host.send_to(b"event", address).expect("sending");
        let event = events.receive_from();
        let datagrams = event.datagrams.expect("no sentinel");
        assert_eq!(datagrams[0].data.as_deref(), Some(b"event".as_slice()));
        assert_eq!(datagrams[0].remote, Some(host_address));
        assert_eq!(socket.release(event.list), STATUS_SUCCESS);
        let list = BufferList::new(&[Buffer::of(b"one"), Buffer::of(b"two")]);
        let sent = Request::new().send_messages(&socket, list, Some(host_address), 0).ok();
        assert_eq!(sent.information, 6);
    });
}

#[test]
fn transports_are_listed() {
    Sim::new().run(|_| {
        let client = Client::new();
        let probe = client.control_now(WSK_TRANSPORT_LIST_QUERY, None, None);
        assert_eq!(probe.status, STATUS_BUFFER_OVERFLOW);
        let answer = client.control_now(WSK_TRANSPORT_LIST_QUERY, None, Some(probe.size));
        assert_eq!(answer.status, STATUS_SUCCESS);
        assert_eq!(answer.size % size_of::<WSK_TRANSPORT>(), 0);
    });
}

#[test]
fn static_events_are_on_from_the_start() {
    Sim::new().run(|_| {
        let client = Client::new();
        assert_eq!(client.static_events(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let (listening, connected) = (Recorder::new(), Recorder::new());
        let given = connected.clone();
        listening.on_accept(move |event| match event.socket {
            Some(_) => AcceptAnswer::take_with(&given),
            None => AcceptAnswer::refuse(),
        });
        let (_listener, address) = client.bound_listener(&listening);
        let peer = Peer::connect(address);
        let _socket = listening.accept().socket();
        peer.send(b"static");
        assert_eq!(connected.receive_bytes(6), b"static");
    });
}

#[test]
fn a_knob_drops_a_request_after_its_acceptance() {
    let sim = Sim::new();
    sim.choose_once(FaultPoint::DropAfterAccept, 1);
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let _accept = listener.accept().pends();
        let peer = Peer::connect(address);
        let id = events.inspect().id();
        assert_eq!(events.abort().id, Some(id));
        peer.expect_reset();
    });
}

#[test]
fn an_older_system_has_shorter_tables() {
    Sim::builder().provider(|config| config.release = Release::Windows8).build().run(|_| {
        let client = Client::new();
        let options = SocketOptions::new(Category::Stream);
        let done = client.open(&options).wait();
        assert!(!nt_success(done.status), "{done:?}");
    });
}

/// Runs `body`, which breaks `rule`.
#[track_caller]
fn catches(rule: &'static str, body: impl FnOnce(&Sim) + Send + 'static) {
    let sim = Sim::builder().completion(Completion::Inline).build();
    sim.expect(rule);
    sim.run(body);
}

#[test]
fn waiting_inside_an_inspection_is_caught() {
    catches("INSP-24", |_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let inside = listener.clone();
        events.on_inspect(move |_| {
            inside.local_address();
            WskInspectReject
        });
        Peer::connect(address).expect_reset();
        // The answer holds the socket that holds the answers.
        events.inspecting(WskInspectReject);
        listener.close().ok();
    });
}

#[test]
fn closing_twice_is_caught() {
    catches("CLOSE-12", |_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        listener.close().ok();
        let again = listener.close();
        assert!(!nt_success(again.returned()));
    });
}

#[test]
fn a_request_without_a_completion_routine_is_caught() {
    catches("IRP-02", |_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        let _request = Request::new().without_routine().bind(&listener, LOCALHOST, 0);
    });
}

#[test]
fn a_request_used_twice_is_caught() {
    catches("IRP-06", |_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        let irp = accept.irp();
        let function = {
            let table = listener.dispatch().cast::<WSK_PROVIDER_LISTEN_DISPATCH>();
            // SAFETY: the table of a listening socket is constant.
            unsafe { (*table).WskAccept }.expect("the table has WskAccept")
        };
        let null = std::ptr::null_mut();
        // SAFETY: the IRP is alive; it is pending on purpose.
        let status = unsafe { function(listener.raw(), 0, null, null.cast(), null.cast(), null.cast(), irp) };
        assert!(!nt_success(status));
    });
}
