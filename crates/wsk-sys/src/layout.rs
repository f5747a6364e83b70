//! Sizes, alignments and offsets, asserted while compiling.
//!
//! The first number of a pair holds on 64-bit targets, the second on 32-bit ones.

#![allow(clippy::no_effect)]

use core::mem::{align_of, offset_of, size_of};

use crate::*;

/// The number for the target's pointer width.
pub(crate) const fn at(wide: usize, narrow: usize) -> usize {
    if cfg!(target_pointer_width = "64") { wide } else { narrow }
}

macro_rules! layout {
    ($($ty:ident: $size:literal / $size32:literal, $align:literal / $align32:literal
        { $($field:ident $offset:literal / $offset32:literal,)* })*) => { $(
        const _: () = assert!(size_of::<$ty>() == at($size, $size32));
        const _: () = assert!(align_of::<$ty>() == at($align, $align32));
        $(const _: () = assert!(offset_of!($ty, $field) == at($offset, $offset32));)*
    )* };
}

// Data structures.
layout! {
    WSK_SOCKET: 8/4, 8/4 { Dispatch 0/0, }
    WSK_PROVIDER_CHARACTERISTICS: 4/4, 2/2 { HighestVersion 0/0, LowestVersion 2/2, }
    WSK_TRANSPORT: 28/28, 4/4 {
        Version 0/0, SocketType 2/2, Protocol 4/4, AddressFamily 8/8, ProviderId 12/12,
    }
    WSK_BUF: 24/12, 8/4 { Mdl 0/0, Offset 8/4, Length 16/8, }
    WSK_BUF_LIST: 32/16, 8/4 { Next 0/0, Buffer 8/4, }
    WSK_DATA_INDICATION: 32/16, 8/4 { Next 0/0, Buffer 8/4, }
    WSK_DATAGRAM_INDICATION: 56/28, 8/4 {
        Next 0/0, Buffer 8/4, ControlInfo 32/16, ControlInfoLength 40/20, RemoteAddress 48/24,
    }
    WSK_INSPECT_ID: 16/8, 8/4 { Key 0/0, SerialNumber 8/4, }
    WSK_TDI_MAP: 16/12, 8/4 { SocketType 0/0, AddressFamily 2/2, Protocol 4/4, TdiDeviceName 8/8, }
    WSK_TDI_MAP_INFO: 16/8, 8/4 { ElementCount 0/0, Map 8/4, }
    WSK_EVENT_CALLBACK_CONTROL: 16/8, 8/4 { NpiId 0/0, EventMask 8/4, }
    WSK_EXTENSION_CONTROL_IN: 24/12, 8/4 { NpiId 0/0, ClientContext 8/4, ClientDispatch 16/8, }
    WSK_EXTENSION_CONTROL_OUT: 16/8, 8/4 { ProviderContext 0/0, ProviderDispatch 8/4, }
    WSK_CLIENT_NPI: 16/8, 8/4 { ClientContext 0/0, Dispatch 8/4, }
    WSK_PROVIDER_NPI: 16/8, 8/4 { Client 0/0, Dispatch 8/4, }
    WSK_REGISTRATION: 24/16, 8/8 {
        ReservedRegistrationState 0/0, ReservedRegistrationContext 8/8, ReservedRegistrationLock 16/12,
    }
    WSK_PROVIDER_NDK_DISPATCH: 16/8, 8/4 { WskOpenNdkAdapter 0/0, WskCloseNdkAdapter 8/4, }
    WSK_INSPECT_ACTION: 4/4, 4/4 {}
    WSK_CONTROL_SOCKET_TYPE: 4/4, 4/4 {}
    PWSK_CLIENT: 8/4, 8/4 {}
}

// Tables of the client.
layout! {
    WSK_CLIENT_DISPATCH: 16/8, 8/4 { Version 0/0, Reserved 2/2, WskClientEvent 8/4, }
    WSK_CLIENT_LISTEN_DISPATCH: 24/12, 8/4 { WskAcceptEvent 0/0, WskInspectEvent 8/4, WskAbortEvent 16/8, }
    WSK_CLIENT_DATAGRAM_DISPATCH: 8/4, 8/4 { WskReceiveFromEvent 0/0, }
    WSK_CLIENT_CONNECTION_DISPATCH: 24/12, 8/4 {
        WskReceiveEvent 0/0, WskDisconnectEvent 8/4, WskSendBacklogEvent 16/8,
    }
    WSK_CLIENT_STREAM_DISPATCH: 16/8, 8/4 { Listen 0/0, Connect 8/4, }
}

// Tables of the provider.
layout! {
    WSK_PROVIDER_DISPATCH: 56/28, 8/4 {
        Version 0/0, Reserved 2/2, WskSocket 8/4, WskSocketConnect 16/8, WskControlClient 24/12,
        WskGetAddressInfo 32/16, WskFreeAddressInfo 40/20, WskGetNameInfo 48/24,
    }
    WSK_PROVIDER_BASIC_DISPATCH: 16/8, 8/4 { WskControlSocket 0/0, WskCloseSocket 8/4, }
    WSK_PROVIDER_LISTEN_DISPATCH: 48/24, 8/4 {
        Basic 0/0, WskBind 16/8, WskAccept 24/12, WskInspectComplete 32/16, WskGetLocalAddress 40/20,
    }
    WSK_PROVIDER_DATAGRAM_DISPATCH: 64/32, 8/4 {
        Basic 0/0, WskBind 16/8, WskSendTo 24/12, WskReceiveFrom 32/16, WskRelease 40/20,
        WskGetLocalAddress 48/24, WskSendMessages 56/28,
    }
    WSK_PROVIDER_CONNECTION_DISPATCH: 104/52, 8/4 {
        Basic 0/0, WskBind 16/8, WskConnect 24/12, WskGetLocalAddress 32/16, WskGetRemoteAddress 40/20,
        WskSend 48/24, WskReceive 56/28, WskDisconnect 64/32, WskRelease 72/36, WskConnectEx 80/40,
        WskSendEx 88/44, WskReceiveEx 96/48,
    }
    WSK_PROVIDER_STREAM_DISPATCH: 120/60, 8/4 {
        Basic 0/0, WskBind 16/8, WskAccept 24/12, WskConnect 32/16, WskListen 40/20, WskSend 48/24,
        WskReceive 56/28, WskDisconnect 64/32, WskRelease 72/36, WskGetLocalAddress 80/40,
        WskGetRemoteAddress 88/44, WskConnectEx 96/48, WskSendEx 104/52, WskReceiveEx 112/56,
    }
}

// Support structures.
use crate::nt::{GUID, IO_STATUS_BLOCK, UNICODE_STRING};
layout! {
    GUID: 16/16, 4/4 {}
    SOCKADDR: 16/16, 2/2 { sa_family 0/0, sa_data 2/2, }
    SOCKADDR_IN: 16/16, 4/4 { sin_family 0/0, sin_port 2/2, sin_addr 4/4, sin_zero 8/8, }
    SOCKADDR_IN6: 28/28, 4/4 {
        sin6_family 0/0, sin6_port 2/2, sin6_flowinfo 4/4, sin6_addr 8/8, sin6_scope_id 24/24,
    }
    SOCKADDR_STORAGE: 128/128, 8/8 { ss_family 0/0, __ss_pad1 2/2, __ss_align 8/8, __ss_pad2 16/16, }
    SOCKET_ADDRESS: 16/8, 8/4 { lpSockaddr 0/0, iSockaddrLength 8/4, }
    SOCKET_ADDRESS_LIST: 24/12, 8/4 { iAddressCount 0/0, Address 8/4, }
    CMSGHDR: 16/12, 8/4 { cmsg_len 0/0, cmsg_level 8/4, cmsg_type 12/8, }
    UNICODE_STRING: 16/8, 8/4 { Length 0/0, MaximumLength 2/2, Buffer 8/4, }
    ADDRINFOEXW: 72/44, 8/4 {
        ai_flags 0/0, ai_family 4/4, ai_socktype 8/8, ai_protocol 12/12, ai_addrlen 16/16, ai_canonname 24/20,
        ai_addr 32/24, ai_blob 40/28, ai_bloblen 48/32, ai_provider 56/36, ai_next 64/40,
    }
    IO_STATUS_BLOCK: 16/8, 8/4 { Information 8/4, }
    NPI_REGISTRATION_INSTANCE: 40/20, 8/4 {
        Version 0/0, Size 2/2, NpiId 8/4, ModuleId 16/8, Number 24/12, NpiSpecificCharacteristics 32/16,
    }
    NPI_CLIENT_CHARACTERISTICS: 72/36, 8/4 {
        Version 0/0, Length 2/2, ClientAttachProvider 8/4, ClientDetachProvider 16/8,
        ClientCleanupBindingContext 24/12, ClientRegistrationInstance 32/16,
    }
    NPI_MODULEID: 24/24, 4/4 { Length 0/0, Type 4/4, Value 8/8, }
    NDK_VERSION: 4/4, 2/2 { Major 0/0, Minor 2/2, }
}

// Control message arithmetic.
const _: () = assert!(CMSG_DATA_OFFSET == at(16, 12));
const _: () = assert!(CMSG_LEN(1) == at(17, 13));
const _: () = assert!(CMSG_SPACE(0) == at(16, 12));
const _: () = assert!(CMSG_SPACE(1) == at(24, 16));
const _: () = assert!(CMSG_SPACE(20) == at(40, 32));

// The generated kernel types: fields that are read or written have their offsets beside the accessors in
// `nt`.
use crate::nt::{IO_STACK_LOCATION, IRP, KDPC, KEVENT, KTIMER, LIST_ENTRY, MDL, io_size_of_irp};
layout! {
    MDL: 0x30/0x1C, 8/4 { Process 16/8, }
    KEVENT: 0x18/0x10, 8/4 {}
    KDPC: 0x40/0x20, 8/4 {}
    LIST_ENTRY: 16/8, 8/4 { Flink 0/0, Blink 8/4, }
}
macro_rules! sized {
    ($($ty:ident: $size:literal / $size32:literal {
        $($field:ident $offset:literal / $offset32:literal,)*
    })*) => { $(
        const _: () = assert!(size_of::<$ty>() == at($size, $size32));
        $(const _: () = assert!(offset_of!($ty, $field) == at($offset, $offset32));)*
    )* };
}
// Their alignment is the pool's in some bindings and a pointer's in others; blocks of the pool satisfy both.
sized! {
    IRP: 0xD0/0x70 {
        MdlAddress 0x08/0x04, Flags 0x10/0x08, RequestorMode 0x40/0x20, Cancel 0x44/0x24,
        CancelRoutine 0x68/0x38, Tail 0x78/0x40,
    }
    IO_STACK_LOCATION: 0x48/0x24 { CompletionRoutine 0x38/0x1C, }
}
const _: () = assert!(align_of::<IRP>() <= 16);
const _: () = assert!(io_size_of_irp(1) as usize == at(0x118, 0x94));
const _: () = assert!(size_of::<KTIMER>() >= at(0x40, 0x28));
const _: () = assert!(align_of::<KTIMER>() == 8);

// A GUID from its parts has them where Windows looks for them.
const _: () = {
    // SAFETY: both types are sixteen bytes of plain data.
    let bytes: [u8; 16] = unsafe { core::mem::transmute(crate::guid::NPI_WSK_INTERFACE_ID_VALUE) };
    assert!(u128::from_be_bytes(bytes) == 0x03E8_2722_8B8D_D411_ABAD_0090_2771_9E09);
};
