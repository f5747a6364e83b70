//! Socket options as values.
//!
//! An option is a type with its value inside: `KeepAlive(true)`. The table below says for which kinds of
//! sockets it can be set before the bind, set, and read; anything else does not compile. All of them need an
//! IRP (rule OPT-02), so setting and reading are futures.

use wsk_sys::{
    IP_TOS, IP_TTL, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPV6_UNICAST_HOPS, IPV6_V6ONLY, SO_BROADCAST,
    SO_CONDITIONAL_ACCEPT, SO_EXCLUSIVEADDRUSE, SO_KEEPALIVE, SO_RCVBUF, SO_REUSEADDR, SO_SNDBUF, SOL_SOCKET,
    TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL,
};

/// Kinds of sockets, as the parameters of the option traits.
pub mod kind {
    /// A [`Listener`](crate::Listener).
    #[derive(Debug)]
    pub enum Listener {}
    /// A [`Connection`](crate::Connection).
    #[derive(Debug)]
    pub enum Connection {}
    /// A [`DatagramSocket`](crate::DatagramSocket).
    #[derive(Debug)]
    pub enum Datagram {}
}

/// A socket option with its value. Sealed.
pub trait SocketOption: sealed::Sealed + Copy + Send + 'static {
    #[doc(hidden)]
    const LEVEL: u32;
    #[doc(hidden)]
    const NAME: u32;
    #[doc(hidden)]
    fn to_raw(self) -> u32;
    #[doc(hidden)]
    fn from_raw(raw: u32) -> Self;
}

/// A socket option that can be set before a socket of kind `K` is bound.
#[diagnostic::on_unimplemented(
    message = "option `{Self}` cannot be set before the bind of a `{K}`",
    note = "the documentation of the option names the sockets that have it"
)]
pub trait BindOption<K>: SocketOption {
    #[doc(hidden)]
    const PLACE: Place;
}

/// A socket option that can be set on a socket of kind `K` at any time.
#[diagnostic::on_unimplemented(
    message = "option `{Self}` cannot be set on a `{K}`",
    note = "an option that has to precede the bind is given to the builder: `.option(…)`"
)]
pub trait SetOption<K>: SocketOption {}

/// A socket option that can be read from a socket of kind `K`.
#[diagnostic::on_unimplemented(
    message = "option `{Self}` cannot be read from a `{K}`",
    note = "the documentation of the option names the sockets that have it"
)]
pub trait GetOption<K>: SocketOption {}

/// A value of an option, of which WSK reads and writes 32 bits.
trait Value: Copy {
    fn to_raw(self) -> u32;
    fn from_raw(raw: u32) -> Self;
}

impl Value for bool {
    fn to_raw(self) -> u32 {
        self.into()
    }

    fn from_raw(raw: u32) -> Self {
        raw != 0
    }
}

impl Value for u32 {
    fn to_raw(self) -> u32 {
        self
    }

    fn from_raw(raw: u32) -> Self {
        raw
    }
}

/// Declares the options.
macro_rules! options {
    ($(
        $(#[$doc:meta])*
        $name:ident($value:ty) = $level:ident, $code:ident;
        bind: [$($bind:ident)*], set: [$($set:ident)*], get: [$($get:ident)*];
    )*) => {
        $(
            $(#[$doc])*
            #[doc = concat!("\n\n`", stringify!($code), "` of level `", stringify!($level), "`.")]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name(pub $value);

            impl sealed::Sealed for $name {}

            impl SocketOption for $name {
                const LEVEL: u32 = $level;
                const NAME: u32 = $code;

                fn to_raw(self) -> u32 {
                    Value::to_raw(self.0)
                }

                fn from_raw(raw: u32) -> Self {
                    Self(Value::from_raw(raw))
                }
            }

            $(
                impl BindOption<kind::$bind> for $name {
                    const PLACE: Place = Place::$name;
                }
            )*
            $(impl SetOption<kind::$set> for $name {})*
            $(impl GetOption<kind::$get> for $name {})*
        )*

        /// The places of all options in an [`OptionSet`], in the order in which they are set.
        #[doc(hidden)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Place {
            $(
                #[doc(hidden)]
                $name,
            )*
        }

        /// Level and name of the option at each place.
        const NAMES: [(u32, u32); [$(Place::$name),*].len()] = [$(($level, $code)),*];
    };
}

options! {
    /// Inspection of connection requests; [`ListenerBuilder::inspect`](crate::ListenerBuilder::inspect) sets
    /// it.
    ConditionalAccept(bool) = SOL_SOCKET, SO_CONDITIONAL_ACCEPT;
    bind: [], set: [], get: [Listener];
    /// True if the socket may bind an address that others share.
    ReuseAddress(bool) = SOL_SOCKET, SO_REUSEADDR;
    bind: [Listener Datagram], set: [], get: [Listener Datagram];
    /// True if all others are kept from binding the address.
    ExclusiveAddress(bool) = SOL_SOCKET, SO_EXCLUSIVEADDRUSE;
    bind: [Listener Datagram], set: [], get: [Listener Datagram];
    /// True if an IPv6 socket leaves IPv4 alone; on by default.
    ///
    /// If it is off, WSK gives IPv4 peers IPv4-mapped addresses, which this crate shows as the IPv4 ones.
    /// Ignored for an IPv4 address.
    V6Only(bool) = IPPROTO_IPV6, IPV6_V6ONLY;
    bind: [Listener Datagram], set: [], get: [Listener Datagram];
    /// True if idle connections are probed. Accepted connections inherit it.
    KeepAlive(bool) = SOL_SOCKET, SO_KEEPALIVE;
    bind: [Listener], set: [Listener Connection], get: [Listener Connection];
    /// Time without traffic before a connection is probed, in seconds.
    KeepAliveIdle(u32) = IPPROTO_TCP, TCP_KEEPIDLE;
    bind: [Listener], set: [Listener Connection], get: [Listener Connection];
    /// Time between two probes, in seconds.
    KeepAliveInterval(u32) = IPPROTO_TCP, TCP_KEEPINTVL;
    bind: [Listener], set: [Listener Connection], get: [Listener Connection];
    /// Number of probes without an answer after which the connection is given up.
    KeepAliveCount(u32) = IPPROTO_TCP, TCP_KEEPCNT;
    bind: [Listener], set: [Listener Connection], get: [Listener Connection];
    /// True if datagrams may be sent to broadcast addresses.
    Broadcast(bool) = SOL_SOCKET, SO_BROADCAST;
    bind: [Datagram], set: [Datagram], get: [Datagram];
    /// Size of the receive buffer of the transport, in bytes.
    ReceiveBufferSize(u32) = SOL_SOCKET, SO_RCVBUF;
    bind: [Listener Datagram], set: [Listener Connection Datagram], get: [Listener Connection Datagram];
    /// Size of the send buffer of the transport, in bytes.
    SendBufferSize(u32) = SOL_SOCKET, SO_SNDBUF;
    bind: [Listener Datagram], set: [Listener Connection Datagram], get: [Listener Connection Datagram];
    /// Type-of-service field of IPv4 packets.
    TypeOfService(u32) = IPPROTO_IP, IP_TOS;
    bind: [Listener Datagram], set: [Listener Connection Datagram], get: [Listener Connection Datagram];
    /// Time to live of IPv4 packets.
    TimeToLive(u32) = IPPROTO_IP, IP_TTL;
    bind: [Listener Datagram], set: [Listener Connection Datagram], get: [Listener Connection Datagram];
    /// Hop limit of IPv6 packets.
    UnicastHops(u32) = IPPROTO_IPV6, IPV6_UNICAST_HOPS;
    bind: [Listener Datagram], set: [Listener Connection Datagram], get: [Listener Connection Datagram];
}

/// The options that are to be set before a bind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OptionSet {
    /// The bits of the places that are taken.
    taken: u32,
    values: [u32; NAMES.len()],
}

/// One option and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) level: u32,
    pub(crate) name: u32,
    pub(crate) value: u32,
}

impl OptionSet {
    /// Adds an option, in place of an earlier value of it.
    pub(crate) fn insert(&mut self, place: Place, value: u32) {
        self.taken |= 1 << place as u32;
        if let Some(slot) = self.values.get_mut(place as usize) {
            *slot = value;
        }
    }

    /// Removes an option.
    pub(crate) fn remove(&mut self, place: Place) {
        self.taken &= !(1 << place as u32);
    }

    /// Takes out the first option, in the order of the places.
    pub(crate) fn take_first(&mut self) -> Option<Setting> {
        let place = self.taken.trailing_zeros() as usize;
        let (&(level, name), &value) = (NAMES.get(place)?, self.values.get(place)?);
        self.taken &= self.taken - 1;
        Some(Setting { level, name, value })
    }
}

mod sealed {
    pub trait Sealed {}
}
