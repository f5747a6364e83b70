//! The tables of provider functions.
//!
//! Tables grew only at their end, without a change of their version number. For an older Windows release the
//! later members of a table only report the call (LAY-15): the real table ends before them, and the memory
//! behind it is undefined.

mod beyond;
pub(crate) mod decoy;

use std::ffi::c_void;
use std::ptr;

use wsk_sys::{
    WSK_PROVIDER_BASIC_DISPATCH, WSK_PROVIDER_CONNECTION_DISPATCH, WSK_PROVIDER_DATAGRAM_DISPATCH,
    WSK_PROVIDER_DISPATCH, WSK_PROVIDER_LISTEN_DISPATCH, WSK_PROVIDER_STREAM_DISPATCH,
};

use crate::config::Release;
use crate::control::wsk_control_socket;
use crate::live_config::LiveConfig;
use crate::socket::{Category, wsk_bind, wsk_close_socket, wsk_get_local_address};
use crate::{client, connection, datagram, listen, stream};

static BASIC: WSK_PROVIDER_BASIC_DISPATCH = WSK_PROVIDER_BASIC_DISPATCH {
    WskControlSocket: Some(wsk_control_socket),
    WskCloseSocket: Some(wsk_close_socket),
};

static LISTEN: WSK_PROVIDER_LISTEN_DISPATCH = WSK_PROVIDER_LISTEN_DISPATCH {
    Basic: BASIC,
    WskBind: Some(wsk_bind),
    WskAccept: Some(listen::wsk_accept),
    WskInspectComplete: Some(listen::wsk_inspect_complete),
    WskGetLocalAddress: Some(wsk_get_local_address),
};

static DATAGRAM: WSK_PROVIDER_DATAGRAM_DISPATCH = WSK_PROVIDER_DATAGRAM_DISPATCH {
    Basic: BASIC,
    WskBind: Some(wsk_bind),
    WskSendTo: Some(datagram::wsk_send_to),
    WskReceiveFrom: Some(datagram::wsk_receive_from),
    WskRelease: Some(datagram::wsk_release),
    WskGetLocalAddress: Some(wsk_get_local_address),
    WskSendMessages: Some(datagram::wsk_send_messages),
};

static DATAGRAM_BEFORE_WINDOWS_8: WSK_PROVIDER_DATAGRAM_DISPATCH =
    WSK_PROVIDER_DATAGRAM_DISPATCH { WskSendMessages: Some(beyond::send_messages), ..DATAGRAM };

static CONNECTION: WSK_PROVIDER_CONNECTION_DISPATCH = WSK_PROVIDER_CONNECTION_DISPATCH {
    Basic: BASIC,
    WskBind: Some(wsk_bind),
    WskConnect: Some(connection::wsk_connect),
    WskGetLocalAddress: Some(wsk_get_local_address),
    WskGetRemoteAddress: Some(connection::wsk_get_remote_address),
    WskSend: Some(connection::wsk_send),
    WskReceive: Some(connection::wsk_receive),
    WskDisconnect: Some(connection::wsk_disconnect),
    WskRelease: Some(connection::wsk_release),
    WskConnectEx: Some(connection::wsk_connect_ex),
    WskSendEx: Some(connection::wsk_send_ex),
    WskReceiveEx: Some(connection::wsk_receive_ex),
};

static CONNECTION_BEFORE_1803: WSK_PROVIDER_CONNECTION_DISPATCH = WSK_PROVIDER_CONNECTION_DISPATCH {
    WskSendEx: Some(beyond::send_ex),
    WskReceiveEx: Some(beyond::receive_ex),
    ..CONNECTION
};

static CONNECTION_BEFORE_1703: WSK_PROVIDER_CONNECTION_DISPATCH =
    WSK_PROVIDER_CONNECTION_DISPATCH { WskConnectEx: Some(beyond::connect_ex), ..CONNECTION_BEFORE_1803 };

static STREAM: WSK_PROVIDER_STREAM_DISPATCH = WSK_PROVIDER_STREAM_DISPATCH {
    Basic: BASIC,
    WskBind: Some(wsk_bind),
    WskAccept: Some(listen::wsk_accept),
    WskConnect: Some(connection::wsk_connect),
    WskListen: Some(stream::wsk_listen),
    WskSend: Some(connection::wsk_send),
    WskReceive: Some(connection::wsk_receive),
    WskDisconnect: Some(connection::wsk_disconnect),
    WskRelease: Some(connection::wsk_release),
    WskGetLocalAddress: Some(wsk_get_local_address),
    WskGetRemoteAddress: Some(connection::wsk_get_remote_address),
    WskConnectEx: Some(connection::wsk_connect_ex),
    WskSendEx: Some(connection::wsk_send_ex),
    WskReceiveEx: Some(connection::wsk_receive_ex),
};

static STREAM_BEFORE_1803: WSK_PROVIDER_STREAM_DISPATCH = WSK_PROVIDER_STREAM_DISPATCH {
    WskSendEx: Some(beyond::send_ex),
    WskReceiveEx: Some(beyond::receive_ex),
    ..STREAM
};

/// The table of a socket's category.
pub(crate) fn table_of(category: Category, live_config: &LiveConfig) -> *const c_void {
    let release = live_config.get(|config| config.release);
    match category {
        Category::Basic => ptr::from_ref(&BASIC).cast(),
        Category::Listen => ptr::from_ref(&LISTEN).cast(),
        Category::Datagram if release < Release::Windows8 => ptr::from_ref(&DATAGRAM_BEFORE_WINDOWS_8).cast(),
        Category::Datagram => ptr::from_ref(&DATAGRAM).cast(),
        Category::Connection if release < Release::Redstone2 => ptr::from_ref(&CONNECTION_BEFORE_1703).cast(),
        Category::Connection if release < Release::Redstone4 => ptr::from_ref(&CONNECTION_BEFORE_1803).cast(),
        Category::Connection => ptr::from_ref(&CONNECTION).cast(),
        Category::Stream if release < Release::Redstone4 => ptr::from_ref(&STREAM_BEFORE_1803).cast(),
        Category::Stream => ptr::from_ref(&STREAM).cast(),
    }
}

const fn client_dispatch(version: u16) -> WSK_PROVIDER_DISPATCH {
    WSK_PROVIDER_DISPATCH {
        Version: version,
        Reserved: 0,
        WskSocket: Some(client::wsk_socket),
        WskSocketConnect: Some(client::wsk_socket_connect),
        WskControlClient: Some(client::wsk_control_client),
        WskGetAddressInfo: Some(client::wsk_get_address_info),
        WskFreeAddressInfo: Some(client::wsk_free_address_info),
        WskGetNameInfo: Some(client::wsk_get_name_info),
    }
}

/// Version 1.0.
static CLIENT_1_0: WSK_PROVIDER_DISPATCH = client_dispatch(0x0100);
/// A minor version that was never published, as an example of a later one, which is a superset (REG-17).
static CLIENT_1_1: WSK_PROVIDER_DISPATCH = client_dispatch(0x0101);

/// Before Windows 7 the table ended with `WskControlClient`.
static CLIENT_BEFORE_WINDOWS_7: WSK_PROVIDER_DISPATCH = WSK_PROVIDER_DISPATCH {
    WskGetAddressInfo: Some(beyond::get_address_info),
    WskFreeAddressInfo: Some(beyond::free_address_info),
    WskGetNameInfo: Some(beyond::get_name_info),
    ..CLIENT_1_0
};

/// The table of client functions.
pub(crate) fn client_table(live_config: &LiveConfig) -> *const WSK_PROVIDER_DISPATCH {
    if !live_config.has(Release::Windows7) {
        &raw const CLIENT_BEFORE_WINDOWS_7
    } else if live_config.get(|config| config.highest_version) > 0x0100 {
        &raw const CLIENT_1_1
    } else {
        &raw const CLIENT_1_0
    }
}
