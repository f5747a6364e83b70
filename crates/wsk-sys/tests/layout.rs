//! Layouts, signatures and short tables. The compile-time assertions of the crate cover every offset; these
//! tests name the rules and check at run time what an assertion cannot.
#![allow(missing_docs, clippy::cast_possible_truncation)]

use core::ffi::c_void;
use core::mem::offset_of;

use wsk_sys::nt::{GUID, IO_STATUS_BLOCK, IRP, NTSTATUS};
use wsk_sys::*;

/// The number for the target's pointer width.
const fn at(wide: usize, narrow: usize) -> usize {
    if cfg!(target_pointer_width = "64") { wide } else { narrow }
}

/// The size of a type, and its alignment.
const fn shape<T>() -> (usize, usize) {
    (size_of::<T>(), align_of::<T>())
}

/// Shows: LAY-01
#[test]
fn listen_callbacks() {
    assert_eq!(size_of::<WSK_CLIENT_LISTEN_DISPATCH>(), at(24, 12));
    assert_eq!(offset_of!(WSK_CLIENT_LISTEN_DISPATCH, WskAcceptEvent), 0);
    assert_eq!(offset_of!(WSK_CLIENT_LISTEN_DISPATCH, WskInspectEvent), at(8, 4));
    assert_eq!(offset_of!(WSK_CLIENT_LISTEN_DISPATCH, WskAbortEvent), at(16, 8));
    let none =
        WSK_CLIENT_LISTEN_DISPATCH { WskAcceptEvent: None, WskInspectEvent: None, WskAbortEvent: None };
    // SAFETY: both sides are plain data of one size, and `None` is a null pointer.
    let words: [usize; 3] = unsafe { core::mem::transmute(none) };
    assert_eq!(words, [0; 3]);
}

/// Shows: LAY-02
#[test]
fn connection_callbacks() {
    assert_eq!(size_of::<WSK_CLIENT_CONNECTION_DISPATCH>(), at(24, 12));
    assert_eq!(offset_of!(WSK_CLIENT_CONNECTION_DISPATCH, WskReceiveEvent), 0);
    assert_eq!(offset_of!(WSK_CLIENT_CONNECTION_DISPATCH, WskDisconnectEvent), at(8, 4));
    assert_eq!(offset_of!(WSK_CLIENT_CONNECTION_DISPATCH, WskSendBacklogEvent), at(16, 8));
    let none = WSK_CLIENT_CONNECTION_DISPATCH {
        WskReceiveEvent: None,
        WskDisconnectEvent: None,
        WskSendBacklogEvent: None,
    };
    // SAFETY: both sides are plain data of one size, and `None` is a null pointer.
    let words: [usize; 3] = unsafe { core::mem::transmute(none) };
    assert_eq!(words, [0; 3]);
}

/// Shows: LAY-03
#[test]
fn remaining_client_tables() {
    assert_eq!(size_of::<WSK_CLIENT_DISPATCH>(), at(16, 8));
    assert_eq!(offset_of!(WSK_CLIENT_DISPATCH, WskClientEvent), at(8, 4));
    assert_eq!(size_of::<WSK_CLIENT_DATAGRAM_DISPATCH>(), at(8, 4));
    assert_eq!(size_of::<WSK_CLIENT_STREAM_DISPATCH>(), at(16, 8));
}

unsafe extern "system" fn abort(_context: *mut c_void, _id: *mut WSK_INSPECT_ID) -> i32 {
    STATUS_SUCCESS
}

unsafe extern "system" fn inspect(
    _context: *mut c_void,
    _local: *mut SOCKADDR,
    _remote: *mut SOCKADDR,
    _id: *mut WSK_INSPECT_ID,
) -> WSK_INSPECT_ACTION {
    WskInspectReject
}

unsafe extern "system" fn accept(
    _socket: *mut WSK_SOCKET,
    _flags: u32,
    _context: *mut c_void,
    _dispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    _local: *mut SOCKADDR,
    _remote: *mut SOCKADDR,
    _irp: *mut IRP,
) -> i32 {
    STATUS_PENDING
}

unsafe extern "system" fn disconnect(_context: *mut c_void, flags: u32) -> i32 {
    flags as i32
}

/// Shows: LAY-04
#[test]
fn abort_event_signature() {
    let _: PFN_WSK_ABORT_EVENT = abort;
}

/// Shows: LAY-05
#[test]
fn inspect_event_signature() {
    let _: PFN_WSK_INSPECT_EVENT = inspect;
}

/// Shows: LAY-06
#[test]
fn accept_signature() {
    let _: PFN_WSK_ACCEPT = accept;
}

/// Shows: LAY-07
#[test]
fn disconnect_event_signature() {
    let _: PFN_WSK_DISCONNECT_EVENT = disconnect;
}

/// The type alias `$alias` is the function type spelt out after it.
macro_rules! same_function_type {
    ($($alias:ty = fn($($parameter:ty),* $(,)?) $(-> $result:ty)?;)*) => { $(
        let _: fn($alias) -> unsafe extern "system" fn($($parameter),*) $(-> $result)? = |function| function;
    )* };
}

/// Shows: LAY-08
#[test]
fn all_other_signatures() {
    type P = *mut c_void;
    type C = *const c_void;
    type Address = *mut SOCKADDR;
    type Socket = *mut WSK_SOCKET;
    type Buffer = *mut WSK_BUF;
    type Irp = *mut IRP;
    type Text = *mut UNICODE_STRING;
    type Info = *mut ADDRINFOEXW;
    type Connection = *const WSK_CLIENT_CONNECTION_DISPATCH;
    type Size = *mut usize;
    type Ulong = *mut u32;
    type Message = *mut CMSGHDR;
    type Id = *mut WSK_INSPECT_ID;
    same_function_type! {
        PFN_WSK_SOCKET = fn(P, u16, u16, u32, u32, P, C, P, P, P, Irp) -> i32;
        PFN_WSK_SOCKET_CONNECT = fn(P, u16, u32, Address, Address, u32, P, Connection, P, P, P, Irp) -> i32;
        PFN_WSK_CONTROL_CLIENT = fn(P, u32, usize, P, usize, P, Size, Irp) -> i32;
        PFN_WSK_GET_ADDRESS_INFO = fn(P, Text, Text, u32, *mut GUID, Info, *mut Info, P, P, Irp) -> i32;
        PFN_WSK_FREE_ADDRESS_INFO = fn(P, Info);
        PFN_WSK_GET_NAME_INFO = fn(P, Address, u32, Text, Text, u32, P, P, Irp) -> i32;
        PFN_WSK_CONTROL_SOCKET =
            fn(Socket, WSK_CONTROL_SOCKET_TYPE, u32, u32, usize, P, usize, P, Size, Irp) -> i32;
        PFN_WSK_CLOSE_SOCKET = fn(Socket, Irp) -> i32;
        PFN_WSK_BIND = fn(Socket, Address, u32, Irp) -> i32;
        PFN_WSK_CONNECT = fn(Socket, Address, u32, Irp) -> i32;
        PFN_WSK_CONNECT_EX = fn(Socket, Address, Buffer, u32, Irp) -> i32;
        PFN_WSK_LISTEN = fn(Socket, Irp) -> i32;
        PFN_WSK_INSPECT_COMPLETE = fn(Socket, Id, WSK_INSPECT_ACTION, Irp) -> i32;
        PFN_WSK_GET_LOCAL_ADDRESS = fn(Socket, Address, Irp) -> i32;
        PFN_WSK_GET_REMOTE_ADDRESS = fn(Socket, Address, Irp) -> i32;
        PFN_WSK_SEND = fn(Socket, Buffer, u32, Irp) -> i32;
        PFN_WSK_SEND_EX = fn(Socket, Buffer, u32, u32, Message, Irp) -> i32;
        PFN_WSK_RECEIVE = fn(Socket, Buffer, u32, Irp) -> i32;
        PFN_WSK_RECEIVE_EX = fn(Socket, Buffer, u32, Ulong, Message, Ulong, Irp) -> i32;
        PFN_WSK_DISCONNECT = fn(Socket, Buffer, u32, Irp) -> i32;
        PFN_WSK_RELEASE_DATA_INDICATION_LIST = fn(Socket, *mut WSK_DATA_INDICATION) -> i32;
        PFN_WSK_SEND_TO = fn(Socket, Buffer, u32, Address, u32, Message, Irp) -> i32;
        PFN_WSK_SEND_MESSAGES = fn(Socket, *mut WSK_BUF_LIST, u32, Address, u32, Message, Irp) -> i32;
        PFN_WSK_RECEIVE_FROM = fn(Socket, Buffer, u32, Address, Ulong, Message, Ulong, Irp) -> i32;
        PFN_WSK_RELEASE_DATAGRAM_INDICATION_LIST = fn(Socket, *mut WSK_DATAGRAM_INDICATION) -> i32;
        PFN_WSK_NDK_OPEN_ADAPTER = fn(P, NDK_VERSION, u32, *mut P) -> i32;
        PFN_WSK_NDK_CLOSE_ADAPTER = fn(P, P);
        PFN_WSK_CLIENT_EVENT = fn(P, u32, P, usize) -> i32;
        PFN_WSK_ACCEPT_EVENT = fn(P, u32, Address, Address, Socket, *mut P, *mut Connection) -> i32;
        PFN_WSK_RECEIVE_FROM_EVENT = fn(P, u32, *mut WSK_DATAGRAM_INDICATION) -> i32;
        PFN_WSK_RECEIVE_EVENT = fn(P, u32, *mut WSK_DATA_INDICATION, usize, Size) -> i32;
        PFN_WSK_RECEIVE_EX_EVENT =
            fn(P, u32, *mut WSK_DATA_INDICATION, Message, u32, usize, Size) -> i32;
        PFN_WSK_SEND_BACKLOG_EVENT = fn(P, usize) -> i32;
    }
}

/// Shows: LAY-09, LAY-10, LAY-11
#[test]
fn the_five_items_carry_no_gate() {
    // The tables hold them as plain members and the option is a plain constant: nothing to ask for first.
    let listen = WSK_CLIENT_LISTEN_DISPATCH {
        WskAcceptEvent: None,
        WskInspectEvent: Some(inspect),
        WskAbortEvent: Some(abort),
    };
    let connection = WSK_CLIENT_CONNECTION_DISPATCH {
        WskReceiveEvent: None,
        WskDisconnectEvent: Some(disconnect),
        WskSendBacklogEvent: None,
    };
    let _: Option<PFN_WSK_ACCEPT> = WSK_PROVIDER_LISTEN_DISPATCH {
        Basic: WSK_PROVIDER_BASIC_DISPATCH { WskControlSocket: None, WskCloseSocket: None },
        WskBind: None,
        WskAccept: Some(accept),
        WskInspectComplete: None,
        WskGetLocalAddress: None,
    }
    .WskAccept;
    assert!(listen.WskInspectEvent.is_some() && listen.WskAbortEvent.is_some());
    assert!(connection.WskDisconnectEvent.is_some());
    assert_eq!(SO_WSK_EVENT_CALLBACK, 0x4002);
}

/// Shows: LAY-12
#[test]
fn accept_is_in_the_listen_and_in_the_stream_table() {
    assert_eq!(offset_of!(WSK_PROVIDER_LISTEN_DISPATCH, WskAccept), at(24, 12));
    assert_eq!(offset_of!(WSK_PROVIDER_STREAM_DISPATCH, WskAccept), at(24, 12));
}

/// Shows: LAY-13
#[test]
fn provider_tables() {
    assert_eq!(size_of::<WSK_PROVIDER_DISPATCH>(), at(56, 28));
    assert_eq!(size_of::<WSK_PROVIDER_BASIC_DISPATCH>(), at(16, 8));
    assert_eq!(size_of::<WSK_PROVIDER_LISTEN_DISPATCH>(), at(48, 24));
    assert_eq!(size_of::<WSK_PROVIDER_DATAGRAM_DISPATCH>(), at(64, 32));
    assert_eq!(size_of::<WSK_PROVIDER_CONNECTION_DISPATCH>(), at(104, 52));
    assert_eq!(size_of::<WSK_PROVIDER_STREAM_DISPATCH>(), at(120, 60));
    assert_eq!(offset_of!(WSK_PROVIDER_DISPATCH, WskGetAddressInfo), at(32, 16));
    assert_eq!(offset_of!(WSK_PROVIDER_DATAGRAM_DISPATCH, WskSendMessages), at(56, 28));
    assert_eq!(offset_of!(WSK_PROVIDER_CONNECTION_DISPATCH, WskConnectEx), at(80, 40));
    assert_eq!(offset_of!(WSK_PROVIDER_STREAM_DISPATCH, WskSendEx), at(104, 52));
}

/// Shows: LAY-14
#[test]
fn bindable_tables_share_three_members() {
    for bind in [
        offset_of!(WSK_PROVIDER_LISTEN_DISPATCH, WskBind),
        offset_of!(WSK_PROVIDER_DATAGRAM_DISPATCH, WskBind),
        offset_of!(WSK_PROVIDER_CONNECTION_DISPATCH, WskBind),
        offset_of!(WSK_PROVIDER_STREAM_DISPATCH, WskBind),
    ] {
        assert_eq!(bind, at(16, 8));
    }
    assert_eq!(offset_of!(WSK_PROVIDER_BASIC_DISPATCH, WskControlSocket), 0);
    assert_eq!(offset_of!(WSK_PROVIDER_BASIC_DISPATCH, WskCloseSocket), at(8, 4));
    // The fourth member is another one in each.
    assert_eq!(offset_of!(WSK_PROVIDER_DATAGRAM_DISPATCH, WskSendTo), at(24, 12));
    assert_eq!(offset_of!(WSK_PROVIDER_CONNECTION_DISPATCH, WskConnect), at(24, 12));
}

/// The words of a table as an old system has it, and nothing behind them: an accessor that read a missing
/// member would read outside the allocation.
fn short_table<T>(bytes: usize) -> (Box<[usize]>, *const T) {
    let words = vec![0_usize; bytes / size_of::<usize>()].into_boxed_slice();
    let table = words.as_ptr().cast();
    (words, table)
}

/// Shows: LAY-15
#[test]
fn members_that_an_older_system_lacks_are_not_read() {
    let (_vista, client) = short_table::<WSK_PROVIDER_DISPATCH>(at(32, 16));
    let (_win7, datagram) = short_table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(at(56, 28));
    let (_win81, connection) = short_table::<WSK_PROVIDER_CONNECTION_DISPATCH>(at(80, 40));
    let (_win1709, stream) = short_table::<WSK_PROVIDER_STREAM_DISPATCH>(at(104, 52));
    // SAFETY: a table of Windows Vista.
    assert!(unsafe { tail::get_address_info(client, OsBuild::VISTA) }.is_none());
    // SAFETY: a table of Windows Vista.
    assert!(unsafe { tail::free_address_info(client, OsBuild::VISTA) }.is_none());
    // SAFETY: a table of Windows Vista.
    assert!(unsafe { tail::get_name_info(client, OsBuild::VISTA) }.is_none());
    // SAFETY: a table of Windows 7.
    assert!(unsafe { tail::send_messages(datagram, OsBuild::WIN7) }.is_none());
    // SAFETY: a table of Windows 8.1.
    assert!(unsafe { tail::connect_ex(connection, OsBuild(9600)) }.is_none());
    // SAFETY: a table of Windows 8.1.
    assert!(unsafe { tail::send_ex(connection, OsBuild(9600)) }.is_none());
    // SAFETY: a table of Windows 8.1.
    assert!(unsafe { tail::receive_ex(connection, OsBuild(9600)) }.is_none());
    // SAFETY: a table of Windows 10 1709.
    assert!(unsafe { tail::stream_send_ex(stream, OsBuild(16299)) }.is_none());
    // SAFETY: a table of Windows 10 1709.
    assert!(unsafe { tail::stream_receive_ex(stream, OsBuild(16299)) }.is_none());
}

unsafe extern "system" fn connect_ex(
    _socket: PWSK_SOCKET,
    _address: PSOCKADDR,
    _buffer: PWSK_BUF,
    _flags: u32,
    _irp: PIRP,
) -> NTSTATUS {
    STATUS_NOT_SUPPORTED
}

/// Shows: LAY-15
#[test]
fn members_that_the_system_has_are_found() {
    // The table of 1703: up to and including WskConnectEx.
    let (mut words, _) = short_table::<WSK_PROVIDER_CONNECTION_DISPATCH>(at(88, 44));
    words[10] = connect_ex as PFN_WSK_CONNECT_EX as usize;
    let table = words.as_ptr().cast();
    // SAFETY: a table of Windows 10 1703.
    let found = unsafe { tail::connect_ex(table, OsBuild::WIN10_1703) };
    assert_eq!(found.map(|found| found as usize), Some(words[10]));
    // SAFETY: a table of Windows 10 1703.
    assert!(unsafe { tail::send_ex(table, OsBuild::WIN10_1703) }.is_none());
}

/// Shows: LAY-16
#[test]
fn inspect_id_is_compared_by_its_fields() {
    assert_eq!(size_of::<WSK_INSPECT_ID>(), at(16, 8));
    assert_eq!(offset_of!(WSK_INSPECT_ID, SerialNumber), at(8, 4));
    let mut left = [0xAA_u8; size_of::<WSK_INSPECT_ID>()];
    let mut right = [0x55_u8; size_of::<WSK_INSPECT_ID>()];
    for bytes in [&mut left, &mut right] {
        bytes[..at(8, 4)].copy_from_slice(&7_usize.to_ne_bytes());
        bytes[at(8, 4)..at(12, 8)].copy_from_slice(&9_u32.to_ne_bytes());
    }
    // SAFETY: every bit pattern is an identifier.
    let left: WSK_INSPECT_ID = unsafe { left.as_ptr().cast::<WSK_INSPECT_ID>().read_unaligned() };
    // SAFETY: every bit pattern is an identifier.
    let right: WSK_INSPECT_ID = unsafe { right.as_ptr().cast::<WSK_INSPECT_ID>().read_unaligned() };
    assert_eq!(left, right, "padding does not count");
    assert_ne!(left, WSK_INSPECT_ID { SerialNumber: 10, ..right });
}

/// Shows: LAY-17
#[test]
fn event_callback_control() {
    assert_eq!(size_of::<WSK_EVENT_CALLBACK_CONTROL>(), at(16, 8));
    assert_eq!(offset_of!(WSK_EVENT_CALLBACK_CONTROL, NpiId), 0);
    assert_eq!(offset_of!(WSK_EVENT_CALLBACK_CONTROL, EventMask), at(8, 4));
}

/// Shows: LAY-18
#[test]
fn buffers_and_indications() {
    assert_eq!(size_of::<WSK_BUF>(), at(24, 12));
    assert_eq!(size_of::<WSK_BUF_LIST>(), at(32, 16));
    assert_eq!(size_of::<WSK_DATA_INDICATION>(), at(32, 16));
    assert_eq!(size_of::<WSK_DATAGRAM_INDICATION>(), at(56, 28));
}

/// Shows: LAY-19
#[test]
fn registration() {
    assert_eq!(shape::<WSK_REGISTRATION>(), (at(24, 16), 8));
    assert_eq!(offset_of!(WSK_REGISTRATION, ReservedRegistrationLock), at(16, 12));
}

/// Shows: LAY-20
#[test]
fn transport_is_28_bytes_also_in_an_array() {
    assert_eq!(shape::<WSK_TRANSPORT>(), (28, 4));
    assert_eq!(size_of::<[WSK_TRANSPORT; 3]>(), 84);
    assert_eq!(offset_of!(WSK_TRANSPORT, ProviderId), 12);
}

/// Shows: LAY-21
#[test]
fn remaining_structures() {
    let pointer = size_of::<usize>();
    assert_eq!(shape::<WSK_PROVIDER_CHARACTERISTICS>(), (4, 2));
    assert_eq!(shape::<WSK_CLIENT_NPI>(), (2 * pointer, pointer));
    assert_eq!(shape::<WSK_PROVIDER_NPI>(), (2 * pointer, pointer));
    assert_eq!(shape::<WSK_EXTENSION_CONTROL_IN>(), (3 * pointer, pointer));
    assert_eq!(shape::<WSK_EXTENSION_CONTROL_OUT>(), (2 * pointer, pointer));
    assert_eq!(shape::<WSK_TDI_MAP>(), (at(16, 12), pointer));
    assert_eq!(shape::<WSK_TDI_MAP_INFO>(), (2 * pointer, pointer));
    assert_eq!(shape::<WSK_SOCKET>(), (pointer, pointer));
    assert_eq!(shape::<PWSK_CLIENT>(), (pointer, pointer));
    assert_eq!(shape::<WSK_PROVIDER_NDK_DISPATCH>(), (2 * pointer, pointer));
}

/// Shows: LAY-22
#[test]
fn support_structures() {
    assert_eq!(shape::<SOCKADDR>(), (16, 2));
    assert_eq!(shape::<SOCKADDR_IN>(), (16, 4));
    assert_eq!(shape::<SOCKADDR_IN6>(), (28, 4));
    assert_eq!(shape::<SOCKADDR_STORAGE>(), (128, 8));
    assert_eq!(size_of::<SOCKET_ADDRESS>(), at(16, 8));
    assert_eq!(size_of::<SOCKET_ADDRESS_LIST>(), at(24, 12));
    assert_eq!(size_of::<CMSGHDR>(), at(16, 12));
    assert_eq!(size_of::<UNICODE_STRING>(), at(16, 8));
    assert_eq!(size_of::<ADDRINFOEXW>(), at(72, 44));
    assert_eq!(size_of::<IO_STATUS_BLOCK>(), at(16, 8));
    assert_eq!(size_of::<NPI_REGISTRATION_INSTANCE>(), at(40, 20));
    assert_eq!(size_of::<NPI_CLIENT_CHARACTERISTICS>(), at(72, 36));
    assert_eq!(shape::<NPI_MODULEID>(), (24, 4));
}

/// Shows: LAY-22
#[test]
fn addresses_are_in_network_order() {
    let v4 = SOCKADDR_IN::new([127, 0, 0, 1], 0x1234);
    // SAFETY: both sides are plain data of one size without padding.
    let bytes: [u8; 16] = unsafe { core::mem::transmute(v4) };
    assert_eq!(bytes[..2], AF_INET.to_ne_bytes());
    assert_eq!(bytes[2..8], [0x12, 0x34, 127, 0, 0, 1]);
    let v6 = SOCKADDR_IN6::new([1; 16], 0x1234);
    assert_eq!((v6.sin6_family, v6.sin6_port.to_ne_bytes()), (AF_INET6, [0x12, 0x34]));
}

/// Shows: LAY-24
#[cfg(target_pointer_width = "64")]
#[test]
fn irp_facts() {
    use wsk_sys::nt::{IO_STACK_LOCATION, KEVENT, MDL, io_size_of_irp};
    assert_eq!(size_of::<IRP>(), 0xD0);
    assert_eq!(size_of::<IO_STACK_LOCATION>(), 0x48);
    assert_eq!(io_size_of_irp(1), 0x118);
    assert_eq!(size_of::<MDL>(), 0x30);
    assert_eq!(size_of::<KEVENT>(), 0x18);
    assert_eq!(offset_of!(IRP, PendingReturned), 0x41);
    assert_eq!(offset_of!(IRP, Tail), 0x78);
}

/// Shows: LAY-40
#[test]
fn output_size_returned_is_pointer_sized() {
    // Both control functions take `*mut usize` there; a `*mut u32` does not compile.
    let _: fn(PFN_WSK_CONTROL_CLIENT, *mut usize) = |call, returned| {
        let _ = move |client, irp| {
            // SAFETY: never called; only the types matter.
            unsafe { call(client, 0, 0, core::ptr::null_mut(), 0, core::ptr::null_mut(), returned, irp) }
        };
    };
    assert_eq!(size_of::<usize>(), at(8, 4));
}
