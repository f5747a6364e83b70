//! Table members that older systems lack.
//!
//! The tables of the provider grew at their end without any change of the version number, so a table may be
//! shorter than its type. Each accessor looks at the build of the running system first, and then reads the
//! one member through its address; the rest of the table is never touched.

use crate::*;

/// The build number of the running system (`RTL_OSVERSIONINFOW::dwBuildNumber`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OsBuild(pub u32);

impl OsBuild {
    /// Windows Vista: the first system with WSK.
    pub const VISTA: Self = Self(6000);
    /// Windows 7: name resolution.
    pub const WIN7: Self = Self(7600);
    /// Windows 8: lists of datagrams.
    pub const WIN8: Self = Self(9200);
    /// Windows 10 1703: stream sockets, `WskConnectEx`.
    pub const WIN10_1703: Self = Self(15063);
    /// Windows 10 1803: `WskSendEx` and `WskReceiveEx`.
    pub const WIN10_1803: Self = Self(17134);
}

macro_rules! tail_members {
    ($(
        $(#[$doc:meta])* $name:ident: $table:ident . $member:ident -> $function:ident since $build:ident;
    )*) => { $(
        $(#[$doc])*
        #[doc = concat!("\n\n`None` before [`OsBuild::", stringify!($build), "`], or if the entry is null.")]
        ///
        /// # Safety
        /// `table` points to a live table of a provider of a system of build `os`.
        pub unsafe fn $name(table: *const $table, os: OsBuild) -> Option<$function> {
            if os < OsBuild::$build {
                return None;
            }
            let offset = core::mem::offset_of!($table, $member);
            let member = table.cast::<u8>().wrapping_add(offset).cast::<Option<$function>>();
            // SAFETY: tables of this build have the member, and the caller guarantees a live table.
            unsafe { member.read() }
        }
    )* };
}

tail_members! {
    /// Name resolution.
    get_address_info: WSK_PROVIDER_DISPATCH.WskGetAddressInfo -> PFN_WSK_GET_ADDRESS_INFO since WIN7;
    /// Frees resolved addresses.
    free_address_info: WSK_PROVIDER_DISPATCH.WskFreeAddressInfo -> PFN_WSK_FREE_ADDRESS_INFO since WIN7;
    /// Address resolution.
    get_name_info: WSK_PROVIDER_DISPATCH.WskGetNameInfo -> PFN_WSK_GET_NAME_INFO since WIN7;
    /// Sends a list of datagrams.
    send_messages: WSK_PROVIDER_DATAGRAM_DISPATCH.WskSendMessages -> PFN_WSK_SEND_MESSAGES since WIN8;
    /// Connects a connection socket, with first data.
    connect_ex: WSK_PROVIDER_CONNECTION_DISPATCH.WskConnectEx -> PFN_WSK_CONNECT_EX since WIN10_1703;
    /// Sends with control information on a connection socket.
    send_ex: WSK_PROVIDER_CONNECTION_DISPATCH.WskSendEx -> PFN_WSK_SEND_EX since WIN10_1803;
    /// Receives with control information on a connection socket.
    receive_ex: WSK_PROVIDER_CONNECTION_DISPATCH.WskReceiveEx -> PFN_WSK_RECEIVE_EX since WIN10_1803;
    /// Sends with control information on a stream socket.
    stream_send_ex: WSK_PROVIDER_STREAM_DISPATCH.WskSendEx -> PFN_WSK_SEND_EX since WIN10_1803;
    /// Receives with control information on a stream socket.
    stream_receive_ex: WSK_PROVIDER_STREAM_DISPATCH.WskReceiveEx -> PFN_WSK_RECEIVE_EX since WIN10_1803;
}
