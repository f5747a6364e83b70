//! Connections for tests, with the host at the other end.

use wsk_sim::Builder;
use wsk_sim::raw::*;
use wsk_sys::*;

use crate::support::A_WHILE;

/// A connection between a client and the host.
#[derive(Debug)]
pub(crate) struct Link {
    // In the order in which they go.
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
    pub(crate) events: Recorder,
    pub(crate) client: Client,
}

impl Link {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let client = Client::new();
        let events = Recorder::new();
        let (socket, peer) = connect(&client, &events);
        Self { socket, peer, events, client }
    }

    /// One with these events switched on.
    #[track_caller]
    pub(crate) fn with_events(mask: u32) -> Self {
        let link = Self::new();
        link.enable(mask);
        link
    }

    #[track_caller]
    pub(crate) fn enable(&self, mask: u32) {
        assert_eq!(self.socket.enable(mask), STATUS_SUCCESS);
    }

    /// Ends the recorder's answers, which may hold the socket that holds the recorder.
    pub(crate) fn forget_answers(&self) {
        self.events.on_disconnect(|_| STATUS_SUCCESS);
        self.events.on_receive(|_| ReceiveAnswer::all());
    }
}

/// A connection that the client makes.
#[track_caller]
pub(crate) fn connect(client: &Client, events: &Recorder) -> (Socket, Peer) {
    let (listener, address) = host_listener();
    let socket = client.connected(address, events);
    (socket, accept(&listener))
}

#[track_caller]
fn accept(listener: &std::net::TcpListener) -> Peer {
    let peer = Peer::accept(listener);
    peer.stream().set_nodelay(true).expect("an option of the host");
    peer
}

/// A connection of a client's, and where its events are told.
#[derive(Debug)]
pub(crate) struct Sourced {
    pub(crate) source: &'static str,
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
    pub(crate) events: Recorder,
}

/// One connection from each way in which a client can come by one.
#[track_caller]
pub(crate) fn from_every_source(client: &Client) -> Vec<Sourced> {
    let mut links = Vec::new();
    let mut add = |source, socket, peer, events| links.push(Sourced { source, socket, peer, events });
    let (host, address) = host_listener();

    let events = Recorder::new();
    let socket = client.connected(address, &events);
    add("WskSocket", socket, accept(&host), events);

    let events = Recorder::new();
    let socket = client.socket_connect(Request::new(), LOCALHOST, address, 0, Some(&events)).socket();
    add("WskSocketConnect", socket, accept(&host), events);

    let events = Recorder::new();
    let socket = client.socket(Category::Stream, &events);
    socket.bind(LOCALHOST).ok();
    socket.connect(address).ok();
    add("WskSocket for a stream", socket, accept(&host), events);

    let listening = Recorder::new();
    let (listener, address) = client.bound_listener(&listening);
    let events = Recorder::new();
    let request = listener.accept_with(&events);
    let peer = Peer::connect(address);
    add("WskAccept", request.socket(), peer, events);

    let events = Recorder::new();
    let given = events.clone();
    listening.on_accept(move |_| AcceptAnswer::take_with(&given));
    assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
    let peer = Peer::connect(address);
    add("WskAcceptEvent", listening.accept().socket(), peer, events);
    links
}

/// The two ends of a connection between two sockets of one client.
#[track_caller]
pub(crate) fn both_ends(client: &Client, near: &Recorder, far: &Recorder) -> (Socket, Socket) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = listener.accept_with(far);
    let socket = client.connected(address, near);
    (socket, accept.socket())
}

/// Expects that no event of a kind comes where nothing else would tell.
#[track_caller]
pub(crate) fn assert_quiet(events: &Recorder, kind: Kind) {
    if let Some(event) = events.next_of(kind, A_WHILE) {
        panic!("an event came that should not: {event:?}");
    }
}

/// More bytes than fit between the two ends of a [`narrow`] connection.
pub(crate) const MUCH: usize = 2 << 20;

/// A machine whose connections hold little that the peer has not read, so that sends wait for a peer that
/// does not.
pub(crate) fn narrow(machine: Builder) -> Builder {
    machine.network(|network| network.send_buffer = Some(256 * 1024))
}

/// So many bytes that tell where each of them belongs.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Starts a send that waits for the peer to read, on a [`narrow`] machine.
#[track_caller]
pub(crate) fn stuck_send(socket: &Socket) -> Request {
    socket.send(&pattern(MUCH)).pends()
}

/// Value of an IOCTL that writes one `SIZE_T`.
#[track_caller]
pub(crate) fn query(socket: &Socket, code: u32) -> usize {
    let (request, output, _) =
        Request::new().control(socket, &Control::ioctl(code, None, Some(size_of::<usize>())));
    let done = request.ok();
    assert_eq!(done.information, size_of::<usize>());
    let bytes = output.expect("an output was given").bytes();
    usize::from_ne_bytes(bytes.try_into().expect("a SIZE_T"))
}

/// Waits until so many unread bytes have arrived.
#[track_caller]
pub(crate) fn await_backlog(socket: &Socket, bytes: usize) {
    crate::support::eventually("the data arrives", || query(socket, SIO_WSK_QUERY_RECEIVE_BACKLOG) >= bytes);
}
