//! The command line.

use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};
use gate_protocol::cli::{LimitArgs, PolicyArgs, word};
use gate_protocol::{Answer, Policy};

/// Controls the conditional-accept driver.
#[derive(Debug, Parser)]
#[command(name = "gatectl", version, after_help = AFTER_HELP)]
pub struct Options {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:\n  \
  gatectl policy set --reject 10.0.0.0/8 --ask 192.168.1.0/24   all others are accepted\n  \
  gatectl policy set --max-per-source 16                        nothing else changes\n  \
  gatectl watch --json                                          one object per line\n  \
  gatectl ask                                                   interactive: a accepts, r rejects\n\n\
Exit status: 0 on success, 1 on failure, 2 for invalid options.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the status and the counters of the service
    Status(Format),
    /// Show or replace the policy
    Policy {
        /// The subcommand.
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Follow records until Ctrl-C, from the oldest that the driver keeps
    Watch(WatchOptions),
    /// Answer questions about pended requests until Ctrl-C
    Ask(AskOptions),
}

/// The commands for the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the policy that is in force, the most specific network first
    Show(Format),
    /// Replace the networks and the default action as a whole, or single limits, and show the result
    Set(PolicyOptions),
}

/// Output format.
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
    pub limits: LimitArgs,
    /// Output format.
    pub format: Format,
}

impl PolicyOptions {
    /// The policy that takes the place of `current`.
    pub fn apply(&self, current: &Policy) -> Policy {
        let mut policy = self.rules.as_deref().unwrap_or(current).clone();
        policy.set_limits(self.limits.apply(current.limits()));
        policy
    }
}

/// Options of `policy set`.
#[derive(Args, Debug)]
#[group(id = "rules", required = true, multiple = true, args = PolicyArgs::IDS)]
struct SetArgs {
    #[command(flatten)]
    policy: PolicyArgs,

    #[command(flatten)]
    format: Format,
}

impl FromArgMatches for PolicyOptions {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let SetArgs { policy, format } = SetArgs::from_arg_matches(matches)?;
        let rules = policy
            .rules()
            .map_err(|error| Options::command().error(ErrorKind::ArgumentConflict, error))?
            .map(Box::new);
        Ok(Self { rules, limits: policy.limits, format })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for PolicyOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        SetArgs::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        SetArgs::augment_args_for_update(command)
    }
}

/// Conditions to exit.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until {
    /// Exit after N records or answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Exit after N seconds; with --count, fail if there were fewer
    #[arg(long, value_name = "N")]
    pub seconds: Option<u32>,
}

impl Until {
    /// Returns the time at which to exit.
    pub(crate) fn end(self) -> Option<Instant> {
        Instant::now().checked_add(Duration::from_secs(self.seconds?.into()))
    }
}

/// The options of `watch`.
#[derive(Args, Clone, Copy, Debug)]
pub struct WatchOptions {
    /// Conditions to exit.
    #[command(flatten)]
    pub until: Until,
    /// Output format.
    #[command(flatten)]
    pub format: Format,
}

/// The options of `ask`.
#[derive(Args, Clone, Copy, Debug)]
pub struct AskOptions {
    /// Answer every question with ANSWER; by default answers are read from standard input: a, r, or q to quit
    #[arg(long, value_name = "ANSWER", value_parser = word::<Answer>(&["accept", "reject"]))]
    pub verdict: Option<Answer>,
    /// Conditions to exit.
    #[command(flatten)]
    pub until: Until,
    /// Output format.
    #[command(flatten)]
    pub format: Format,
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gate_protocol::{Action, Limits};

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

    /// Options that are not given keep their values: limits one by one, networks and the default together.
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
