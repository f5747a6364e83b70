//! WSK's dispatch tables as types: one safe accessor for each function that a table always had.
//!
//! A table may be shorter than its type in `wsk-sys`, because members were added over time. So no reference
//! to a whole table is ever made; each accessor reads the one member.

use core::ffi::c_void;

use wsk_sys::{
    PFN_WSK_ACCEPT, PFN_WSK_BIND, PFN_WSK_CONTROL_CLIENT, PFN_WSK_CONTROL_SOCKET, PFN_WSK_DISCONNECT,
    PFN_WSK_GET_LOCAL_ADDRESS, PFN_WSK_INSPECT_COMPLETE, PFN_WSK_RECEIVE, PFN_WSK_RECEIVE_FROM,
    PFN_WSK_RELEASE_DATA_INDICATION_LIST, PFN_WSK_SEND, PFN_WSK_SEND_TO, PFN_WSK_SOCKET,
    PFN_WSK_SOCKET_CONNECT, WSK_PROVIDER_BASIC_DISPATCH, WSK_PROVIDER_CONNECTION_DISPATCH,
    WSK_PROVIDER_DATAGRAM_DISPATCH, WSK_PROVIDER_DISPATCH, WSK_PROVIDER_LISTEN_DISPATCH,
};

/// Dispatch table of a socket category, or of a client.
pub(crate) trait Table: Sized {
    /// The table at this address.
    ///
    /// # Safety
    /// The address is that of the dispatch table of a socket of this category, which is not closed while the
    /// value lives, or of a client, whose capture is not released.
    unsafe fn new(table: *const c_void) -> Self;
}

/// Dispatch table of a category of sockets that can be bound.
pub(crate) trait BindTable: Table {
    /// `WskControlSocket`, if WSK has it.
    fn control_socket(&self) -> Option<PFN_WSK_CONTROL_SOCKET>;
    /// `WskBind`, if WSK has it.
    fn bind(&self) -> Option<PFN_WSK_BIND>;
    /// `WskGetLocalAddress`, if WSK has it.
    fn local_address(&self) -> Option<PFN_WSK_GET_LOCAL_ADDRESS>;
}

/// Declares table types with their accessors.
macro_rules! tables {
    ($(
        $(#[$doc:meta])*
        $name:ident: $raw:ident { $($get:ident: $($member:ident).+ -> $function:ident,)+ }
    )+) => { $(
        $(#[$doc])*
        ///
        /// # Invariants
        /// It points to such a table of WSK's, in memory that is valid while this value lives.
        #[derive(Debug)]
        pub(crate) struct $name(*const $raw);

        impl Table for $name {
            unsafe fn new(table: *const c_void) -> Self {
                // INVARIANT: the caller names a table of this category, and keeps its socket.
                Self(table.cast())
            }
        }

        impl $name {
            $(
                #[doc = concat!("`", stringify!($($member).+), "`, if WSK has it.")]
                pub(crate) fn $get(&self) -> Option<$function> {
                    // SAFETY: by the invariant the table is there, and every version of it has this member.
                    unsafe { (*self.0).$($member).+ }
                }
            )+
        }
    )+ };
}

tables! {
    /// Functions of a client.
    ProviderTable: WSK_PROVIDER_DISPATCH {
        socket: WskSocket -> PFN_WSK_SOCKET,
        socket_connect: WskSocketConnect -> PFN_WSK_SOCKET_CONNECT,
        control_client: WskControlClient -> PFN_WSK_CONTROL_CLIENT,
    }
    /// Functions of every socket: each other table begins with this one (rule LAY-14).
    BasicTable: WSK_PROVIDER_BASIC_DISPATCH {
        control_socket: WskControlSocket -> PFN_WSK_CONTROL_SOCKET,
    }
    /// Functions of a listening socket.
    ListenTable: WSK_PROVIDER_LISTEN_DISPATCH {
        control_socket: Basic.WskControlSocket -> PFN_WSK_CONTROL_SOCKET,
        bind: WskBind -> PFN_WSK_BIND,
        accept: WskAccept -> PFN_WSK_ACCEPT,
        inspect_complete: WskInspectComplete -> PFN_WSK_INSPECT_COMPLETE,
        local_address: WskGetLocalAddress -> PFN_WSK_GET_LOCAL_ADDRESS,
    }
    /// Functions of a datagram socket.
    DatagramTable: WSK_PROVIDER_DATAGRAM_DISPATCH {
        control_socket: Basic.WskControlSocket -> PFN_WSK_CONTROL_SOCKET,
        bind: WskBind -> PFN_WSK_BIND,
        local_address: WskGetLocalAddress -> PFN_WSK_GET_LOCAL_ADDRESS,
        send_to: WskSendTo -> PFN_WSK_SEND_TO,
        receive_from: WskReceiveFrom -> PFN_WSK_RECEIVE_FROM,
    }
    /// Functions of a connection.
    ConnectionTable: WSK_PROVIDER_CONNECTION_DISPATCH {
        control_socket: Basic.WskControlSocket -> PFN_WSK_CONTROL_SOCKET,
        bind: WskBind -> PFN_WSK_BIND,
        local_address: WskGetLocalAddress -> PFN_WSK_GET_LOCAL_ADDRESS,
        send: WskSend -> PFN_WSK_SEND,
        receive: WskReceive -> PFN_WSK_RECEIVE,
        disconnect: WskDisconnect -> PFN_WSK_DISCONNECT,
        release: WskRelease -> PFN_WSK_RELEASE_DATA_INDICATION_LIST,
    }
}

macro_rules! bind_tables {
    ($($name:ident)+) => { $(
        impl BindTable for $name {
            fn control_socket(&self) -> Option<PFN_WSK_CONTROL_SOCKET> {
                Self::control_socket(self)
            }

            fn bind(&self) -> Option<PFN_WSK_BIND> {
                Self::bind(self)
            }

            fn local_address(&self) -> Option<PFN_WSK_GET_LOCAL_ADDRESS> {
                Self::local_address(self)
            }
        }
    )+ };
}

bind_tables!(ListenTable ConnectionTable DatagramTable);
