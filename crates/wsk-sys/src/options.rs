//! Socket options: levels, numbers.

/// The level of the options of the socket layer.
pub const SOL_SOCKET: u32 = 0xFFFF;
/// The base of the options of WSK.
pub const WSK_SO_BASE: u32 = 0x4000;
/// The security descriptor of a socket.
pub const SO_WSK_SECURITY: u32 = WSK_SO_BASE + 1;
/// Turns event callbacks on and off.
pub const SO_WSK_EVENT_CALLBACK: u32 = WSK_SO_BASE + 2;

/// Connection requests are inspected before they are established.
pub const SO_CONDITIONAL_ACCEPT: u32 = 0x3002;
/// Incoming connections are held back.
pub const SO_PAUSE_ACCEPT: u32 = 0x3003;
/// The network compartment of the socket.
pub const SO_COMPARTMENT_ID: u32 = 0x3004;
/// A random port on a wildcard bind.
pub const SO_RANDOMIZE_PORT: u32 = 0x3005;
/// Ports are reserved per local address.
pub const SO_PORT_SCALABILITY: u32 = 0x3006;
/// An ephemeral port may be shared by connections.
pub const SO_REUSE_UNICASTPORT: u32 = 0x3007;
/// A multicast port may be shared.
pub const SO_REUSE_MULTICASTPORT: u32 = 0x3008;
/// The destination before a redirection.
pub const SO_ORIGINAL_DST: u32 = 0x300F;

/// Debugging information is recorded.
pub const SO_DEBUG: u32 = 0x0001;
/// The socket listens.
pub const SO_ACCEPTCONN: u32 = 0x0002;
/// The local address may be shared.
pub const SO_REUSEADDR: u32 = 0x0004;
/// Idle connections are probed.
pub const SO_KEEPALIVE: u32 = 0x0008;
/// Routing is bypassed.
pub const SO_DONTROUTE: u32 = 0x0010;
/// Broadcasts may be sent.
pub const SO_BROADCAST: u32 = 0x0020;
/// Close lingers while data is unsent.
pub const SO_LINGER: u32 = 0x0080;
/// Out-of-band data stays in the stream.
pub const SO_OOBINLINE: u32 = 0x0100;
/// The local address may not be shared: the complement of [`SO_REUSEADDR`].
pub const SO_EXCLUSIVEADDRUSE: u32 = !SO_REUSEADDR;
/// The size of the send buffer.
pub const SO_SNDBUF: u32 = 0x1001;
/// The size of the receive buffer.
pub const SO_RCVBUF: u32 = 0x1002;
/// The pending error.
pub const SO_ERROR: u32 = 0x1007;
/// The socket type.
pub const SO_TYPE: u32 = 0x1008;

/// The longest wait of a blocking send; sockets of the kernel do not block.
pub const SO_SNDTIMEO: u32 = 0x1005;
/// The longest wait of a blocking receive.
pub const SO_RCVTIMEO: u32 = 0x1006;

/// `IPPROTO_TCP`: small segments are sent at once.
pub const TCP_NODELAY: u32 = 0x0001;
/// `IPPROTO_TCP`: the seconds after which an idle connection is probed.
pub const TCP_KEEPIDLE: u32 = 3;
/// `IPPROTO_TCP`: the seconds for which unacknowledged data is sent again.
pub const TCP_MAXRT: u32 = 5;
/// `IPPROTO_TCP`: the probes without an answer after which a connection ends.
pub const TCP_KEEPCNT: u32 = 16;
/// `IPPROTO_TCP`: the seconds between two probes.
pub const TCP_KEEPINTVL: u32 = 17;
/// `IPPROTO_TCP`: data may ride in the SYN.
pub const TCP_FASTOPEN: u32 = 15;
/// `IPPROTO_IPV6`: the socket takes no IPv4.
pub const IPV6_V6ONLY: u32 = 27;
/// `IPPROTO_IP`: datagrams carry their local address.
pub const IP_PKTINFO: u32 = 19;
/// `IPPROTO_IPV6`: datagrams carry their local address.
pub const IPV6_PKTINFO: u32 = 19;
/// `IPPROTO_IP`: how many hops sent packets live.
pub const IP_TTL: u32 = 4;
/// `IPPROTO_IP`: the interface by which datagrams for groups leave.
pub const IP_MULTICAST_IF: u32 = 9;
/// `IPPROTO_IP`: how many hops datagrams for groups live.
pub const IP_MULTICAST_TTL: u32 = 10;
/// `IPPROTO_IP`: the host gets its own datagrams for groups.
pub const IP_MULTICAST_LOOP: u32 = 11;
/// `IPPROTO_IP`: joins a group.
pub const IP_ADD_MEMBERSHIP: u32 = 12;
/// `IPPROTO_IP`: leaves a group.
pub const IP_DROP_MEMBERSHIP: u32 = 13;
/// `IPPROTO_IP`: packets are not fragmented.
pub const IP_DONTFRAGMENT: u32 = 14;
/// `IPPROTO_IP`: the interface by which packets leave.
pub const IP_UNICAST_IF: u32 = 31;
/// `IPPROTO_IPV6`: how many hops sent packets live.
pub const IPV6_UNICAST_HOPS: u32 = 4;
/// `IPPROTO_IPV6`: the interface by which datagrams for groups leave.
pub const IPV6_MULTICAST_IF: u32 = 9;
/// `IPPROTO_IPV6`: how many hops datagrams for groups live.
pub const IPV6_MULTICAST_HOPS: u32 = 10;
/// `IPPROTO_IPV6`: the host gets its own datagrams for groups.
pub const IPV6_MULTICAST_LOOP: u32 = 11;
/// `IPPROTO_IPV6`: joins a group.
pub const IPV6_ADD_MEMBERSHIP: u32 = 12;
/// `IPPROTO_IPV6`: leaves a group.
pub const IPV6_DROP_MEMBERSHIP: u32 = 13;
/// `IPPROTO_IPV6`: packets are not fragmented.
pub const IPV6_DONTFRAG: u32 = 14;
/// `IPPROTO_IPV6`: the interface by which packets leave.
pub const IPV6_UNICAST_IF: u32 = 31;
/// `IPPROTO_IP`: the type of service of sent packets.
pub const IP_TOS: u32 = 3;
/// `IPPROTO_IP`: datagrams carry their type of service.
pub const IP_RECVTOS: u32 = 40;
/// `IPPROTO_IPV6`: the traffic class.
pub const IPV6_TCLASS: u32 = 39;
/// `IPPROTO_IP`: explicit congestion notification.
pub const IP_ECN: u32 = 50;
/// `IPPROTO_IPV6`: explicit congestion notification.
pub const IPV6_ECN: u32 = 50;
/// `IPPROTO_UDP`: the segment size of a large send.
pub const UDP_SEND_MSG_SIZE: u32 = 2;
/// `IPPROTO_UDP`: the largest coalesced receive.
pub const UDP_RECV_MAX_COALESCED_SIZE: u32 = 3;
/// Control message of `IPPROTO_UDP`: the segment size of a coalesced receive.
pub const UDP_COALESCED_INFO: u32 = 3;
