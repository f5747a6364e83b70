//! The command line.

use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};
use gate_protocol::{Action, Answer, Net, Policy};

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
    /// Replace the policy as a whole, and show the new one
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
    /// The policy.
    pub policy: Box<Policy>,
    /// How to print it.
    pub format: Format,
}

/// The options that make up a policy.
#[derive(Args, Debug)]
#[group(id = "rules", required = true, multiple = true, args = ["accept", "reject", "ask", "default"])]
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
    format: Format,
}

impl FromArgMatches for PolicyOptions {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let args = PolicyArgs::from_arg_matches(matches)?;
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
        Ok(Self { policy, format: args.format })
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
pub struct Limits {
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after so many seconds; with --count that is a failure if there were not as many
    #[arg(long, value_name = "N")]
    pub seconds: Option<u32>,
}

impl Limits {
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
    pub limits: Limits,
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
    pub limits: Limits,
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
        for (remote, action) in [
            ("127.0.0.1", Action::Accept),
            ("127.0.0.2", Action::Reject),
            ("127.0.0.5", Action::Ask),
            ("::1", Action::Reject),
        ] {
            assert_eq!(
                options.policy.action(remote.parse::<IpAddr>().expect("an address")),
                action,
                "{remote}"
            );
        }
    }

    #[test]
    fn limits_and_verdicts_are_taken() {
        let Ok(Command::Ask(options)) = parse("ask --verdict reject --count 3 --seconds 7") else {
            panic!("well formed");
        };
        assert_eq!(options.verdict, Some(Answer::Reject));
        assert_eq!(options.limits, Limits { count: Some(3), seconds: Some(7) });
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
