//! The driver's parameters, from registry values.
//!
//! | value | type | value | default |
//! |---|---|---|---|
//! | `Listen` | `REG_SZ` | address and port | `0.0.0.0:7007` |
//! | `Accept`, `Reject`, `Ask` | `REG_MULTI_SZ` | addresses and networks | none |
//! | `Default` | `REG_SZ` | `accept`, `reject` or `ask`: the action for all other addresses | `accept` |
//! | `VerdictTimeout` | `REG_DWORD` | time limit of an answer in milliseconds, 1 to 600000 | 5000 |
//! | `AcceptBy` | `REG_SZ` | `irp` or `event` | `irp` |
//! | `MaxClients` | `REG_DWORD` | limit on connections and pended requests, 1 to 65536 | 4096 |
//! | `MaxPerSource` | `REG_DWORD` | the same for one IPv4 address or IPv6 /64, up to 65536; 0: none | 64 |
//! | `IdleTimeout` | `REG_DWORD` | idle time limit in milliseconds, up to 86400000; 0: none | 120000 |
//!
//! Any bytes give parameters. An invalid value is reported, and so is each invalid entry of a list. Errors
//! never open the gate: without a valid address the driver does not listen, and with an error in the policy
//! all addresses are rejected that no valid entry names. Everything else keeps its value.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::str::FromStr;

use arrayvec::ArrayString;
use gate_protocol::Limits;
use gate_protocol::policy::{Action, Net, Policy, PolicyError};
use gate_protocol::record::{AcceptBy, Problem, Record, Setting};

/// `REG_SZ`.
pub const REG_SZ: u32 = 1;
/// `REG_DWORD`.
pub const REG_DWORD: u32 = 4;
/// `REG_MULTI_SZ`.
pub const REG_MULTI_SZ: u32 = 7;

/// Parameters of the driver.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Address to listen on; `None` if the registry has no usable one.
    pub listen: Option<SocketAddr>,
    /// Policy for connection requests.
    pub policy: Policy,
    /// Part of the policy cannot be told: its default is to reject, and stays so.
    pub strict: bool,
    /// Time limit of an answer, in milliseconds.
    pub verdict_timeout: u32,
    /// Accept path.
    pub accept_by: AcceptBy,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7007)),
            policy: Policy::new(Action::Accept),
            strict: false,
            verdict_timeout: 5000,
            accept_by: AcceptBy::Irp,
        }
    }
}

/// The least and the most milliseconds of `VerdictTimeout`.
const VERDICT_TIMEOUT: core::ops::RangeInclusive<u32> = 1..=600_000;

impl Parameters {
    /// Takes one registry value: its type and its bytes. Values may come in any order. If a network is named
    /// twice with different actions, the first one counts. Each [`Record::BadSetting`] is passed to `report`;
    /// one value gives at most [`Policy::CAPACITY`] and one.
    ///
    /// # IRQL
    /// Any.
    pub fn set(&mut self, setting: Setting, kind: u32, data: &[u8], mut report: impl FnMut(Record)) {
        self.read(setting, kind, data, &mut report);
    }

    /// [`set`](Self::set), compiled once, and apart from `DriverEntry`.
    #[inline(never)]
    fn read(&mut self, setting: Setting, kind: u32, data: &[u8], report: &mut dyn FnMut(Record)) {
        let mut all_good = true;
        let mut bad = |problem, entry| {
            all_good = false;
            report(Record::BadSetting { setting, problem, entry });
        };
        let done = match setting {
            Setting::Listen => text(kind, data)
                .and_then(|text| text.parse(Problem::NotAnAddress))
                .map(|listen| self.listen = Some(listen)),
            Setting::Accept => self.add(Action::Accept, kind, data, &mut bad),
            Setting::Reject => self.add(Action::Reject, kind, data, &mut bad),
            Setting::Ask => self.add(Action::Ask, kind, data, &mut bad),
            Setting::Default => word(kind, data).map(|action| {
                if !self.strict {
                    self.policy.set_default(action);
                }
            }),
            Setting::VerdictTimeout => {
                number(kind, data, VERDICT_TIMEOUT).map(|time| self.verdict_timeout = time)
            }
            Setting::AcceptBy => word(kind, data).map(|way| self.accept_by = way),
            Setting::MaxClients => number(kind, data, Limits::CLIENTS)
                .map(|clients| self.policy.set_limits(Limits { clients, ..self.policy.limits() })),
            Setting::MaxPerSource => number(kind, data, Limits::PER_SOURCE)
                .map(|per_source| self.policy.set_limits(Limits { per_source, ..self.policy.limits() })),
            Setting::IdleTimeout => number(kind, data, Limits::IDLE_TIMEOUT)
                .map(|idle_timeout| self.policy.set_limits(Limits { idle_timeout, ..self.policy.limits() })),
        };
        if let Err(problem) = done {
            bad(problem, 0);
        }
        if !all_good {
            self.doubt(setting);
        }
    }

    /// Takes note that a value is there, and not all of it can be used.
    pub fn doubt(&mut self, setting: Setting) {
        match setting {
            Setting::Listen => self.listen = None,
            Setting::Accept | Setting::Reject | Setting::Ask | Setting::Default => {
                self.strict = true;
                self.policy.set_default(Action::Reject);
            }
            // What stays in force is a limit, too.
            Setting::VerdictTimeout
            | Setting::AcceptBy
            | Setting::MaxClients
            | Setting::MaxPerSource
            | Setting::IdleTimeout => {}
        }
    }

    /// Gives the networks of a list an action. Entries that cannot be used are reported, and left out.
    fn add(
        &mut self,
        action: Action,
        kind: u32,
        data: &[u8],
        bad: &mut dyn FnMut(Problem, u32),
    ) -> Result<(), Problem> {
        let mut units = units(kind, REG_MULTI_SZ, data)?.peekable();
        for entry in 1.. {
            // The list ends with an empty text; one that just ends is taken as it is meant.
            if units.peek().is_none_or(|unit| *unit == 0) {
                break;
            }
            if entry as usize > Policy::CAPACITY {
                bad(Problem::TooLong, entry);
                break;
            }
            let mut one = units.by_ref().take_while(|unit| *unit != 0);
            let net = Text::read(&mut one).and_then(|text| text.parse::<Net>(Problem::NotANetwork));
            // What is left of an entry that could not be read is not the next one.
            one.for_each(drop);
            let added = net.and_then(|net| {
                self.policy.add(net, action).map_err(|error| match error {
                    PolicyError::Contradiction { .. } => Problem::Contradiction,
                    PolicyError::Full => Problem::TooLong,
                })
            });
            if let Err(problem) = added {
                bad(problem, entry);
            }
        }
        Ok(())
    }
}

/// The UTF-16 units of a value that has to have the type `wanted`.
fn units(kind: u32, wanted: u32, data: &[u8]) -> Result<impl Iterator<Item = u16> + '_, Problem> {
    if kind != wanted {
        return Err(Problem::WrongType);
    }
    let (units, rest) = data.as_chunks::<2>();
    if rest.is_empty() {
        Ok(units.iter().map(|unit| u16::from_le_bytes(*unit)))
    } else {
        Err(Problem::NotText)
    }
}

/// A text, up to its terminator, or whole if it has none.
fn text(kind: u32, data: &[u8]) -> Result<Text, Problem> {
    Text::read(units(kind, REG_SZ, data)?.take_while(|unit| *unit != 0))
}

/// One of the words that a setting takes, in whatever case.
fn word<T: FromStr>(kind: u32, data: &[u8]) -> Result<T, Problem> {
    let mut text = text(kind, data)?;
    text.0.make_ascii_lowercase();
    text.parse(Problem::UnknownWord)
}

fn number(kind: u32, data: &[u8], range: core::ops::RangeInclusive<u32>) -> Result<u32, Problem> {
    let bytes = <[u8; 4]>::try_from(data).ok().filter(|_| kind == REG_DWORD).ok_or(Problem::WrongType)?;
    let number = u32::from_le_bytes(bytes);
    if range.contains(&number) { Ok(number) } else { Err(Problem::OutOfRange) }
}

/// A text that is short enough to be an address, a network or a word. The longest is an IPv6 address with its
/// scope, its port, and some space around; all of them are ASCII.
struct Text(ArrayString<128>);

impl Text {
    fn read(units: impl Iterator<Item = u16>) -> Result<Self, Problem> {
        let mut text = ArrayString::new();
        for unit in units {
            let unit = u8::try_from(unit).ok().filter(u8::is_ascii).ok_or(Problem::NotText)?;
            text.try_push(unit.into()).map_err(|_| Problem::TooLong)?;
        }
        Ok(Self(text))
    }

    /// The value that the text stands for.
    fn parse<T: FromStr>(&self, otherwise: Problem) -> Result<T, Problem> {
        self.0.trim_ascii().parse().map_err(|_| otherwise)
    }
}

#[cfg(test)]
mod tests;
