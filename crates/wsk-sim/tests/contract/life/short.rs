//! Memory that is shorter than a client or its own contents say, for every call with such memory.

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr::null_mut;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

use super::table;
use crate::support::*;

/// An address of `family` with only so many bytes.
fn short<const BYTES: usize>(family: u16) -> PoolBox<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    bytes[..2].copy_from_slice(&family.to_ne_bytes());
    PoolBox::new(bytes)
}

/// A call with an address.
type Call = (&'static str, fn(&Client, PSOCKADDR) -> Request);

fn bind(client: &Client, address: PSOCKADDR) -> Request {
    let socket = client.datagram(&Recorder::new());
    // SAFETY: the provider knows how long the address is.
    let request = unsafe { Request::new().bind_at(&socket, address) };
    request.wait();
    request
}

fn connection(client: &Client) -> Socket {
    let socket = client.connection(&Recorder::new());
    socket.bind_localhost();
    socket
}

fn connect(client: &Client, address: PSOCKADDR) -> Request {
    let socket = connection(client);
    // SAFETY: the socket is a connection.
    let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&socket) }.WskConnect.unwrap();
    let request = Request::new().submit("WskConnect", |irp| {
        // SAFETY: the provider knows how long the address is.
        unsafe { function(socket.raw(), address, 0, irp) }
    });
    request.wait();
    request
}

fn connect_ex(client: &Client, address: PSOCKADDR) -> Request {
    let socket = connection(client);
    // SAFETY: the socket is a connection.
    let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&socket) }.WskConnectEx.unwrap();
    let request = Request::new().submit("WskConnectEx", |irp| {
        // SAFETY: the provider knows how long the address is.
        unsafe { function(socket.raw(), address, null_mut(), 0, irp) }
    });
    request.wait();
    request
}

fn socket_connect(client: &Client, local: PSOCKADDR, remote: PSOCKADDR) -> Request {
    let function = client.dispatch().WskSocketConnect.unwrap();
    let (handle, none) = (client.npi().Client, null_mut::<c_void>());
    let request = Request::new().submit("WskSocketConnect", |irp| {
        let (context, table, security) = (none, std::ptr::null(), none);
        // SAFETY: the provider knows how long the addresses are.
        unsafe {
            function(
                handle,
                SOCK_STREAM,
                IPPROTO_TCP,
                local,
                remote,
                0,
                context,
                table,
                null_mut(),
                null_mut(),
                security,
                irp,
            )
        }
    });
    request.wait();
    request
}

fn datagram(client: &Client) -> Socket {
    let socket = client.datagram(&Recorder::new());
    socket.bind_localhost();
    socket
}

fn send_to(client: &Client, address: PSOCKADDR) -> Request {
    let socket = datagram(client);
    // SAFETY: the socket is one for datagrams.
    let function = unsafe { table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(&socket) }.WskSendTo.unwrap();
    let buffer = Buffer::of(b"x");
    let mut descriptor = buffer.wsk_buf();
    let request = Request::new().submit("WskSendTo", |irp| {
        // SAFETY: the provider knows how long the address is.
        unsafe { function(socket.raw(), &raw mut descriptor, 0, address, 0, null_mut(), irp) }
    });
    request.wait();
    request
}

fn send_messages(client: &Client, address: PSOCKADDR) -> Request {
    let socket = datagram(client);
    // SAFETY: the socket is one for datagrams.
    let function = unsafe { table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(&socket) }.WskSendMessages.unwrap();
    let list = BufferList::new(&[Buffer::of(b"x")]);
    let request = Request::new().submit("WskSendMessages", |irp| {
        // SAFETY: the provider knows how long the address is.
        unsafe { function(socket.raw(), list.head(), 0, address, 0, null_mut(), irp) }
    });
    request.wait();
    request
}

fn name_info(client: &Client, address: PSOCKADDR) -> Request {
    let function = client.dispatch().WskGetNameInfo.unwrap();
    let handle = client.npi().Client;
    let room = PoolBox::new([0_u16; 64]);
    let name = PoolBox::new(UNICODE_STRING { Length: 0, MaximumLength: 128, Buffer: room.as_ptr().cast() });
    let request = Request::new().submit("WskGetNameInfo", |irp| {
        let (length, flags) = (size_of::<SOCKADDR_STORAGE>() as u32, NI_NUMERICHOST);
        // SAFETY: the provider knows how long the address is.
        unsafe {
            function(handle, address, length, name.as_ptr(), null_mut(), flags, null_mut(), null_mut(), irp)
        }
    });
    request.wait();
    request
}

const CALLS: [Call; 8] = [
    ("WskBind", bind),
    ("WskConnect", connect),
    ("WskConnectEx", connect_ex),
    ("WskSocketConnect", |client, address| {
        let other = CAddress::new(LOCALHOST);
        socket_connect(client, address, other.as_ptr())
    }),
    ("WskSocketConnect", |client, address| {
        let other = CAddress::new(LOCALHOST);
        socket_connect(client, other.as_ptr(), address)
    }),
    ("WskSendTo", send_to),
    ("WskSendMessages", send_messages),
    ("WskGetNameInfo", name_info),
];

/// Catches: LIFE-06
#[test]
fn an_address_that_is_shorter_than_its_family_says_is_caught() {
    for (name, call) in CALLS {
        Sim::new().expect("LIFE-06").run(move |sim| {
            let client = Client::new();
            drop(call(&client, short::<12>(AF_INET).as_ptr().cast()));
            assert_caught(sim, "LIFE-06", name);
            let [said] = &sim.violations_of("LIFE-06")[..] else { panic!("{name}: once") };
            assert!(said.detail.contains("16 bytes") && said.detail.contains("has 12 there"), "{said}");
        });
    }
}

/// An address without a complete family is no address.
///
/// Catches: LIFE-06
#[test]
fn an_address_of_one_byte_is_caught() {
    for (name, call) in CALLS {
        let sim = Sim::new();
        if name == "WskBind" {
            sim.expect("BIND-12");
        }
        sim.expect("LIFE-06").run(move |sim| {
            let client = Client::new();
            let byte = PoolBox::new(2_u8);
            call(&client, byte.as_ptr().cast()).fails(STATUS_INVALID_PARAMETER);
            assert_caught(sim, "LIFE-06", name);
        });
    }
}

/// Catches: LIFE-06
#[test]
fn an_address_that_was_freed_is_caught() {
    for (name, call) in CALLS {
        let sim = Sim::new();
        if name == "WskBind" {
            sim.expect("BIND-12");
        }
        sim.expect("LIFE-06").run(move |sim| {
            let client = Client::new();
            let freed = CAddress::new(LOCALHOST).as_ptr();
            call(&client, freed).fails(STATUS_INVALID_PARAMETER);
            assert_caught(sim, "LIFE-06", name);
        });
    }
}

/// An address that ends where its memory does is whole.
#[test]
fn an_address_of_the_exact_size_is_whole() {
    Sim::new().run(|_| {
        let client = Client::new();
        let mut bytes = [0; size_of::<SOCKADDR_IN>()];
        bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
        bytes[4..8].copy_from_slice(&[127, 0, 0, 1]);
        bind(&client, PoolBox::new(bytes).as_ptr().cast()).ok();
    });
}

/// The input or the output of a control call, of which there are fewer bytes than it says.
fn control_short(sim: &Sim, socket: &Socket, code: u32, input: usize, output: usize, irp: bool) {
    // SAFETY: every table begins so.
    let function = unsafe { table::<WSK_PROVIDER_BASIC_DISPATCH>(socket) }.WskControlSocket.unwrap();
    let memory = PoolBox::new([0_u8; 2]);
    let at = |size| if size == 0 { null_mut() } else { memory.as_ptr().cast::<c_void>() };
    let request = if irp { Request::new() } else { Request::null() };
    let request = request.submit("WskControlSocket", |irp| {
        let (kind, level) = (WSK_CONTROL_SOCKET_TYPE::WskIoctl, 0);
        // SAFETY: the provider knows how long the buffers are.
        unsafe {
            function(socket.raw(), kind, code, level, input, at(input), output, at(output), null_mut(), irp)
        }
    });
    if irp {
        request.fails(STATUS_INVALID_PARAMETER);
    } else {
        assert_eq!(request.returned(), STATUS_INVALID_PARAMETER);
    }
    assert_caught(sim, "LIFE-11", "WskControlSocket");
}

/// Catches: LIFE-11
#[test]
fn a_control_buffer_that_is_shorter_than_the_client_says_is_caught() {
    for (code, input, output, irp) in [
        (SIO_WSK_SET_REMOTE_ADDRESS, 16, 0, true),
        (SIO_WSK_SET_SENDTO_ADDRESS, 16, 0, true),
        (SIO_ADDRESS_LIST_QUERY, 0, 512, false),
        (SIO_ADDRESS_LIST_SORT, 64, 64, true),
    ] {
        Sim::new().expect("LIFE-11").run(move |sim| {
            let client = Client::new();
            let socket = datagram(&client);
            control_short(sim, &socket, code, input, output, irp);
        });
    }
}

/// Catches: LIFE-11
#[test]
fn a_buffer_of_the_client_object_that_is_too_short_is_caught() {
    Sim::new().expect("LIFE-11").run(|sim| {
        let client = Client::new();
        let function = client.dispatch().WskControlClient.unwrap();
        let (handle, memory) = (client.npi().Client, PoolBox::new([0_u8; 2]));
        let mut returned = 0;
        // SAFETY: the provider knows how long the buffer is.
        let status = unsafe {
            function(
                handle,
                WSK_TRANSPORT_LIST_QUERY,
                0,
                null_mut(),
                512,
                memory.as_ptr().cast(),
                &raw mut returned,
                null_mut(),
            )
        };
        assert_eq!(status, STATUS_INVALID_PARAMETER);
        assert_caught(sim, "LIFE-11", "WskControlClient");
    });
}

/// Catches: NAME-02
#[test]
fn a_name_that_is_shorter_than_its_length_says_is_caught() {
    Sim::new().expect("NAME-02").run(|sim| {
        let client = Client::new();
        let function = client.dispatch().WskGetAddressInfo.unwrap();
        let handle = client.npi().Client;
        let text = PoolBox::new([u16::from(b'1'); 2]);
        let name =
            PoolBox::new(UNICODE_STRING { Length: 8, MaximumLength: 10, Buffer: text.as_ptr().cast() });
        let result = PoolBox::new(null_mut::<ADDRINFOEXW>());
        let none = null_mut;
        let request = Request::new().submit("WskGetAddressInfo", |irp| {
            // SAFETY: the provider knows how long the name is.
            unsafe {
                function(
                    handle,
                    name.as_ptr(),
                    null_mut(),
                    0,
                    null_mut(),
                    null_mut(),
                    result.as_ptr(),
                    none(),
                    null_mut(),
                    irp,
                )
            }
        });
        request.fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "NAME-02", "WskGetAddressInfo");
    });
}
