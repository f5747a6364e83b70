//! Name resolution (contract 4.22): `WskGetAddressInfo`, `WskFreeAddressInfo` and `WskGetNameInfo`.
//!
//! The host resolves names, on a separate thread; numbers need no host. In both cases the request counts for
//! the client object and can be cancelled during the query.

mod list;
mod lookup;
mod text;

pub(crate) use list::AddressLists;

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wsk_sys::nt::{self, GUID, IRP, NTSTATUS, PEPROCESS, PETHREAD};
use wsk_sys::{
    ADDRESS_FAMILY, AF_INET, AF_INET6, AF_UNSPEC, AI_CANONNAME, AI_NUMERICHOST, AI_PASSIVE, IPPROTO_TCP,
    IPPROTO_UDP, PADDRINFOEXW, PSOCKADDR, PUNICODE_STRING, PWSK_CLIENT, SOCK_DGRAM, SOCK_STREAM,
    SOCKADDR_STORAGE, STATUS_BUFFER_TOO_SMALL, STATUS_INVALID_PARAMETER, STATUS_NO_MATCH, STATUS_NOT_FOUND,
    STATUS_PENDING, STATUS_SUCCESS,
};

use self::lookup::{Answer, Question, Wanted};
use self::text::Text;
use super::{Client, ClientCall};
use crate::address::Family;
use crate::behaviours::AddressEntries;
use crate::config::Release;
use crate::request::{Purpose, Request, RequestQueue};

/// Name requests of a client that wait for the host, by number.
#[derive(Debug, Default)]
pub(crate) struct NameRequests(pub(crate) RequestQueue<u64>);

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Checks that the call is at `PASSIVE_LEVEL` (IRQL-09).
fn check_level(call: &ClientCall) {
    // SAFETY: reading the IRQL has no precondition.
    if unsafe { nt::KeGetCurrentIrql() } != nt::PASSIVE_LEVEL {
        call.provider().violation("IRQL-09", call.name, "called above PASSIVE_LEVEL");
    }
}

/// Status of an unknown name (NAME-06).
fn unknown(client: &Client) -> NTSTATUS {
    if client.provider().live_config.has(Release::Windows8) { STATUS_NOT_FOUND } else { STATUS_NO_MATCH }
}

/// Memory for the results of `WskGetAddressInfo`.
#[derive(Clone, Copy, Debug)]
struct Destination(*mut PADDRINFOEXW);

// SAFETY: the variable is the client's, valid from any thread until the request completes (LIFE-11).
unsafe impl Send for Destination {}

impl Destination {
    /// Writes the address of the list for the client, before the request completes.
    fn set(self, head: PADDRINFOEXW) {
        // SAFETY: the client keeps the variable until the request completes.
        unsafe { self.0.write(head) };
    }
}

/// `WskGetAddressInfo`.
///
/// # Safety
/// As `PFN_WSK_GET_ADDRESS_INFO`: the client is captured, names, hints and result variable stay valid until
/// the request completes, and the caller gives up the IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_get_address_info(
    client: PWSK_CLIENT,
    node: PUNICODE_STRING,
    service: PUNICODE_STRING,
    _name_space: u32,
    _name_provider: *mut GUID,
    hints: PADDRINFOEXW,
    result: *mut PADDRINFOEXW,
    owning_process: PEPROCESS,
    owning_thread: PETHREAD,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes its own handle and gives up the IRP.
    let (call, mut request) = match unsafe { ClientCall::begin("WskGetAddressInfo", client, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    check_level(&call);
    if !check_owner(&call, owning_process, owning_thread) || result.is_null() {
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    request.needs(result, Purpose::NameQuery);
    request.needs(hints, Purpose::NameQuery);
    for string in [node, service] {
        // SAFETY: the client passes whole strings.
        unsafe { borrow_string(&mut request, string) };
    }
    // SAFETY: the client passes whole strings.
    let node = unsafe { Text::read(&call, node) };
    // SAFETY: the client passes whole strings.
    let service = unsafe { Text::read(&call, service) };
    if node.is_empty() && service.is_empty() {
        provider.violation("NAME-02", call.name, "NodeName and ServiceName are both null");
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    // SAFETY: null hints, or whole ones.
    let hints = unsafe { hints.as_ref() };
    let (flags, family) = hints.map_or((0, i32::from(AF_UNSPEC)), |hints| (hints.ai_flags, hints.ai_family));
    let family = match u16::try_from(family) {
        Ok(AF_UNSPEC) => None,
        Ok(AF_INET) => Some(Family::V4),
        Ok(AF_INET6) => Some(Family::V6),
        _ => return request.fail(provider, STATUS_INVALID_PARAMETER),
    };
    let question = Question::Addresses(Wanted {
        node: node.into_string(),
        service: service.into_string(),
        family,
        passive: flags & AI_PASSIVE != 0,
        numeric: flags & AI_NUMERICHOST != 0,
        canonical: flags & AI_CANONNAME != 0,
        transports: transports(
            provider.live_config.behaviours().address_entries,
            hints.map_or((0, 0), |hints| (hints.ai_socktype, hints.ai_protocol)),
        ),
    });
    let destination = Destination(result);
    ask(&call, request, question, move |client, answer| {
        let Answer::Addresses(found) = answer else { return unknown(client) };
        if found.is_empty() {
            return unknown(client);
        }
        destination.set(client.provider().address_lists.add(&found));
        STATUS_SUCCESS
    })
}

/// Returns socket type and protocol of each entry of an address, for those of the hints. 0 leaves them open.
fn transports(entries: AddressEntries, (socket_type, protocol): (i32, i32)) -> Vec<(i32, i32)> {
    let all = [(SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)];
    let fits = |&(own_type, own_protocol): &(i32, i32)| {
        (socket_type == 0 || socket_type == own_type) && (protocol == 0 || protocol == own_protocol)
    };
    let left: Vec<(i32, i32)> =
        all.map(|(of, by)| (i32::from(of), by as i32)).into_iter().filter(fits).collect();
    if left.is_empty() || entries == AddressEntries::Single { vec![(socket_type, protocol)] } else { left }
}

/// Records that a request needs a string and its characters.
///
/// # Safety
/// `string` is null or points to a whole string.
unsafe fn borrow_string(request: &mut Request, string: PUNICODE_STRING) {
    request.needs(string, Purpose::NameQuery);
    // SAFETY: the caller guarantees that `string` is null or points to a whole string.
    if let Some(string) = unsafe { string.as_ref() }
        && string.MaximumLength != 0
    {
        request.needs(string.Buffer, Purpose::NameQuery);
    }
}

/// Checks that an owning thread is passed only with its process (NAME-08).
fn check_owner(call: &ClientCall, process: PEPROCESS, thread: PETHREAD) -> bool {
    if process.is_null() && !thread.is_null() {
        call.provider().violation("NAME-08", call.name, "OwningThread is set, but OwningProcess is null");
        return false;
    }
    true
}

/// Runs the query, and completes the request with the status that `take` returns for the result.
fn ask(
    client: &Arc<Client>,
    request: Request,
    question: Question,
    take: impl FnOnce(&Client, Answer) -> NTSTATUS + Send + 'static,
) -> NTSTATUS {
    if let Some(answer) = question.answer_from_numbers() {
        let status = take(client, answer);
        return request.finish_pended(client, status, 0);
    }
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    client.lock().names.0.push(request, client, number);
    let shared = Arc::clone(client);
    client.provider().defer(Box::new(move |provider| {
        let answer = question.answer_from_host();
        let claimed = shared.lock().names.0.take_where(|other| *other == number);
        if let Some((request, _)) = claimed {
            let status = take(&shared, answer);
            request.complete(provider, status, 0);
        }
    }));
    STATUS_PENDING
}

/// `WskFreeAddressInfo`.
///
/// # Safety
/// As `PFN_WSK_FREE_ADDRESS_INFO`: the client is captured, and the list is no longer used.
pub(crate) unsafe extern "system" fn wsk_free_address_info(client: PWSK_CLIENT, list: PADDRINFOEXW) {
    // SAFETY: the client passes its own handle.
    let Ok(call) = (unsafe { ClientCall::enter("WskFreeAddressInfo", client) }) else { return };
    check_level(&call);
    if !list.is_null() && !call.provider().address_lists.remove(list) {
        call.provider().violation(
            "NAME-05",
            call.name,
            "the list is not from WskGetAddressInfo, or was already freed",
        );
    }
}

/// Memory for the results of `WskGetNameInfo`.
#[derive(Clone, Copy, Debug)]
struct Outputs {
    node: PUNICODE_STRING,
    service: PUNICODE_STRING,
}

// SAFETY: the strings are the client's, valid from any thread until the request completes (LIFE-11).
unsafe impl Send for Outputs {}

impl Outputs {
    /// Writes the requested names, before the request completes; false if there is too little room.
    fn write(self, node: &str, service: &str) -> bool {
        [(self.node, node), (self.service, service)].into_iter().all(|(out, text)| {
            // SAFETY: the client keeps the strings until the request completes.
            out.is_null() || unsafe { text::write(out, text) }
        })
    }
}

/// `WskGetNameInfo`.
///
/// # Safety
/// As `PFN_WSK_GET_NAME_INFO`: the client is captured, address and strings stay valid until the request
/// completes, and the caller gives up the IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_get_name_info(
    client: PWSK_CLIENT,
    address: PSOCKADDR,
    length: u32,
    node: PUNICODE_STRING,
    service: PUNICODE_STRING,
    flags: u32,
    owning_process: PEPROCESS,
    owning_thread: PETHREAD,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes its own handle and gives up the IRP.
    let (call, mut request) = match unsafe { ClientCall::begin("WskGetNameInfo", client, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    check_level(&call);
    if !check_owner(&call, owning_process, owning_thread) {
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    let too_long = length as usize > size_of::<SOCKADDR_STORAGE>();
    if too_long || (node.is_null() && service.is_null()) {
        provider.violation("NAME-09", call.name, "SockAddrLength is too large, or both outputs are missing");
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    request.needs(address, Purpose::NameQuery);
    for string in [node, service] {
        // SAFETY: the client passes whole strings.
        unsafe { borrow_string(&mut request, string) };
    }
    let address = if (length as usize) < size_of::<ADDRESS_FAMILY>() { ptr::null_mut() } else { address };
    // SAFETY: the client passes an address.
    let family = unsafe { provider.family_of(call.name, address) };
    let family = family.filter(|family| family.size() <= length as usize);
    // SAFETY: the client passes an address.
    let known = family.and_then(|family| unsafe { provider.read_address(call.name, address, family) });
    let Some(address) = known else { return request.fail(provider, STATUS_INVALID_PARAMETER) };
    let question = Question::Names { address, flags, node: !node.is_null() };
    let outputs = Outputs { node, service };
    ask(&call, request, question, move |client, answer| {
        let Answer::Names { node, service } = answer else { return unknown(client) };
        if outputs.write(&node, &service) { STATUS_SUCCESS } else { STATUS_BUFFER_TOO_SMALL }
    })
}
