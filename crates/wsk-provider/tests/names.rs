//! Name resolution over the provider's table.

use std::net::SocketAddr;
use std::ptr;

use wsk_provider::Alternatives;
use wsk_provider::behaviours::{AddressEntries, NameProcess};
use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

/// A string in non-paged memory, with room for `room` units.
struct Name {
    units: Box<[u16]>,
    string: PoolBox<UNICODE_STRING>,
}

impl Name {
    fn new(text: &str, room: usize) -> Self {
        let mut units: Vec<u16> = text.encode_utf16().chain([0]).collect();
        let length = (units.len() - 1) * 2;
        units.resize(room.max(units.len()), 0);
        let mut units = units.into_boxed_slice();
        let string = PoolBox::new(UNICODE_STRING {
            Length: length as u16,
            MaximumLength: (units.len() * 2) as u16,
            Buffer: units.as_mut_ptr(),
        });
        Self { units, string }
    }

    fn text(&self) -> String {
        let length = self.units.iter().position(|unit| *unit == 0).expect("a NUL");
        assert_eq!(usize::from(self.string.Length), length * 2);
        String::from_utf16_lossy(&self.units[..length])
    }
}

/// Starts `WskGetAddressInfo`.
fn resolve(client: &Client, node: &Name, service: &Name, result: &PoolBox<PADDRINFOEXW>) -> Request {
    resolve_as(client, node, service, ptr::null_mut(), result)
}

/// Starts `WskGetAddressInfo` with hints.
fn resolve_as(
    client: &Client,
    node: &Name,
    service: &Name,
    hints: PADDRINFOEXW,
    result: &PoolBox<PADDRINFOEXW>,
) -> Request {
    let function = client.dispatch().WskGetAddressInfo.expect("the table has names");
    Request::new().submit("WskGetAddressInfo", |irp| {
        // SAFETY: everything the call uses outlives the request, which the test waits for.
        unsafe {
            function(
                client.npi().Client,
                node.string.as_ptr(),
                service.string.as_ptr(),
                0,
                ptr::null_mut(),
                hints,
                result.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                irp,
            )
        }
    })
}

fn free(client: &Client, list: PADDRINFOEXW) {
    let function = client.dispatch().WskFreeAddressInfo.expect("the table has names");
    // SAFETY: the provider recognizes lists that are not its own.
    unsafe { function(client.npi().Client, list) };
}

#[test]
fn numbers_and_names_are_resolved() {
    Sim::new().run(|_| {
        let client = Client::new();
        let result = PoolBox::new(ptr::null_mut());
        let (node, service) = (Name::new("127.0.0.1", 0), Name::new("12345", 0));
        let numbers = resolve(&client, &node, &service, &result);
        assert_eq!((numbers.returned(), numbers.ok().information), (STATUS_PENDING, 0));
        // SAFETY: the request has succeeded, so there is a list.
        let head = unsafe { &**result };
        assert_eq!((head.ai_family, head.ai_addrlen), (i32::from(AF_INET), 16));
        // SAFETY: the entry has an address.
        let address = unsafe { read_address(head.ai_addr) };
        assert_eq!(address, Some("127.0.0.1:12345".parse().expect("an address")));
        free(&client, *result);

        let (node, service) = (Name::new("localhost", 0), Name::new("80", 0));
        resolve(&client, &node, &service, &result).ok();
        free(&client, *result);
        let unknown = Name::new("no-such-host.invalid", 0);
        resolve(&client, &unknown, &service, &result).fails(STATUS_NOT_FOUND);
    });
}

/// Hints with a socket type and a protocol.
fn hints_of(ai_socktype: i32, ai_protocol: i32) -> ADDRINFOEXW {
    ADDRINFOEXW {
        ai_flags: 0,
        ai_family: AF_UNSPEC.into(),
        ai_socktype,
        ai_protocol,
        ai_addrlen: 0,
        ai_canonname: ptr::null_mut(),
        ai_addr: ptr::null_mut(),
        ai_blob: ptr::null_mut(),
        ai_bloblen: 0,
        ai_provider: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    }
}

/// The socket types and protocols of the entries of a list, all of them for one address.
fn entries(head: PADDRINFOEXW, expected: SocketAddr) -> Vec<(i32, i32)> {
    let mut entries = Vec::new();
    let mut next = head;
    // SAFETY: the list was handed out by the provider and has not been freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: the entry has an address.
        assert_eq!(unsafe { read_address(entry.ai_addr) }, Some(expected));
        assert_eq!(entry.ai_flags, 0);
        entries.push((entry.ai_socktype, entry.ai_protocol));
        next = entry.ai_next;
    }
    entries
}

/// Shows: NAME-12
#[test]
fn an_address_has_an_entry_for_every_protocol_that_the_hints_leave() {
    const TCP: (i32, i32) = (SOCK_STREAM as i32, IPPROTO_TCP as i32);
    const UDP: (i32, i32) = (SOCK_DGRAM as i32, IPPROTO_UDP as i32);
    const ODD: (i32, i32) = (SOCK_STREAM as i32, IPPROTO_UDP as i32);
    for &choice in AddressEntries::ALL {
        Sim::builder().behaviours(|behaviours| behaviours.address_entries = choice).build().run(move |_| {
            let client = Client::new();
            let result = PoolBox::new(ptr::null_mut());
            let (node, service) = (Name::new("127.0.0.1", 0), Name::new("12345", 0));
            for (hints, per_protocol) in [
                (None, vec![TCP, UDP]),
                (Some((0, 0)), vec![TCP, UDP]),
                (Some((TCP.0, 0)), vec![TCP]),
                (Some((0, UDP.1)), vec![UDP]),
                (Some(TCP), vec![TCP]),
                // The provider does not check pairs that do not match.
                (Some(ODD), vec![ODD]),
                (Some((SOCK_RAW.into(), 0)), vec![(SOCK_RAW.into(), 0)]),
            ] {
                let given =
                    hints.map(|(ai_socktype, ai_protocol)| PoolBox::new(hints_of(ai_socktype, ai_protocol)));
                let pointer = given.as_ref().map_or(ptr::null_mut(), PoolBox::as_ptr);
                resolve_as(&client, &node, &service, pointer, &result).ok();
                let found = entries(*result, "127.0.0.1:12345".parse().expect("an address"));
                let expected = match choice {
                    AddressEntries::PerProtocol => per_protocol,
                    AddressEntries::Single => vec![hints.unwrap_or((0, 0))],
                };
                assert_eq!(found, expected, "{choice:?} {hints:?}");
                free(&client, *result);
            }
        });
    }
    assert_eq!(AddressEntries::default(), AddressEntries::PerProtocol);
}

/// A name is resolved without a process of the client, by numbers and by the host.
///
/// Shows: NAME-07
#[test]
fn no_process_is_needed() {
    for &choice in NameProcess::ALL {
        Sim::builder().behaviours(|behaviours| behaviours.name_process = choice).build().run(|_| {
            let client = Client::new();
            let result = PoolBox::new(ptr::null_mut());
            resolve(&client, &Name::new("localhost", 0), &Name::new("80", 0), &result).ok();
            free(&client, *result);
        });
    }
}

#[test]
fn addresses_have_names() {
    Sim::new().run(|_| {
        let client = Client::new();
        let function = client.dispatch().WskGetNameInfo.expect("the table has names");
        let address = CAddress::new("127.0.0.1:7007".parse().expect("an address"));
        for (room, expected) in [(64, STATUS_SUCCESS), (0, STATUS_BUFFER_TOO_SMALL)] {
            let (node, service) = (Name::new("", room), Name::new("", room));
            let request = Request::new().submit("WskGetNameInfo", |irp| {
                // SAFETY: everything the call uses outlives the request, which the test waits for.
                unsafe {
                    function(
                        client.npi().Client,
                        address.as_ptr(),
                        16,
                        node.string.as_ptr(),
                        service.string.as_ptr(),
                        NI_NUMERICHOST | NI_NUMERICSERV,
                        ptr::null_mut(),
                        ptr::null_mut(),
                        irp,
                    )
                }
            });
            assert_eq!(request.wait().status, expected);
            if expected == STATUS_SUCCESS {
                assert_eq!((node.text().as_str(), service.text().as_str()), ("127.0.0.1", "7007"));
            }
        }
    });
}

#[test]
fn lists_are_freed_once() {
    let sim = Sim::new();
    sim.expect("NAME-05");
    sim.run(|sim| {
        let client = Client::new();
        let result = PoolBox::new(ptr::null_mut());
        resolve(&client, &Name::new("::1", 0), &Name::new("1", 0), &result).ok();
        free(&client, *result);
        free(&client, *result);
        assert_eq!(sim.violations_of("NAME-05").len(), 1);
    });
}
