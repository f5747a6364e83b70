//! The command line.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};
use gate_protocol::{Action, Answer, Limits, Net, Policy};

/// Looks at and steers the conditional-accept driver.
#[derive(Debug, Parser)]
#[command(name = "gatectl", version, after_help = AFTER_HELP)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:\n  \
  gatectl policy set --reject 10.0.0.0/8 --ask 192.168.1.0/24   everyone else is accepted\n  \
  gatectl policy set --max-per-source 16                        nothing else changes\n  \
  gatectl watch --json                                          one object per line\n  \
  gatectl ask                                                   asks you: a accepts, r rejects\n\n\
Exit status: 0 if it was done, 1 if not, 2 for wrong options.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how the service is doing, and what it has counted
    Status(Format),
    /// Show or replace the policy: who may connect
    Policy {
        /// Which of the two.
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Follow what happens, until Ctrl-C; it begins with what the driver remembers
    Watch(WatchOptions),
    /// Answer the questions whether a pended request may connect, until Ctrl-C
    Ask(AskOptions),
}

/// The commands for the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the policy that is in force, the most specific network first
    Show(Format),
    /// Replace the networks and the default as a whole, or limits one by one, and show what is in force then
    Set(PolicyOptions),
}

/// How to print.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

/// A new policy, consistent as options go: contradictions are refused as wrong options.
#[derive(Debug)]
pub struct PolicyOptions {
    /// The networks and the default; `None` if they are to stay.
    pub rules: Option<Box<Policy>>,
    /// The limits that are to change.
    pub limits: LimitOptions,
    /// How to print it.
    pub format: Format,
}

/// Limits, each of which stays as it is if it is not said.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitOptions {
    /// How many clients there may be, connections and pended requests together; of these, half at most are pended requests
    #[arg(long, value_name = "N", value_parser = among(Limits::CLIENTS))]
    max_clients: Option<u32>,

    /// How many of them may come from one source, an IPv4 address or an IPv6 /64; 0 for any number
    #[arg(long, value_name = "N", value_parser = among(Limits::PER_SOURCE))]
    max_per_source: Option<u32>,

    /// How many milliseconds a connection may be silent; 0 for ever
    #[arg(long, value_name = "MS", value_parser = among(Limits::IDLE_TIMEOUT))]
    idle_timeout: Option<u32>,
}

/// A number in a range.
fn among(range: RangeInclusive<u32>) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*range.start())..=i64::from(*range.end()))
}

impl PolicyOptions {
    /// The policy that takes the place of `current`.
    pub fn apply(&self, current: &Policy) -> Policy {
        let mut policy = self.rules.as_deref().unwrap_or(current).clone();
        let LimitOptions { max_clients, max_per_source, idle_timeout } = self.limits;
        let limits = current.limits();
        policy.set_limits(Limits {
            clients: max_clients.unwrap_or(limits.clients),
            per_source: max_per_source.unwrap_or(limits.per_source),
            idle_timeout: idle_timeout.unwrap_or(limits.idle_timeout),
        });
        policy
    }
}

/// The options that make up a policy.
#[derive(Args, Debug)]
#[group(
    id = "rules", required = true, multiple = true,
    args = ["accept", "reject", "ask", "default", "max_clients", "max_per_source", "idle_timeout"]
)]
struct PolicyArgs {
    /// Accept requests from this address or network (repeatable)
    #[arg(long, value_name = "NET")]
    accept: Vec<Net>,

    /// Reject requests from this address or network (repeatable)
    #[arg(long, value_name = "NET")]
    reject: Vec<Net>,

    /// Pend requests from this address or network, and ask (repeatable)
    #[arg(long, value_name = "NET")]
    ask: Vec<Net>,

    /// What to do with everyone else; accept if it is not said
    #[arg(long, value_name = "ACTION", value_parser = word::<Action>(&["accept", "reject", "ask"]))]
    default: Option<Action>,

    #[command(flatten)]
    limits: LimitOptions,

    #[command(flatten)]
    format: Format,
}

impl FromArgMatches for PolicyOptions {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let args = PolicyArgs::from_arg_matches(matches)?;
        let networks = [&args.accept, &args.reject, &args.ask].into_iter().any(|nets| !nets.is_empty());
        let rules = networks || args.default.is_some();
        let mut policy = Box::new(Policy::new(args.default.unwrap_or(Action::Accept)));
        for (nets, action) in
            [(&args.accept, Action::Accept), (&args.reject, Action::Reject), (&args.ask, Action::Ask)]
        {
            for net in nets {
                policy
                    .add(*net, action)
                    .map_err(|error| Options::command().error(ErrorKind::ArgumentConflict, error))?;
            }
        }
        Ok(Self { rules: rules.then_some(policy), limits: args.limits, format: args.format })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for PolicyOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        PolicyArgs::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        PolicyArgs::augment_args_for_update(command)
    }
}

/// When to end.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until {
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after so many seconds; with --count that is a failure if there were not as many
    #[arg(long, value_name = "N")]
    pub seconds: Option<u32>,
}

impl Until {
    /// When the time is up.
    pub(crate) fn end(self) -> Option<Instant> {
        Instant::now().checked_add(Duration::from_secs(self.seconds?.into()))
    }
}

/// The options of `watch`.
#[derive(Args, Clone, Copy, Debug)]
pub struct WatchOptions {
    /// When to end.
    #[command(flatten)]
    pub until: Until,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// The options of `ask`.
#[derive(Args, Clone, Copy, Debug)]
pub struct AskOptions {
    /// Give every question this answer; without it you are asked: a accepts, r rejects, q ends
    #[arg(long, value_name = "ANSWER", value_parser = word::<Answer>(&["accept", "reject"]))]
    pub verdict: Option<Answer>,
    /// When to end.
    #[command(flatten)]
    pub until: Until,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// One of a few words, so that the help can list them.
fn word<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn parse(words: &str) -> Result<Command, clap::Error> {
        let words = ["gatectl"].into_iter().chain(words.split_whitespace());
        Options::try_parse_from(words).map(|options| options.command)
    }

    #[test]
    fn the_command_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_policy_is_made_of_its_options() {
        let words =
            "policy set --accept 127.0.0.1 --reject 127.0.0.0/8 --ask 127.0.0.4/31 --default reject --json";
        let Ok(Command::Policy { command: PolicyCommand::Set(options) }) = parse(words) else {
            panic!("well formed");
        };
        assert!(options.format.json);
        let mut current = Policy::new(Action::Ask);
        current.set_limits(Limits { clients: 5, per_source: 4, idle_timeout: 3 });
        for (remote, action) in [
            ("127.0.0.1", Action::Accept),
            ("127.0.0.2", Action::Reject),
            ("127.0.0.5", Action::Ask),
            ("::1", Action::Reject),
        ] {
            assert_eq!(
                options.apply(&current).action(remote.parse::<IpAddr>().expect("an address")),
                action,
                "{remote}"
            );
        }
        assert_eq!(options.apply(&current).limits(), current.limits());
    }

    /// What is not said stays: limits one by one, networks and the default together.
    #[test]
    fn limits_are_set_one_by_one() {
        let mut current = Policy::new(Action::Ask);
        current.add("10.0.0.0/8".parse().expect("a network"), Action::Reject).expect("room");
        current.set_limits(Limits { clients: 5, per_source: 4, idle_timeout: 3 });
        for (words, rules, limits) in [
            ("--max-clients 9", 1, (9, 4, 3)),
            ("--max-per-source 0", 1, (5, 0, 3)),
            ("--idle-timeout 60000 --max-clients 6", 1, (6, 4, 60_000)),
            ("--default ask --max-per-source 2", 0, (5, 2, 3)),
        ] {
            let Ok(Command::Policy { command: PolicyCommand::Set(options) }) =
                parse(&format!("policy set {words}"))
            else {
                panic!("{words} is well formed");
            };
            let policy = options.apply(&current);
            let Limits { clients, per_source, idle_timeout } = policy.limits();
            assert_eq!((clients, per_source, idle_timeout), limits, "{words}");
            assert_eq!((policy.rules().len(), policy.default_action()), (rules, Action::Ask), "{words}");
        }
    }

    #[test]
    fn limits_and_verdicts_are_taken() {
        let Ok(Command::Ask(options)) = parse("ask --verdict reject --count 3 --seconds 7") else {
            panic!("well formed");
        };
        assert_eq!(options.verdict, Some(Answer::Reject));
        assert_eq!(options.until, Until { count: Some(3), seconds: Some(7) });
        assert!(!options.format.json);
    }

    #[test]
    fn wrong_options_are_refused() {
        let many: String =
            (0..=Policy::CAPACITY).flat_map(|n| [" --ask 10.0.0.".to_owned(), n.to_string()]).collect();
        for (words, said) in [
            ("", "Usage: gatectl"),
            ("list", "unrecognized subcommand"),
            ("status --colour", "unexpected argument"),
            ("policy", "Usage: gatectl policy"),
            ("policy set", "required"),
            ("policy set --json", "required"),
            ("policy set --accept 1.2.3", "2001:db8::/32"),
            ("policy set --max-clients 0", "0 is not in 1..=65536"),
            ("policy set --max-per-source 65537", "65537 is not in 0..=65536"),
            ("policy set --idle-timeout soon", "invalid digit"),
            ("policy set --default maybe", "possible values: accept, reject, ask"),
            ("policy set --accept 10.0.0.0/8 --ask 10.1.2.3/8", "both actions, accept and ask"),
            (&format!("policy set{many}"), "more than 64 networks"),
            ("watch --count 0", "--count"),
            ("watch --count -1", "-1"),
            ("ask --verdict ask", "possible values: accept, reject"),
            ("ask --seconds soon", "--seconds"),
        ] {
            let error = parse(words).expect_err(words);
            assert_eq!(error.exit_code(), 2, "{words}");
            assert!(error.to_string().contains(said), "{words}: {error}");
        }
    }
}
