//! Command-line options of a policy, shared by `gatectl` and `gate-host`.

use core::error::Error;
use core::ops::RangeInclusive;
use core::str::FromStr;
use std::vec::Vec;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedI64ValueParser, TypedValueParser};

use crate::{Action, Limits, Net, Policy, PolicyError};

/// Options that make up a policy.
#[derive(Args, Clone, Debug, Default)]
pub struct PolicyArgs {
    /// Accept requests from this address or network (repeatable)
    #[arg(long, value_name = "NET")]
    accept: Vec<Net>,

    /// Reject requests from this address or network (repeatable)
    #[arg(long, value_name = "NET")]
    reject: Vec<Net>,

    /// Pend requests from this address or network, and ask (repeatable)
    #[arg(long, value_name = "NET")]
    ask: Vec<Net>,

    /// Action for all other addresses [default: accept]
    #[arg(long, value_name = "ACTION", value_parser = word::<Action>(&["accept", "reject", "ask"]))]
    default: Option<Action>,

    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Options that set limits.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitArgs {
    /// Maximum number of clients: connections and pended requests, which may take up to half of it
    #[arg(long, value_name = "N", value_parser = in_range(Limits::CLIENTS))]
    max_clients: Option<u32>,

    /// Maximum number of clients from one source, an IPv4 address or an IPv6 /64 network; 0 for no limit
    #[arg(long, value_name = "N", value_parser = in_range(Limits::PER_SOURCE))]
    max_per_source: Option<u32>,

    /// Time in milliseconds after which an idle connection is reset; 0 for no limit
    #[arg(long, value_name = "MS", value_parser = in_range(Limits::IDLE_TIMEOUT))]
    idle_timeout: Option<u32>,
}

impl PolicyArgs {
    /// Identifiers of all options.
    pub const IDS: [&str; 7] =
        ["accept", "reject", "ask", "default", "max_clients", "max_per_source", "idle_timeout"];

    /// Returns the networks and the default action, or `None` if no option gives any. The limits are the
    /// default ones.
    ///
    /// # Errors
    ///
    /// If the options contradict each other, or name too many networks.
    pub fn rules(&self) -> Result<Option<Policy>, PolicyError> {
        let Self { accept, reject, ask, default, .. } = self;
        if accept.is_empty() && reject.is_empty() && ask.is_empty() && default.is_none() {
            return Ok(None);
        }
        let mut policy = Policy::new(default.unwrap_or(Action::Accept));
        for (nets, action) in [(accept, Action::Accept), (reject, Action::Reject), (ask, Action::Ask)] {
            for net in nets {
                policy.add(*net, action)?;
            }
        }
        Ok(Some(policy))
    }
}

impl LimitArgs {
    /// Returns `limits` with those replaced that the options give.
    #[must_use]
    pub fn apply(self, limits: Limits) -> Limits {
        Limits {
            clients: self.max_clients.unwrap_or(limits.clients),
            per_source: self.max_per_source.unwrap_or(limits.per_source),
            idle_timeout: self.idle_timeout.unwrap_or(limits.idle_timeout),
        }
    }
}

/// Parser of a number in a range.
fn in_range(range: RangeInclusive<u32>) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*range.start())..=i64::from(*range.end()))
}

/// Parser of one of a few words, which the help lists.
pub fn word<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}
