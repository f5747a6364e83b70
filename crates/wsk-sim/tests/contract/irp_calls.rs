//! Requirements on every IRP, call by call: it is not null, and its routine runs for every outcome.

use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::{SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS};
use wsk_sys::*;

use crate::support::*;

/// Objects that the calls are made on.
struct Objects<'a> {
    sim: &'a Sim,
    client: Client,
}

type Call = (&'static str, fn(&Objects<'_>, Request) -> Request);

/// Calls on the client and on sockets, each on its own object. Input is available for calls that wait for it.
const CALLS: [Call; 22] = [
    ("WskSocket", |o, request| o.client.open_with(request, &SocketOptions::new(Category::Listen))),
    ("WskSocketConnect", |o, request| {
        let (_listener, address) = o.client.bound_listener(&Recorder::new());
        settled(o.client.socket_connect(request, LOCALHOST, address, 0, None))
    }),
    ("WskControlClient", |o, request| {
        let waiting = o.client.control(request, WSK_TRANSPORT_LIST_CHANGE, None, None, None);
        o.sim.provider().transports_changed();
        settled(waiting)
    }),
    ("WskGetAddressInfo", |o, request| {
        let (name, result) = (Name::new("127.0.0.1"), PoolBox::<PADDRINFOEXW>::new(ptr::null_mut()));
        let functions = o.client.dispatch();
        let (ask, own, null) = (functions.WskGetAddressInfo.unwrap(), o.client.npi().Client, ptr::null_mut());
        let (string, out) = (name.string.as_ptr(), result.as_ptr());
        let request = request.submit("WskGetAddressInfo", |irp| {
            // SAFETY: everything outlives the request, which is waited for.
            unsafe {
                ask(own, string, ptr::null_mut(), 0, ptr::null_mut(), ptr::null_mut(), out, null, null, irp)
            }
        });
        let request = settled(request);
        // SAFETY: the list is the one that the query gave, if it gave one.
        unsafe { functions.WskFreeAddressInfo.unwrap()(own, *result) };
        request
    }),
    ("WskGetNameInfo", |o, request| {
        let (name, address) = (Name::new("127.0.0.1:12345"), CAddress::new(LOCALHOST));
        let (ask, own, null) =
            (o.client.dispatch().WskGetNameInfo.unwrap(), o.client.npi().Client, ptr::null_mut());
        let (string, at) = (name.string.as_ptr(), address.as_ptr());
        let flags = NI_NUMERICHOST | NI_NUMERICSERV;
        settled(request.submit("WskGetNameInfo", |irp| {
            // SAFETY: the list is the one that the query gave, if it gave one.
            unsafe { ask(own, at, 16, string, ptr::null_mut(), flags, null, null, irp) }
        }))
    }),
    ("WskBind", |o, request| settled(request.bind(&o.client.listener(&Recorder::new()), LOCALHOST, 0))),
    ("WskGetLocalAddress", |o, request| settled(request.local_address(&pair(o).0).0)),
    ("WskGetRemoteAddress", |o, request| settled(request.remote_address(&pair(o).0).0)),
    ("WskControlSocket", |o, request| {
        let socket = o.client.datagram(&Recorder::new());
        socket.bind_localhost();
        settled(request.control(&socket, &Control::ioctl(SIO_WSK_SET_REMOTE_ADDRESS, None, None)).0)
    }),
    ("WskAccept", |o, request| {
        let (listener, address) = o.client.bound_listener(&Recorder::new());
        let _peer = Peer::connect(address);
        settled(request.accept(&listener, None, 0))
    }),
    ("WskInspectComplete", |o, request| {
        let (listener, _) = o.client.conditional_listener(&Recorder::new());
        settled(request.inspect_complete(
            &listener,
            WSK_INSPECT_ID { Key: 7, SerialNumber: 7 },
            WskInspectReject,
        ))
    }),
    ("WskListen", |o, request| {
        let stream = o.client.open(&SocketOptions::new(Category::Stream)).socket();
        stream.bind_localhost();
        settled(request.listen(&stream))
    }),
    ("WskConnect", |o, request| {
        let (_listener, address) = o.client.bound_listener(&Recorder::new());
        let socket = o.client.connection(&Recorder::new());
        socket.bind_localhost();
        settled(request.connect(&socket, address, 0))
    }),
    ("WskConnectEx", |o, request| {
        let (_listener, address) = o.client.bound_listener(&Recorder::new());
        let socket = o.client.connection(&Recorder::new());
        socket.bind_localhost();
        settled(request.connect_ex(&socket, address, None, 0))
    }),
    ("WskSend", |o, request| settled(request.send(&pair(o).0, &Buffer::of(b"x"), 0))),
    ("WskSendEx", |o, request| settled(request.send_ex(&pair(o).0, &Buffer::of(b"x"), &[], 0))),
    ("WskReceive", |o, request| {
        let (socket, peer) = pair(o);
        peer.send(b"x");
        settled(request.receive(&socket, &Buffer::new(1), 0))
    }),
    ("WskReceiveEx", |o, request| {
        let (socket, peer) = pair(o);
        peer.send(b"x");
        settled(request.receive_ex(&socket, &Buffer::new(1), 0))
    }),
    ("WskDisconnect", |o, request| {
        let (socket, _peer) = pair(o);
        settled(request.disconnect(&socket, None, WSK_FLAG_ABORTIVE))
    }),
    ("WskSendTo", |o, request| {
        let socket = o.client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        settled(request.send_to(&socket, &Buffer::of(b"x"), Some(own), &[], 0))
    }),
    ("WskSendMessages", |o, request| {
        let socket = o.client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        settled(request.send_messages(&socket, BufferList::new(&[Buffer::of(b"x")]), Some(own), 0))
    }),
    ("WskReceiveFrom", |o, request| {
        let socket = o.client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        socket.send_to(b"x", own).ok();
        settled(request.receive_from(&socket, &Buffer::new(1), ReceiveFromOptions::default()).0)
    }),
];

/// A connection and its peer.
fn pair(objects: &Objects<'_>) -> (Socket, Peer) {
    accepted_pair(&objects.client, &Recorder::new())
}

/// Waits for a request that was accepted, so that its memory may be freed.
fn settled(request: Request) -> Request {
    if request.returned() == STATUS_PENDING {
        request.wait();
    }
    request
}

/// A name in non-paged memory, and the string that leads to it.
struct Name {
    _units: Buffer,
    string: PoolBox<UNICODE_STRING>,
}

impl Name {
    fn new(text: &str) -> Self {
        let bytes: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_ne_bytes).collect();
        let units = Buffer::of(&bytes);
        let string = PoolBox::new(UNICODE_STRING {
            Length: (bytes.len() - 2) as u16,
            MaximumLength: bytes.len() as u16,
            Buffer: units.address().cast(),
        });
        Self { _units: units, string }
    }
}

/// Shows: IRP-17
/// Catches: IRP-18, LSN-10
#[test]
fn every_call_that_needs_an_irp_is_caught_without_one() {
    let sim = Sim::new();
    sim.expect("IRP-18").expect("LSN-10");
    sim.run(|sim| {
        let objects = Objects { sim, client: Client::new() };
        for (name, call) in CALLS {
            let request = call(&objects, Request::null());
            assert_eq!(request.returned(), STATUS_INVALID_PARAMETER, "{name}");
            assert_caught(sim, if name == "WskAccept" { "LSN-10" } else { "IRP-18" }, name);
        }
    });
}

/// The routine of these IRPs does not run when they are cancelled.
///
/// Catches: IRP-02
#[test]
fn every_call_looks_whether_the_routine_runs_in_all_cases() {
    let sim = Sim::new();
    sim.expect("IRP-02").expect("ICMP-09");
    sim.run(|sim| {
        let objects = Objects { sim, client: Client::new() };
        for (name, call) in CALLS {
            let request =
                call(&objects, Request::new().invoked_on(SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR));
            request.wait();
            assert_caught(sim, "IRP-02", name);
            // A socket that was made is closed.
            if name == "WskSocket" || name == "WskSocketConnect" || name == "WskAccept" {
                request.socket().close().ok();
            }
        }
    });
}
