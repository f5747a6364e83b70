//! `WskSocket`.

use std::ffi::c_void;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS, PEPROCESS, PETHREAD, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    ADDRESS_FAMILY, IPPROTO_TCP, IPPROTO_UDP, PWSK_CLIENT, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM,
    STATUS_DEVICE_NOT_READY, STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED,
    STATUS_PROTOCOL_NOT_SUPPORTED, STATUS_SUCCESS, WSK_CLIENT_STREAM_DISPATCH, WSK_FLAG_CONNECTION_SOCKET,
    WSK_FLAG_DATAGRAM_SOCKET, WSK_FLAG_LISTEN_SOCKET, WSK_FLAG_STREAM_SOCKET,
};

use super::{Client, ClientCall, check_callbacks, check_context, check_table};
use crate::address::Family;
use crate::behaviours::CategoryBits;
use crate::config::Release;
use crate::connection::Connection;
use crate::datagram::Datagram;
use crate::host::FaultPoint;
use crate::listen::Listener;
use crate::provider::Inner;
use crate::socket::{Category, Context, Options, Role, Socket, SocketParams, Tables};
use crate::stream::StreamSocket;

/// `WskSocket`.
///
/// # Safety
/// As `PFN_WSK_SOCKET`: the client is captured, the table is the category's, and the caller gives up the IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_socket(
    client: PWSK_CLIENT,
    address_family: ADDRESS_FAMILY,
    socket_type: u16,
    protocol: u32,
    flags: u32,
    context: *mut c_void,
    dispatch: *const c_void,
    _owning_process: PEPROCESS,
    _owning_thread: PETHREAD,
    descriptor: PSECURITY_DESCRIPTOR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes its own handle and gives up the IRP.
    let (call, mut request) = match unsafe { ClientCall::begin("WskSocket", client, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    // SAFETY: the client passes the table of the category it asks for.
    let wish = unsafe {
        Wish::check(&call, address_family, socket_type, protocol, flags, context, dispatch, descriptor)
    };
    if let Ok(wish) = &wish {
        request.makes(wish.category);
        request.needs_descriptor(descriptor);
    }
    match wish.and_then(|wish| wish.grant(&call)) {
        Ok(socket) => request.finish_pended(&*call, STATUS_SUCCESS, socket.raw() as usize),
        Err(STATUS_INSUFFICIENT_RESOURCES) => request.finish_pended(&*call, STATUS_INSUFFICIENT_RESOURCES, 0),
        Err(status) => request.fail(provider, status),
    }
}

/// Checked arguments of `WskSocket`.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) category: Category,
    pub(super) family: Family,
    pub(super) socket_type: u16,
    pub(super) protocol: u32,
    pub(super) context: Context,
    pub(super) tables: Tables,
    pub(super) descriptor: PSECURITY_DESCRIPTOR,
}

/// Returns the category that the flags of `WskSocket` select.
fn category_of(provider: &Inner, call: &'static str, flags: u32) -> Result<Category, NTSTATUS> {
    const KNOWN: u32 = WSK_FLAG_LISTEN_SOCKET
        | WSK_FLAG_CONNECTION_SOCKET
        | WSK_FLAG_DATAGRAM_SOCKET
        | WSK_FLAG_STREAM_SOCKET;
    if flags & !KNOWN != 0 {
        provider.violation("SOCK-07", call, &format!("Flags {flags:#x} has unknown category bits"));
        return Err(STATUS_INVALID_PARAMETER);
    }
    if flags.count_ones() > 1 {
        provider.violation("SOCK-07", call, &format!("Flags {flags:#x} has more than one category"));
        if provider.live_config.behaviours().category_bits == CategoryBits::Refused {
            return Err(STATUS_INVALID_PARAMETER);
        }
    }
    match flags & flags.wrapping_neg() {
        0 => Ok(Category::Basic),
        WSK_FLAG_LISTEN_SOCKET => Ok(Category::Listen),
        WSK_FLAG_CONNECTION_SOCKET => Ok(Category::Connection),
        WSK_FLAG_DATAGRAM_SOCKET => Ok(Category::Datagram),
        _ if provider.live_config.has(Release::Redstone2) => Ok(Category::Stream),
        _ => Err(STATUS_NOT_SUPPORTED),
    }
}

/// Returns whether the category supports the transport (SOCK-09 to SOCK-11).
fn pair_exists(category: Category, socket_type: u16, protocol: u32) -> bool {
    let tcp = socket_type == SOCK_STREAM && protocol == IPPROTO_TCP;
    let udp = socket_type == SOCK_DGRAM && protocol == IPPROTO_UDP;
    let raw = socket_type == SOCK_RAW && protocol <= 255;
    match category {
        Category::Basic => tcp || udp || raw,
        // A datagram listener can be created; only its bind fails (SOCK-10).
        Category::Listen => tcp || udp,
        Category::Connection | Category::Stream => tcp,
        Category::Datagram => udp || raw,
    }
}

impl Wish {
    /// Checks the arguments of `WskSocket`.
    ///
    /// # Safety
    /// `dispatch` is null or the table of the category.
    #[allow(clippy::too_many_arguments)]
    unsafe fn check(
        call: &ClientCall,
        address_family: ADDRESS_FAMILY,
        socket_type: u16,
        protocol: u32,
        flags: u32,
        context: *mut c_void,
        dispatch: *const c_void,
        descriptor: PSECURITY_DESCRIPTOR,
    ) -> Result<Self, NTSTATUS> {
        let provider = call.provider();
        let category = category_of(provider, call.name, flags)?;
        let family = Family::from_number(address_family).ok_or(STATUS_PROTOCOL_NOT_SUPPORTED)?;
        if !pair_exists(category, socket_type, protocol) {
            return Err(provider.live_config.behaviours().no_such_pair.status());
        }
        let mut tables = Tables::default();
        match category {
            Category::Basic if !dispatch.is_null() => {
                provider.violation("SOCK-04", call.name, "a dispatch table is passed for a basic socket");
            }
            Category::Basic => {}
            Category::Listen => {
                tables.listen = dispatch.cast();
                check_callbacks(provider, "SOCK-03", call.name, tables.listen);
            }
            Category::Connection => {
                tables.connection = dispatch.cast();
                check_callbacks(provider, "SOCK-03", call.name, tables.connection);
            }
            Category::Datagram => {
                tables.datagram = dispatch.cast();
                check_callbacks(provider, "SOCK-03", call.name, tables.datagram);
            }
            Category::Stream if dispatch.is_null() => {}
            Category::Stream => {
                let pair = dispatch.cast::<WSK_CLIENT_STREAM_DISPATCH>();
                check_table(provider, "SOCK-03", call.name, pair);
                // SAFETY: the caller passes the table of the category.
                let pair = unsafe { pair.read() };
                tables.listen = pair.Listen;
                tables.connection = pair.Connect;
                check_callbacks(provider, "STRM-02", call.name, tables.listen);
                check_callbacks(provider, "STRM-02", call.name, tables.connection);
            }
        }
        check_context(provider, "SOCK-06", call.name, context.cast::<u8>().cast_const());
        check_descriptor(provider, call.name, descriptor)?;
        Ok(Self { category, family, socket_type, protocol, context: Context(context), tables, descriptor })
    }

    /// Creates the socket.
    pub(super) fn grant(self, client: &Arc<Client>) -> Result<Arc<Socket>, NTSTATUS> {
        let provider = client.provider();
        if !provider.registrar.has_arrived() {
            return Err(STATUS_DEVICE_NOT_READY);
        }
        if provider.injects(FaultPoint::AllocationFails) {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        let part = match self.category {
            Category::Basic => Role::Basic,
            Category::Listen => Role::Listen(Box::new(Listener::new())),
            Category::Connection => {
                Role::Connection(Box::new(Connection::new(&provider.live_config.config())))
            }
            Category::Datagram => Role::Datagram(Box::new(Datagram::new(&provider.live_config.config()))),
            Category::Stream => Role::Stream(Box::new(StreamSocket::new())),
        };
        let statics = {
            let mut state = client.lock();
            state.has_made_sockets = true;
            state.statics.unwrap_or_default()
        };
        let socket = Socket::create(
            client,
            SocketParams {
                category: self.category,
                family: self.family,
                socket_type: self.socket_type,
                protocol: self.protocol,
                accepted: false,
                context: self.context,
                tables: self.tables,
                options: Options::with(self.descriptor),
                inspection: None,
                role: part,
            },
        );
        socket.lock().events.fix(self.category, statics);
        Ok(socket)
    }
}

/// Checks a security descriptor given for a socket (SOCK-15).
pub(super) fn check_descriptor(
    provider: &Inner,
    call: &'static str,
    descriptor: PSECURITY_DESCRIPTOR,
) -> Result<(), NTSTATUS> {
    if provider.descriptors.rights(descriptor).is_some() {
        return Ok(());
    }
    provider.violation("SOCK-15", call, "the security descriptor was not cached with WSK_CACHE_SD");
    Err(STATUS_INVALID_PARAMETER)
}
