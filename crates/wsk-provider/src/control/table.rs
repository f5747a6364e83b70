//! Options and control codes in `wsk.h`, in the WSK documentation and in public drivers, with their
//! treatment.
//!
//! Options that are not documented, and that no driver was seen to use with success, are refused like unknown
//! options (OPT-16).

use wsk_sys::*;

/// Sockets that have an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Listening sockets and stream sockets.
    Listening,
    /// Connection-oriented and listening sockets, and stream sockets.
    Tcp,
    /// Connection-oriented sockets and stream sockets.
    Connecting,
    /// Datagram sockets.
    Datagram,
    /// All but basic sockets.
    Bindable,
    /// None.
    None,
}

/// Type of an option's value, with its valid sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A `ULONG` of 0 or 1, and nothing shorter: the layer above the transport reads it.
    Switch,
    /// A `ULONG` or a `BOOLEAN` of 0 or 1, read in either size.
    Flag,
    /// The same, which always reads as a `BOOLEAN`.
    Byte,
    /// A `ULONG`.
    Number,
    /// A cached security descriptor.
    Descriptor,
    /// An `IP_MREQ`; there is nothing to read.
    Membership,
    /// An `IPV6_MREQ`; there is nothing to read.
    MembershipV6,
}

/// Treatment of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// WSK implements it.
    Own,
    /// It is set on the host's socket.
    Host,
    /// It is stored and read back, without another effect.
    Kept,
    /// It is refused like an unknown option.
    Refused,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionRow {
    /// Its level.
    pub level: u32,
    /// Its number.
    pub code: u32,
    /// Its name.
    pub name: &'static str,
    /// The sockets that have it. Those of the level of IPv4 are for sockets that serve IPv4, and likewise
    /// with IPv6.
    pub sockets: Sockets,
    /// It has to be set before the bind.
    pub before_bind: bool,
    /// Its value.
    pub value: Value,
    /// Value before it was set.
    pub default: u32,
    /// Treatment of the option.
    pub fate: Fate,
}

macro_rules! options {
    ($($level:ident {
        $($name:ident: $sockets:ident, $when:ident, $value:ident = $default:literal => $fate:ident;)*
    })*) => {
        /// All options.
        pub const OPTIONS: &[OptionRow] = &[$($(OptionRow {
            level: $level,
            code: $name,
            name: stringify!($name),
            sockets: Sockets::$sockets,
            before_bind: options!(@ $when),
            value: Value::$value,
            default: $default,
            fate: Fate::$fate,
        }),*),*];
    };
    (@ before) => { true };
    (@ always) => { false };
}

options! {
    // option                     sockets    set before the bind, or always; value = default => treatment
    SOL_SOCKET {
        SO_CONDITIONAL_ACCEPT:       Listening,  before, Switch = 0          => Own;
        SO_EXCLUSIVEADDRUSE:         Bindable,   before, Switch = 0          => Own;
        SO_REUSEADDR:                Bindable,   before, Switch = 0          => Own;
        SO_WSK_SECURITY:             Bindable,   before, Descriptor = 0      => Own;
        SO_BROADCAST:                Datagram,   always, Flag = 0            => Host;
        SO_KEEPALIVE:                Tcp,        always, Byte = 0            => Host;
        SO_RCVBUF:                   Bindable,   always, Number = 65536      => Host;
        SO_SNDBUF:                   Bindable,   always, Number = 65536      => Host;
        // Of the layer above sockets in user mode; libraries over WSK answer the first three themselves.
        SO_TYPE:                     None,       always, Number = 0          => Refused;
        SO_RCVTIMEO:                 None,       always, Number = 0          => Refused;
        SO_SNDTIMEO:                 None,       always, Number = 0          => Refused;
        SO_ERROR:                    None,       always, Number = 0          => Refused;
        SO_ACCEPTCONN:               None,       always, Number = 0          => Refused;
        SO_DEBUG:                    None,       always, Number = 0          => Refused;
        SO_DONTROUTE:                None,       always, Number = 0          => Refused;
        SO_LINGER:                   None,       always, Number = 0          => Refused;
        SO_OOBINLINE:                None,       always, Number = 0          => Refused;
        SO_PAUSE_ACCEPT:             None,       always, Number = 0          => Refused;
        SO_COMPARTMENT_ID:           None,       always, Number = 0          => Refused;
        SO_RANDOMIZE_PORT:           None,       always, Number = 0          => Refused;
        SO_PORT_SCALABILITY:         None,       always, Number = 0          => Refused;
        SO_REUSE_UNICASTPORT:        None,       always, Number = 0          => Refused;
        SO_REUSE_MULTICASTPORT:      None,       always, Number = 0          => Refused;
        SO_ORIGINAL_DST:             None,       always, Number = 0          => Refused;
    }
    IPPROTO_TCP {
        TCP_KEEPIDLE:                Tcp,        always, Number = 7200       => Host;
        TCP_KEEPCNT:                 Tcp,        always, Number = 10         => Host;
        TCP_KEEPINTVL:               Tcp,        always, Number = 1          => Host;
        // The first data may follow the handshake as well.
        TCP_FASTOPEN:                Connecting, always, Flag = 0            => Kept;
        // WSK has WSK_FLAG_NODELAY for each send.
        TCP_NODELAY:                 None,       always, Flag = 0            => Refused;
        TCP_MAXRT:                   None,       always, Number = 0          => Refused;
    }
    IPPROTO_UDP {
        // Drivers ask whether there is any, and go on without.
        UDP_SEND_MSG_SIZE:           None,       always, Number = 0          => Refused;
        UDP_RECV_MAX_COALESCED_SIZE: None,       always, Number = 0          => Refused;
    }
    IPPROTO_IP {
        IP_TOS:                      Bindable,   always, Number = 0          => Host;
        IP_TTL:                      Bindable,   always, Number = 128        => Host;
        IP_MULTICAST_IF:             Datagram,   always, Number = 0          => Host;
        IP_MULTICAST_TTL:            Datagram,   always, Number = 1          => Host;
        IP_MULTICAST_LOOP:           Datagram,   always, Flag = 1            => Host;
        IP_ADD_MEMBERSHIP:           Datagram,   always, Membership = 0      => Host;
        IP_DROP_MEMBERSHIP:          Datagram,   always, Membership = 0      => Host;
        // Hosts differ in their treatment of fragments.
        IP_DONTFRAGMENT:             Bindable,   always, Flag = 0            => Kept;
        // Control messages of received datagrams, if the host provides the data.
        IP_PKTINFO:                  Datagram,   always, Flag = 0            => Own;
        IP_RECVTOS:                  Datagram,   always, Flag = 0            => Own;
        IP_ECN:                      Datagram,   always, Flag = 0            => Own;
        IP_UNICAST_IF:               None,       always, Number = 0          => Refused;
    }
    IPPROTO_IPV6 {
        IPV6_V6ONLY:                 Bindable,   before, Flag = 1            => Own;
        IPV6_UNICAST_HOPS:           Bindable,   always, Number = 128        => Host;
        IPV6_MULTICAST_IF:           Datagram,   always, Number = 0          => Host;
        IPV6_MULTICAST_HOPS:         Datagram,   always, Number = 1          => Host;
        IPV6_MULTICAST_LOOP:         Datagram,   always, Flag = 1            => Host;
        IPV6_ADD_MEMBERSHIP:         Datagram,   always, MembershipV6 = 0    => Host;
        IPV6_DROP_MEMBERSHIP:        Datagram,   always, MembershipV6 = 0    => Host;
        IPV6_DONTFRAG:               Bindable,   always, Flag = 0            => Kept;
        // As with IPv4.
        IPV6_PKTINFO:                Datagram,   always, Flag = 0            => Own;
        IPV6_ECN:                    Datagram,   always, Flag = 0            => Own;
        IPV6_TCLASS:                 None,       always, Number = 0          => Refused;
        IPV6_UNICAST_IF:             None,       always, Number = 0          => Refused;
    }
}

/// True if a code takes an IRP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irp {
    /// It needs one.
    Required,
    /// It takes none.
    Forbidden,
    /// With and without.
    Either,
}

/// One control code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlRow {
    /// Its number.
    pub code: u32,
    /// Its name.
    pub name: &'static str,
    /// True if it takes an IRP.
    pub irp: Irp,
    /// Its rule.
    pub rule: &'static str,
    /// It is for passive level.
    pub passive: bool,
}

macro_rules! ioctls {
    ($($name:ident: $irp:ident by $rule:literal, $level:ident;)*) => {
        /// All control codes. Others are an invalid device request.
        pub const IOCTLS: &[IoctlRow] = &[$(IoctlRow {
            code: $name,
            name: stringify!($name),
            irp: Irp::$irp,
            rule: $rule,
            passive: ioctls!(@ $level),
        }),*];
    };
    (@ passive) => { true };
    (@ dispatch) => { false };
}

ioctls! {
    // code                                      IRP, and the rule that says so; the highest level
    SIO_WSK_SET_REMOTE_ADDRESS:                  Required  by "IRP-18", dispatch;
    SIO_WSK_SET_SENDTO_ADDRESS:                  Required  by "IRP-18", dispatch;
    SIO_WSK_QUERY_IDEAL_SEND_BACKLOG:            Required  by "IRP-18", dispatch;
    SIO_WSK_QUERY_RECEIVE_BACKLOG:               Required  by "IRP-18", dispatch;
    SIO_WSK_SET_TCP_SILENT_MODE:                 Required  by "IOC-12", dispatch;
    SIO_WSK_QUERY_INSPECT_ID:                    Forbidden by "IOC-11", dispatch;
    SIO_WSK_REGISTER_EXTENSION:                  Forbidden by "IOC-06", dispatch;
    SIO_WSK_SET_RECEIVE_EX_CALLBACK:             Either    by "IOC-15", dispatch;
    SIO_KEEPALIVE_VALS:                          Either    by "IRP-18", dispatch;
    SIO_QUERY_RSS_SCALABILITY_INFO:              Either    by "IRP-18", dispatch;
    SIO_ADDRESS_LIST_QUERY:                      Forbidden by "IRP-18", passive;
    SIO_ADDRESS_LIST_SORT:                       Either    by "IRP-18", passive;
    SIO_ADDRESS_LIST_CHANGE:                     Required  by "IRP-18", passive;
    SIO_LOOPBACK_FAST_PATH:                      Required  by "IRP-18", passive;
    SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS:   Required  by "IRP-18", passive;
    SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT:   Required  by "IRP-18", passive;
    SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS:     Required  by "IRP-18", passive;
}

impl IoctlRow {
    /// The control code of that number.
    pub fn find(code: u32) -> Option<&'static Self> {
        IOCTLS.iter().find(|row| row.code == code)
    }
}

impl OptionRow {
    /// The option of that level and number.
    pub fn find(level: u32, code: u32) -> Option<&'static Self> {
        OPTIONS.iter().find(|row| row.level == level && row.code == code)
    }

    /// The bytes its value has when it is read, in a buffer of `room` bytes; `None` if there is nothing to
    /// read.
    pub fn read_size(&self, room: usize) -> Option<usize> {
        match self.value {
            Value::Byte => Some(1),
            Value::Flag if room < size_of::<u32>() => Some(1),
            Value::Switch | Value::Flag | Value::Number => Some(size_of::<u32>()),
            Value::Descriptor => Some(size_of::<usize>()),
            Value::Membership | Value::MembershipV6 => None,
        }
    }

    /// Returns whether it can have the value: packets live for no more than 255 hops.
    pub fn takes(&self, value: u32) -> bool {
        const HOST_DEFAULT: u32 = u32::MAX;
        match (self.level, self.code) {
            (IPPROTO_IP, IP_TTL) => (1..=255).contains(&value),
            (IPPROTO_IP, IP_MULTICAST_TTL) => value <= 255,
            (IPPROTO_IPV6, IPV6_UNICAST_HOPS | IPV6_MULTICAST_HOPS) => value <= 255 || value == HOST_DEFAULT,
            _ => true,
        }
    }

    /// The fewest bytes it is set with.
    pub fn least_size(&self) -> usize {
        match self.value {
            Value::Byte | Value::Flag => 1,
            Value::Switch | Value::Number => size_of::<u32>(),
            Value::Descriptor => size_of::<usize>(),
            Value::Membership => 8,
            Value::MembershipV6 => 20,
        }
    }
}
