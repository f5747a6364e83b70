//! The constants of `wsk.h` have the header's names and values.
#![allow(missing_docs)]

use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

/// Shows: LAY-25
#[test]
fn versions_and_timeouts() {
    assert_eq!(MAKE_WSK_VERSION(1, 0), 0x0100);
    assert_eq!(MAKE_WSK_VERSION(2, 3), 0x0203);
    assert_eq!(WSK_MAJOR_VERSION(0x0203), 2);
    assert_eq!(WSK_MINOR_VERSION(0x0203), 3);
    assert_eq!((WSK_NO_WAIT, WSK_INFINITE_WAIT), (0, 0xFFFF_FFFF));
}

/// Shows: LAY-26
#[test]
fn interface_identifier() {
    let id: PNPIID = &raw const NPI_WSK_INTERFACE_ID;
    // SAFETY: the pointer is that of a static.
    let id = unsafe { *id };
    assert_eq!((id.data1, id.data2, id.data3), (0x2227_E803, 0x8D8B, 0x11D4));
    assert_eq!(id.data4, [0xAB, 0xAD, 0x00, 0x90, 0x27, 0x71, 0x9E, 0x09]);
}

/// Shows: LAY-27
#[test]
fn categories() {
    assert_eq!(
        [
            WSK_FLAG_BASIC_SOCKET,
            WSK_FLAG_LISTEN_SOCKET,
            WSK_FLAG_CONNECTION_SOCKET,
            WSK_FLAG_DATAGRAM_SOCKET,
            WSK_FLAG_STREAM_SOCKET
        ],
        [0, 1, 2, 4, 8]
    );
}

/// Shows: LAY-28
#[test]
fn abortive_and_at_dispatch() {
    assert_eq!((WSK_FLAG_ABORTIVE, WSK_FLAG_AT_DISPATCH_LEVEL), (0x1, 0x8));
}

/// Shows: LAY-29
#[test]
fn flags_that_depend_on_their_place() {
    assert_eq!((WSK_FLAG_OOB, WSK_FLAG_NODELAY), (0x1, 0x2));
    assert_eq!((WSK_FLAG_WAITALL, WSK_FLAG_DRAIN), (0x2, 0x4));
    assert_eq!((WSK_FLAG_RELEASE_ASAP, WSK_FLAG_ENTIRE_MESSAGE), (0x2, 0x4));
    assert_eq!([MSG_TRUNC, MSG_CTRUNC, MSG_BCAST, MSG_MCAST], [0x100, 0x200, 0x400, 0x800]);
    assert_eq!(MSG_ERRQUEUE, 0x1000);
}

/// Shows: LAY-30
#[test]
fn event_bits() {
    assert_eq!(WSK_EVENT_SEND_BACKLOG, 0x10);
    assert_eq!(WSK_EVENT_RECEIVE, 0x40);
    assert_eq!(WSK_EVENT_DISCONNECT, 0x80);
    assert_eq!(WSK_EVENT_RECEIVE_FROM, 0x100);
    assert_eq!(WSK_EVENT_ACCEPT, 0x200);
    assert_eq!(WSK_EVENT_DISABLE, 0x8000_0000);
}

/// Shows: LAY-31
#[test]
fn inspect_actions() {
    assert_eq!(size_of::<WSK_INSPECT_ACTION>(), 4);
    assert_eq!([WskInspectReject.0, WskInspectAccept.0, WskInspectPend.0, WskInspectMax.0], [0, 1, 2, 3]);
    assert_eq!(WSK_INSPECT_ACTION::WskInspectPend, WskInspectPend);
}

/// Shows: LAY-32
#[test]
fn control_socket_types() {
    assert_eq!(size_of::<WSK_CONTROL_SOCKET_TYPE>(), 4);
    assert_eq!([WskSetOption.0, WskGetOption.0, WskIoctl.0, WskControlMax.0], [0, 1, 2, 3]);
}

/// Shows: LAY-41
#[test]
fn a_foreign_number_in_an_enumeration_is_a_value_like_any_other() {
    let foreign: WSK_INSPECT_ACTION = WSK_INSPECT_ACTION(-7);
    assert_ne!(foreign, WskInspectReject);
    assert_eq!(format!("{foreign:?} {WskInspectPend:?}"), "WSK_INSPECT_ACTION(-7) WskInspectPend");
    assert_eq!(format!("{:?}", WSK_CONTROL_SOCKET_TYPE(9)), "WSK_CONTROL_SOCKET_TYPE(9)");
}

/// Shows: LAY-33
#[test]
fn client_control_codes() {
    assert_eq!(
        [
            WSK_TRANSPORT_LIST_QUERY,
            WSK_TRANSPORT_LIST_CHANGE,
            WSK_CACHE_SD,
            WSK_RELEASE_SD,
            WSK_TDI_DEVICENAME_MAPPING,
            WSK_SET_STATIC_EVENT_CALLBACKS,
            WSK_TDI_BEHAVIOR
        ],
        [2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(WSK_TDI_BEHAVIOR_BYPASS_TDI, 1);
    assert_eq!(WSKNDK_GET_WSK_PROVIDER_NDK_DISPATCH, u32::from_be_bytes(*b"NDKD"));
    assert_eq!(WSKNDK_GET_WSK_PROVIDER_NDK_DISPATCH, 0x4E44_4B44);
}

/// Shows: LAY-34
#[test]
fn options_of_wsk() {
    assert_eq!((SOL_SOCKET, WSK_SO_BASE), (0xFFFF, 0x4000));
    assert_eq!((SO_WSK_SECURITY, SO_WSK_EVENT_CALLBACK), (0x4001, 0x4002));
    assert_eq!(SO_CONDITIONAL_ACCEPT, 0x3002);
}

/// Shows: LAY-35
#[test]
fn other_options() {
    assert_eq!([SO_PAUSE_ACCEPT, SO_COMPARTMENT_ID, SO_RANDOMIZE_PORT], [0x3003, 0x3004, 0x3005]);
    assert_eq!([SO_PORT_SCALABILITY, SO_REUSE_UNICASTPORT], [0x3006, 0x3007]);
    assert_eq!([SO_REUSE_MULTICASTPORT, SO_ORIGINAL_DST], [0x3008, 0x300F]);
    assert_eq!([SO_DEBUG, SO_ACCEPTCONN, SO_REUSEADDR, SO_KEEPALIVE], [1, 2, 4, 8]);
    assert_eq!([SO_DONTROUTE, SO_BROADCAST, SO_LINGER, SO_OOBINLINE], [0x10, 0x20, 0x80, 0x100]);
    assert_eq!(SO_EXCLUSIVEADDRUSE, 0xFFFF_FFFB);
    assert_eq!([SO_SNDBUF, SO_RCVBUF, SO_ERROR, SO_TYPE], [0x1001, 0x1002, 0x1007, 0x1008]);
    assert_eq!([SO_SNDTIMEO, SO_RCVTIMEO], [0x1005, 0x1006]);
    assert_eq!((TCP_NODELAY, TCP_FASTOPEN), (1, 15));
    assert_eq!([TCP_KEEPIDLE, TCP_MAXRT, TCP_KEEPCNT, TCP_KEEPINTVL], [3, 5, 16, 17]);
    assert_eq!([IP_TTL, IP_MULTICAST_IF, IP_MULTICAST_TTL, IP_MULTICAST_LOOP], [4, 9, 10, 11]);
    assert_eq!([IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_DONTFRAGMENT, IP_UNICAST_IF], [12, 13, 14, 31]);
    assert_eq!([IPV6_UNICAST_HOPS, IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS], [4, 9, 10]);
    assert_eq!([IPV6_MULTICAST_LOOP, IPV6_ADD_MEMBERSHIP, IPV6_DROP_MEMBERSHIP], [11, 12, 13]);
    assert_eq!([IPV6_DONTFRAG, IPV6_UNICAST_IF], [14, 31]);
    assert_eq!([SIO_KEEPALIVE_VALS, SIO_QUERY_RSS_SCALABILITY_INFO], [0x9800_0004, 0x5800_00D2]);
    assert_eq!([IPV6_V6ONLY, IP_PKTINFO, IPV6_PKTINFO], [27, 19, 19]);
    assert_eq!([IP_RECVTOS, IP_TOS, IPV6_TCLASS, IP_ECN, IPV6_ECN], [40, 3, 39, 50, 50]);
    assert_eq!([UDP_SEND_MSG_SIZE, UDP_RECV_MAX_COALESCED_SIZE, UDP_COALESCED_INFO], [2, 3, 3]);
}

/// Shows: LAY-36
#[test]
fn ioctl_codes() {
    assert_eq!((IOC_WSK, IOC_INOUT, IOC_UNIX, IOC_PROTOCOL), (0x0F00_0000, 0xC000_0000, 0, 0x1000_0000));
    assert_eq!(SIO_WSK_SET_REMOTE_ADDRESS, 0x8F00_0001);
    assert_eq!(SIO_WSK_REGISTER_EXTENSION, 0xCF00_0002);
    assert_eq!(SIO_WSK_QUERY_IDEAL_SEND_BACKLOG, 0x4F00_0003);
    assert_eq!(SIO_WSK_QUERY_RECEIVE_BACKLOG, 0x4F00_0004);
    assert_eq!(SIO_WSK_QUERY_INSPECT_ID, 0x4F00_0005);
    assert_eq!(SIO_WSK_SET_SENDTO_ADDRESS, 0x8F00_0006);
    assert_eq!(SIO_WSK_SET_TCP_SILENT_MODE, 0x2F00_0007);
    assert_eq!(SIO_WSK_SET_RECEIVE_EX_CALLBACK, 0x8F00_0008);
    assert_eq!(SIO_ADDRESS_LIST_QUERY, 0x4800_0016);
    assert_eq!(SIO_ADDRESS_LIST_CHANGE, 0x2800_0017);
    assert_eq!(SIO_ADDRESS_LIST_SORT, 0xC800_0019);
    assert_eq!(SIO_LOOPBACK_FAST_PATH, 0x9800_0010);
    assert_eq!(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, 0x9800_00DC);
    assert_eq!(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, 0x9800_00DD);
    assert_eq!(SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, 0x9800_00DE);
}

/// Shows: LAY-37
#[test]
fn families_types_protocols_and_name_flags() {
    assert_eq!([AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_LINK, AF_HYPERV], [0, 1, 2, 23, 33, 34]);
    assert_eq!([SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET], [1, 2, 3, 4, 5]);
    assert_eq!([IPPROTO_IP, IPPROTO_HOPOPTS, IPPROTO_ICMP, IPPROTO_IGMP], [0, 0, 1, 2]);
    assert_eq!([IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_ICMPV6, IPPROTO_RAW], [6, 17, 41, 58, 255]);
    assert_eq!([AI_PASSIVE, AI_CANONNAME, AI_NUMERICHOST, AI_NUMERICSERV, AI_DNS_ONLY], [1, 2, 4, 8, 0x10]);
    assert_eq!([AI_ALL, AI_ADDRCONFIG, AI_V4MAPPED, AI_NON_AUTHORITATIVE], [0x100, 0x400, 0x800, 0x4000]);
    assert_eq!([AI_SECURE, AI_RETURN_PREFERRED_NAMES, AI_FQDN], [0x8000, 0x1_0000, 0x2_0000]);
    assert_eq!([AI_FILESERVER, AI_DISABLE_IDN_ENCODING], [0x4_0000, 0x8_0000]);
    assert_eq!(AI_EXTENDED as u32, 0x8000_0000);
    assert_eq!([NI_NOFQDN, NI_NUMERICHOST, NI_NAMEREQD, NI_NUMERICSERV, NI_DGRAM], [1, 2, 4, 8, 0x10]);
    assert_eq!((NI_MAXHOST, NI_MAXSERV), (1025, 32));
    assert_eq!([NS_ALL, NS_TCPIP_LOCAL, NS_TCPIP_HOSTS, NS_DNS, NS_NETBT, NS_WINS], [0, 10, 11, 12, 13, 14]);
    assert_eq!([NS_NLA, NS_BTH, NS_NTDS, NS_EMAIL, NS_PNRPNAME, NS_PNRPCLOUD], [15, 16, 32, 37, 38, 39]);
    assert_eq!([INADDR_ANY, INADDR_LOOPBACK, INADDR_BROADCAST], [0, 0x7F00_0001, 0xFFFF_FFFF]);
}

/// Shows: LAY-38
#[test]
fn statuses() {
    let table: &[(NTSTATUS, u32)] = &[
        (STATUS_SUCCESS, 0x0000_0000),
        (STATUS_TIMEOUT, 0x0000_0102),
        (STATUS_PENDING, 0x0000_0103),
        (STATUS_RECEIVE_PARTIAL, 0x4000_000F),
        (STATUS_EVENT_PENDING, 0x4000_0013),
        (STATUS_BUFFER_OVERFLOW, 0x8000_0005),
        (STATUS_ALREADY_DISCONNECTED, 0x8000_0025),
        (STATUS_UNSUCCESSFUL, 0xC000_0001),
        (STATUS_NOT_IMPLEMENTED, 0xC000_0002),
        (STATUS_INVALID_HANDLE, 0xC000_0008),
        (STATUS_INVALID_PARAMETER, 0xC000_000D),
        (STATUS_INVALID_DEVICE_REQUEST, 0xC000_0010),
        (STATUS_END_OF_FILE, 0xC000_0011),
        (STATUS_MORE_PROCESSING_REQUIRED, 0xC000_0016),
        (STATUS_NO_MEMORY, 0xC000_0017),
        (STATUS_ACCESS_DENIED, 0xC000_0022),
        (STATUS_BUFFER_TOO_SMALL, 0xC000_0023),
        (STATUS_SHARING_VIOLATION, 0xC000_0043),
        (STATUS_INTEGER_OVERFLOW, 0xC000_0095),
        (STATUS_INSUFFICIENT_RESOURCES, 0xC000_009A),
        (STATUS_DEVICE_NOT_READY, 0xC000_00A3),
        (STATUS_IO_TIMEOUT, 0xC000_00B5),
        (STATUS_FILE_FORCED_CLOSED, 0xC000_00B6),
        (STATUS_NOT_SUPPORTED, 0xC000_00BB),
        (STATUS_BAD_NETWORK_PATH, 0xC000_00BE),
        (STATUS_REQUEST_NOT_ACCEPTED, 0xC000_00D0),
        (STATUS_CANCELLED, 0xC000_0120),
        (STATUS_LOCAL_DISCONNECT, 0xC000_013B),
        (STATUS_REMOTE_DISCONNECT, 0xC000_013C),
        (STATUS_INVALID_CONNECTION, 0xC000_0140),
        (STATUS_INVALID_ADDRESS, 0xC000_0141),
        (STATUS_INVALID_DEVICE_STATE, 0xC000_0184),
        (STATUS_INVALID_BUFFER_SIZE, 0xC000_0206),
        (STATUS_INVALID_ADDRESS_COMPONENT, 0xC000_0207),
        (STATUS_TOO_MANY_ADDRESSES, 0xC000_0209),
        (STATUS_ADDRESS_ALREADY_EXISTS, 0xC000_020A),
        (STATUS_ADDRESS_CLOSED, 0xC000_020B),
        (STATUS_CONNECTION_DISCONNECTED, 0xC000_020C),
        (STATUS_CONNECTION_RESET, 0xC000_020D),
        (STATUS_DATA_NOT_ACCEPTED, 0xC000_021B),
        (STATUS_NOT_FOUND, 0xC000_0225),
        (STATUS_CONNECTION_REFUSED, 0xC000_0236),
        (STATUS_GRACEFUL_DISCONNECT, 0xC000_0237),
        (STATUS_ADDRESS_ALREADY_ASSOCIATED, 0xC000_0238),
        (STATUS_ADDRESS_NOT_ASSOCIATED, 0xC000_0239),
        (STATUS_CONNECTION_INVALID, 0xC000_023A),
        (STATUS_CONNECTION_ACTIVE, 0xC000_023B),
        (STATUS_NETWORK_UNREACHABLE, 0xC000_023C),
        (STATUS_HOST_UNREACHABLE, 0xC000_023D),
        (STATUS_PROTOCOL_UNREACHABLE, 0xC000_023E),
        (STATUS_PORT_UNREACHABLE, 0xC000_023F),
        (STATUS_REQUEST_ABORTED, 0xC000_0240),
        (STATUS_CONNECTION_ABORTED, 0xC000_0241),
        (STATUS_NO_MATCH, 0xC000_0272),
        (STATUS_NOINTERFACE, 0xC000_02B9),
        (STATUS_HOPLIMIT_EXCEEDED, 0xC000_A012),
        (STATUS_PROTOCOL_NOT_SUPPORTED, 0xC000_A013),
    ];
    for &(status, value) in table {
        assert_eq!(status as u32, value, "{:?}", status_name(status));
    }
    assert_eq!(status_name(STATUS_FILE_FORCED_CLOSED), Some("STATUS_FILE_FORCED_CLOSED"));
    assert_eq!(status_name(0x7777), None);
}

/// Shows: LAY-39
#[test]
fn pending_counts_as_success() {
    assert!(nt_success(STATUS_SUCCESS));
    assert!(nt_success(STATUS_TIMEOUT));
    assert!(nt_success(STATUS_PENDING));
    assert!(nt_success(STATUS_EVENT_PENDING));
    assert!(nt_success(STATUS_RECEIVE_PARTIAL));
    assert!(!nt_success(STATUS_BUFFER_OVERFLOW));
    assert!(!nt_success(STATUS_ALREADY_DISCONNECTED));
    assert!(!nt_success(STATUS_UNSUCCESSFUL));
}
