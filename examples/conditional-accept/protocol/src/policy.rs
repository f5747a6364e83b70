//! Policy for connection requests: networks and their actions, the most specific first.
//!
//! The list has a fixed capacity and lives inside the [`Policy`], so that a lookup at `DISPATCH_LEVEL`
//! touches nothing but non-paged memory of its owner, and adding a rule cannot run out of memory.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::limits::Limits;

/// Action for a connection request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Accept it.
    Accept,
    /// Reject it.
    Reject,
    /// Pend it and ask; see [`Answer`].
    Ask,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Ask => "ask",
        })
    }
}

/// The answer to a pended request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Answer {
    /// Accept it.
    Accept,
    /// Reject it.
    Reject,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
        })
    }
}

/// A word that is none of those that a value is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord(pub(crate) &'static str);

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl core::error::Error for UnknownWord {}

impl FromStr for Action {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "accept" => Ok(Self::Accept),
            "reject" => Ok(Self::Reject),
            "ask" => Ok(Self::Ask),
            _ => Err(UnknownWord("accept, reject or ask")),
        }
    }
}

impl FromStr for Answer {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "accept" => Ok(Self::Accept),
            "reject" => Ok(Self::Reject),
            _ => Err(UnknownWord("accept or reject")),
        }
    }
}

/// A network, or a single address.
///
/// # Invariants
///
/// The bits behind the prefix are zero, and an IPv4 network is kept as one even if it was written in its
/// IPv6-mapped form: two networks are equal exactly if they hold the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net(IpNet);

impl Net {
    /// The network's address and how many of its bits are fixed.
    pub fn parts(&self) -> (IpAddr, u8) {
        (self.0.addr(), self.0.prefix_len())
    }

    /// The network of the first `bits` bits of `address`; `None` if an address has not so many.
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        IpNet::new(address, bits).ok().map(Self::from)
    }

    /// True if the network holds `address`. An IPv6-mapped IPv4 address is taken as the IPv4 address it
    /// stands for.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.holds(address.to_canonical())
    }

    /// Returns what [`Net::contains`] returns, for an address in canonical form.
    fn holds(&self, address: IpAddr) -> bool {
        // It is the network of so many bits that the address is in.
        Self::new(address, self.0.prefix_len()) == Some(*self)
    }

    /// The bits that are fixed, counted as if every network were an IPv6 one.
    fn specificity(&self) -> u8 {
        match self.0 {
            IpNet::V4(net) => 96 + net.prefix_len(),
            IpNet::V6(net) => net.prefix_len(),
        }
    }
}

impl From<IpNet> for Net {
    fn from(net: IpNet) -> Self {
        // What `trunc` does, which can panic as far as the compiler can tell.
        let net = IpNet::new(net.network(), net.prefix_len()).unwrap_or(net);
        if let IpNet::V6(v6) = net
            && let Some(bits) = v6.prefix_len().checked_sub(96)
            && let Some(v4) = v6.addr().to_ipv4_mapped()
            && let Ok(v4) = Ipv4Net::new(v4, bits)
        {
            return Self(IpNet::V4(v4));
        }
        Self(net)
    }
}

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        Self::from(IpNet::from(address))
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let Some((address, bits)) = text.split_once(['/']) else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| NetError);
        };
        let address = address.parse().map_err(|_| NetError)?;
        // `parse` would take a sign.
        let bits = bits.parse().ok().filter(|_| !bits.starts_with(['+']));
        bits.and_then(|bits| Self::new(address, bits)).ok_or(NetError)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

/// The text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetError;

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an address or a network, such as 10.1.2.3, 10.0.0.0/8, ::1 or 2001:db8::/32")
    }
}

impl core::error::Error for NetError {}

/// Networks with their actions, the action for everyone else, and the limits for all of them.
///
/// # Invariants
///
/// `rules[..len]` holds each network once, in the order of falling specificity, so that the first match is
/// the most specific one.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: [(Net, Action); Self::CAPACITY],
    len: usize,
    default: Action,
    limits: Limits,
}

impl Policy {
    /// The number of networks a policy can name.
    pub const CAPACITY: usize = 64;

    /// A policy that gives everyone the action `default`, under the limits of [`Limits::DEFAULT`].
    pub const fn new(default: Action) -> Self {
        let unused = Net(IpNet::V4(Ipv4Net::new_assert(core::net::Ipv4Addr::UNSPECIFIED, 0)));
        Self { rules: [(unused, Action::Reject); Self::CAPACITY], len: 0, default, limits: Limits::DEFAULT }
    }

    /// Gives everyone whom no network names the action `default`.
    pub fn set_default(&mut self, default: Action) {
        self.default = default;
    }

    /// Sets the limits.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Gives the network `net` the action `action`. The order of calls does not matter.
    ///
    /// # Errors
    ///
    /// The same network has another action already, or the policy is full. It is unchanged then.
    pub fn add(&mut self, net: Net, action: Action) -> Result<(), PolicyError> {
        if let Some((_, earlier)) = self.rules().iter().find(|(known, _)| *known == net) {
            if *earlier == action {
                return Ok(());
            }
            return Err(PolicyError::Contradiction { net, earlier: *earlier, later: action });
        }
        let at = self.rules().partition_point(|(known, _)| known.specificity() >= net.specificity());
        let Some(free) = self.rules.get_mut(at..=self.len) else { return Err(PolicyError::Full) };
        // Each of those behind it moves up by one.
        free.iter_mut().fold((net, action), |rule, place| core::mem::replace(place, rule));
        self.len += 1;
        Ok(())
    }

    /// The action for a request from `remote`: that of the most specific network which holds it.
    ///
    /// An IPv6 network around the IPv4-mapped addresses, such as `::/0`, holds IPv4 addresses when it is to
    /// be rejected or asked about, and does not when it is to be accepted: whichever was meant, no one gets
    /// in by it.
    ///
    /// # IRQL
    ///
    /// Any.
    pub fn action(&self, remote: IpAddr) -> Action {
        let remote = remote.to_canonical();
        let mapped = match remote {
            IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::V6(_) => remote,
        };
        let matches = |&&(net, action): &&(Net, Action)| {
            net.holds(remote) || (action != Action::Accept && net.holds(mapped))
        };
        self.rules().iter().find(matches).map_or(self.default, |(_, action)| *action)
    }

    /// The action for everyone whom no network names.
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// The networks and their actions, the most specific first.
    pub fn rules(&self) -> &[(Net, Action)] {
        &self.rules[..self.len]
    }
}

/// A rule that a [`Policy`] cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// The network has another action already.
    Contradiction {
        /// The network.
        net: Net,
        /// The action it has.
        earlier: Action,
        /// The action it was to get.
        later: Action,
    },
    /// [`Policy::CAPACITY`] networks are named already.
    Full,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradiction { net, earlier, later } => {
                write!(f, "{net} cannot have both actions, {earlier} and {later}")
            }
            Self::Full => write!(f, "more than {} networks", Policy::CAPACITY),
        }
    }
}

impl core::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        text.parse().expect(text)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn the_most_specific_network_wins_in_any_order() {
        let rules = [
            ("0.0.0.0/0", Action::Reject),
            ("127.0.0.0/8", Action::Ask),
            ("127.0.0.2", Action::Accept),
            ("127.0.0.0/30", Action::Reject),
            ("2001:db8::/32", Action::Accept),
            ("2001:db8::1", Action::Reject),
        ];
        for turn in 0..rules.len() {
            let mut policy = Policy::new(Action::Ask);
            for (text, action) in rules.iter().cycle().skip(turn).take(rules.len()) {
                policy.add(net(text), *action).expect("there is room");
            }
            for (remote, action) in [
                ("127.0.0.2", Action::Accept),
                ("127.0.0.3", Action::Reject),
                ("127.0.0.4", Action::Ask),
                ("10.0.0.1", Action::Reject),
                ("2001:db8::1", Action::Reject),
                ("2001:db8::2", Action::Accept),
                ("::1", Action::Ask),
                ("::ffff:127.0.0.2", Action::Accept),
            ] {
                assert_eq!(policy.action(ip(remote)), action, "{remote}");
            }
        }
    }

    /// A network of IPv6 addresses that has the IPv4-mapped ones in it does not let IPv4 peers through that
    /// it is to keep out, and does not let any in.
    #[test]
    fn ipv6_networks_around_the_mapped_addresses_fail_closed() {
        for text in ["::/0", "::/1", "::/80", "::ffff:0:0/95", "::ffff:10.1.2.3/90"] {
            for (action, seen) in [
                (Action::Reject, Action::Reject),
                (Action::Ask, Action::Ask),
                (Action::Accept, Action::Reject),
            ] {
                let default = if action == Action::Accept { Action::Reject } else { Action::Accept };
                let mut policy = Policy::new(default);
                policy.add(net(text), action).expect("there is room");
                for remote in ["10.1.2.3", "::ffff:10.1.2.3"] {
                    assert_eq!(policy.action(ip(remote)), seen, "{action} {text} and {remote}");
                }
                // What is said about IPv4 addresses themselves is more specific.
                policy.add(net("10.0.0.0/8"), Action::Accept).expect("there is room");
                assert_eq!(policy.action(ip("::ffff:10.1.2.3")), Action::Accept, "{action} {text}");
                assert_eq!(policy.action(ip("11.1.2.3")), seen, "{action} {text}");
            }
        }
        // One that lies beside them has nothing to say.
        let mut policy = Policy::new(Action::Accept);
        for text in ["::/97", "::fffe:0:0/96", "8000::/1", "64:ff9b::/96"] {
            policy.add(net(text), Action::Reject).expect("there is room");
        }
        assert_eq!(policy.action(ip("10.1.2.3")), Action::Accept);
        assert_eq!(policy.action(ip("64:ff9b::a01:203")), Action::Reject);
    }

    /// The less an IPv6 network is specific, the later its turn comes, also for IPv4 addresses.
    #[test]
    fn the_most_specific_of_the_ipv6_networks_counts_for_ipv4_addresses() {
        let mut policy = Policy::new(Action::Accept);
        policy.add(net("::/0"), Action::Reject).expect("there is room");
        policy.add(net("::/64"), Action::Ask).expect("there is room");
        policy.add(net("::/72"), Action::Accept).expect("there is room");
        assert_eq!(policy.action(ip("10.1.2.3")), Action::Ask);
        assert_eq!(policy.action(ip("2001:db8::1")), Action::Reject);
        assert_eq!(policy.action(ip("::1")), Action::Accept);
    }

    #[test]
    fn networks_are_parsed_and_printed() {
        for (text, printed) in [
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::1", "::1"),
            ("2001:db8:1::/32", "2001:db8::/32"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(std::format!("{}", net(text)), printed);
        }
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "/8",
            "localhost",
            "10.0.0.1:80",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
        ] {
            assert_eq!(text.parse::<Net>(), Err(NetError), "{text}");
        }
    }

    #[test]
    fn a_contradiction_is_refused_and_a_repetition_is_not() {
        let mut policy = Policy::new(Action::Accept);
        policy.add(net("10.0.0.0/8"), Action::Reject).expect("new");
        policy.add(net("10.1.0.0/8"), Action::Reject).expect("the same again");
        let error = policy.add(net("::ffff:10.0.0.0/104"), Action::Ask).expect_err("another action");
        assert_eq!(std::format!("{error}"), "10.0.0.0/8 cannot have both actions, reject and ask");
        assert_eq!(policy.action(ip("10.2.3.4")), Action::Reject);
    }

    #[test]
    fn a_full_policy_says_so_and_keeps_what_it_has() {
        let mut policy = Policy::new(Action::Accept);
        for last in 0..Policy::CAPACITY as u8 {
            policy.add(Net::from(IpAddr::from([10, 0, 0, last])), Action::Reject).expect("there is room");
        }
        assert_eq!(policy.add(net("10.1.0.0/16"), Action::Ask), Err(PolicyError::Full));
        assert_eq!(policy.add(net("11.0.0.0"), Action::Ask), Err(PolicyError::Full));
        policy.add(net("10.0.0.63"), Action::Reject).expect("known already");
        assert_eq!(policy.action(ip("10.0.0.63")), Action::Reject);
        assert_eq!(policy.action(ip("10.1.0.0")), Action::Accept);
    }
}
