//! Address families, socket types, protocols and name-resolution flags (`ws2def.h`).

/// An address family.
pub type ADDRESS_FAMILY = u16;

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $ty = $value;)*
    };
}

constants! {
    /// No family given.
    AF_UNSPEC: ADDRESS_FAMILY = 0;
    /// Local sockets.
    AF_UNIX: ADDRESS_FAMILY = 1;
    /// IPv4.
    AF_INET: ADDRESS_FAMILY = 2;
    /// IPv6.
    AF_INET6: ADDRESS_FAMILY = 23;
    /// Link-layer addresses.
    AF_LINK: ADDRESS_FAMILY = 33;
    /// Hyper-V sockets.
    AF_HYPERV: ADDRESS_FAMILY = 34;

    /// A byte stream.
    SOCK_STREAM: u16 = 1;
    /// Datagrams.
    SOCK_DGRAM: u16 = 2;
    /// Raw datagrams.
    SOCK_RAW: u16 = 3;
    /// Reliable datagrams.
    SOCK_RDM: u16 = 4;
    /// A stream of records.
    SOCK_SEQPACKET: u16 = 5;

    /// IPv4, and IPv6 hop-by-hop options.
    IPPROTO_IP: u32 = 0;
    /// IPv6 hop-by-hop options.
    IPPROTO_HOPOPTS: u32 = 0;
    /// ICMP.
    IPPROTO_ICMP: u32 = 1;
    /// IGMP.
    IPPROTO_IGMP: u32 = 2;
    /// TCP.
    IPPROTO_TCP: u32 = 6;
    /// UDP.
    IPPROTO_UDP: u32 = 17;
    /// IPv6.
    IPPROTO_IPV6: u32 = 41;
    /// ICMP for IPv6.
    IPPROTO_ICMPV6: u32 = 58;
    /// Raw IP.
    IPPROTO_RAW: u32 = 255;

    /// The address will be bound.
    AI_PASSIVE: i32 = 0x1;
    /// The canonical name is wanted.
    AI_CANONNAME: i32 = 0x2;
    /// The node name is a literal address.
    AI_NUMERICHOST: i32 = 0x4;
    /// The service name is a port number.
    AI_NUMERICSERV: i32 = 0x8;
    /// Only the DNS is asked.
    AI_DNS_ONLY: i32 = 0x10;
    /// IPv6 and mapped IPv4 addresses are wanted.
    AI_ALL: i32 = 0x100;
    /// Only families that the machine has an address of.
    AI_ADDRCONFIG: i32 = 0x400;
    /// IPv4 addresses are given in mapped form.
    AI_V4MAPPED: i32 = 0x800;
    /// An answer without authority will do.
    AI_NON_AUTHORITATIVE: i32 = 0x4000;
    /// A secure channel is wanted.
    AI_SECURE: i32 = 0x8000;
    /// Preferred names are wanted.
    AI_RETURN_PREFERRED_NAMES: i32 = 0x1_0000;
    /// The fully qualified name is wanted.
    AI_FQDN: i32 = 0x2_0000;
    /// The name belongs to a file server.
    AI_FILESERVER: i32 = 0x4_0000;
    /// International names are not converted.
    AI_DISABLE_IDN_ENCODING: i32 = 0x8_0000;
    /// The extended structure is used.
    AI_EXTENDED: i32 = 0x8000_0000_u32 as i32;

    /// The host name without its domain.
    NI_NOFQDN: u32 = 0x1;
    /// The host as a literal address.
    NI_NUMERICHOST: u32 = 0x2;
    /// A name must be found.
    NI_NAMEREQD: u32 = 0x4;
    /// The service as a port number.
    NI_NUMERICSERV: u32 = 0x8;
    /// The service is one of datagrams.
    NI_DGRAM: u32 = 0x10;
    /// Longest host name, in characters.
    NI_MAXHOST: usize = 1025;
    /// Longest service name, in characters.
    NI_MAXSERV: usize = 32;

    /// All name spaces.
    NS_ALL: u32 = 0;
    /// The machine's own names.
    NS_TCPIP_LOCAL: u32 = 10;
    /// The hosts file.
    NS_TCPIP_HOSTS: u32 = 11;
    /// The DNS.
    NS_DNS: u32 = 12;
    /// NetBIOS over TCP/IP.
    NS_NETBT: u32 = 13;
    /// WINS.
    NS_WINS: u32 = 14;
    /// Network location awareness.
    NS_NLA: u32 = 15;
    /// Bluetooth.
    NS_BTH: u32 = 16;
    /// The NT directory.
    NS_NTDS: u32 = 32;
    /// Electronic mail.
    NS_EMAIL: u32 = 37;
    /// Peer names.
    NS_PNRPNAME: u32 = 38;
    /// Peer name clouds.
    NS_PNRPCLOUD: u32 = 39;

    /// The IPv4 wildcard, in host order.
    INADDR_ANY: u32 = 0;
    /// The IPv4 loopback address, in host order.
    INADDR_LOOPBACK: u32 = 0x7F00_0001;
    /// The IPv4 broadcast address, in host order.
    INADDR_BROADCAST: u32 = 0xFFFF_FFFF;
}
