//! Command-line options.

use std::net::SocketAddr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use gate_protocol::cli::{PolicyArgs, word};
use gate_service::Limits;
use gate_service::policy::{Action, Answer, Policy, PolicyError};
use gate_service::record::AcceptBy;

/// An echo service with a gate in front.
///
/// Every byte is sent back. Connection requests are accepted or rejected before there is a connection: by the
/// network the request comes from (the most specific one wins), or by an answer that comes later.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7007")]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    policy: PolicyArgs,

    /// Answer to requests that are asked about
    #[arg(
        long, value_name = "ANSWER", default_value = "accept",
        value_parser = word::<Answer>(&["accept", "reject"])
    )]
    pub(crate) verdict: Answer,

    /// Time in milliseconds until the answer
    #[arg(long, value_name = "MS", default_value_t = 200)]
    verdict_after: u32,

    /// Accept connections by WskAccept requests (irp) or by WskAcceptEvent (event)
    #[arg(
        long, value_name = "WAY", default_value = "irp",
        value_parser = word::<AcceptBy>(&["irp", "event"])
    )]
    pub(crate) accept_by: AcceptBy,

    /// Unload after N seconds, not only on Ctrl-C or SIGTERM
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,

    /// Print lines of text, or JSON, one object per line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: Format,
}

/// Default limits. There may be more clients than in the driver, as memory is not scarce here, and half of
/// them may come from one source: on the machine of a test there are few sources, and each has some 28,000
/// ports by default.
const DEFAULT_LIMITS: [(&str, &str); 3] =
    [("max_clients", "65536"), ("max_per_source", "32768"), ("idle_timeout", "120000")];

const AFTER_HELP: &str = "\
Example: accept by default, reject one address, ask about a network\n  \
  gate-host --reject 127.0.0.3 --ask 127.0.0.4/31\n\n\
Exit status: 0 if the WSK contract was kept and nothing leaked, 2 for invalid options, 1 otherwise.\n\n\
Each client takes a descriptor: `ulimit -n` limits clients if it is lower than --max-clients. The pool of\n\
the simulated kernel is the host's memory, and the process aborts (134) when the host has none left: limit\n\
clients by --max-clients rather than memory by `ulimit -v`.";

impl Options {
    /// Reads the command line. For wrong options it prints an error and exits with status 2.
    pub(crate) fn from_command_line() -> (Self, Policy) {
        let options = Self::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
        match options.policy() {
            Ok(policy) => (options, policy),
            Err(error) => command().error(ErrorKind::ArgumentConflict, error).exit(),
        }
    }

    /// Returns the policy that the options give.
    fn policy(&self) -> Result<Policy, PolicyError> {
        let mut policy = self.policy.rules()?.unwrap_or_else(|| Policy::new(Action::Accept));
        policy.set_limits(self.policy.limits.apply(Limits::DEFAULT));
        Ok(policy)
    }

    /// Time until requests that are asked about are answered.
    pub(crate) fn verdict_after(&self) -> Duration {
        Duration::from_millis(self.verdict_after.into())
    }

    /// Time after which to unload.
    pub(crate) fn unload_after(&self) -> Option<Duration> {
        self.seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines of text.
    Text,
    /// JSON, one object per line.
    Json,
}

/// The command line, with the defaults of the limits.
fn command() -> clap::Command {
    DEFAULT_LIMITS
        .into_iter()
        .fold(Options::command(), |command, (id, limit)| command.mut_arg(id, |arg| arg.default_value(limit)))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn parse(words: &str) -> Result<Options, clap::Error> {
        let matches =
            command().try_get_matches_from(["gate-host"].into_iter().chain(words.split_whitespace()))?;
        Options::from_arg_matches(&matches)
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let options = parse("").expect("no options are needed");
        assert_eq!(options.listen, SocketAddr::from(([127, 0, 0, 1], 7007)));
        assert_eq!(options.policy().expect("empty").action(IpAddr::from([127, 0, 0, 1])), Action::Accept);
        assert_eq!((options.verdict, options.verdict_after()), (Answer::Accept, Duration::from_millis(200)));
        assert_eq!((options.accept_by, options.unload_after()), (AcceptBy::Irp, None));
        assert_eq!(options.log, Format::Text);
        let limits = Limits { clients: 65_536, per_source: 32_768, idle_timeout: 120_000 };
        assert_eq!(options.policy().expect("empty").limits(), limits);
    }

    #[test]
    fn every_option_is_taken() {
        let options = parse(
            "--listen [::1]:0 --accept 127.0.0.1 --accept ::1 --reject 127.0.0.0/8 --ask 127.0.0.4/31 \
             --default reject --verdict reject --verdict-after 0 --accept-by event --seconds 3 --log json \
             --max-clients 9 --max-per-source 0 --idle-timeout 1500",
        )
        .expect("well formed");
        assert_eq!(options.listen, "[::1]:0".parse().expect("an address"));
        let policy = options.policy().expect("consistent");
        for (remote, action) in [
            ("127.0.0.1", Action::Accept),
            ("127.0.0.2", Action::Reject),
            ("127.0.0.5", Action::Ask),
            ("::1", Action::Accept),
            ("::2", Action::Reject),
        ] {
            assert_eq!(policy.action(remote.parse().expect("an address")), action, "{remote}");
        }
        assert_eq!(policy.limits(), Limits { clients: 9, per_source: 0, idle_timeout: 1500 });
        assert_eq!((options.verdict, options.verdict_after()), (Answer::Reject, Duration::ZERO));
        assert_eq!(
            (options.accept_by, options.unload_after()),
            (AcceptBy::Event, Some(Duration::from_secs(3)))
        );
        assert_eq!(options.log, Format::Json);
    }

    #[test]
    fn wrong_options_are_refused() {
        for words in [
            "--listen nowhere",
            "--listen 127.0.0.1",
            "--listen 127.0.0.1:70000",
            "--accept 1.2.3",
            "--reject 1.2.3.4/33",
            "--ask localhost",
            "--default maybe",
            "--verdict ask",
            "--verdict-after -1",
            "--accept-by hand",
            "--seconds soon",
            "--log xml",
            "--max-clients 0",
            "--max-clients 65537",
            "--max-per-source -1",
            "--idle-timeout 86400001",
            "--colour",
            "extra",
        ] {
            let error = parse(words).expect_err(words);
            assert_eq!(error.exit_code(), 2, "{words}");
        }
        let error = parse("--accept 1.2.3").expect_err("no network").to_string();
        assert!(error.contains("--accept <NET>") && error.contains("2001:db8::/32"), "{error}");
    }

    #[test]
    fn contradictions_and_long_lists_are_refused() {
        let options = parse("--accept 10.0.0.0/8 --reject 10.1.2.3/8").expect("each is well formed");
        let error = options.policy().expect_err("both").to_string();
        assert_eq!(error, "10.0.0.0/8 cannot have both actions, accept and reject");
        let many: String =
            (0..=Policy::CAPACITY).flat_map(|n| [" --ask 10.0.0.".to_owned(), n.to_string()]).collect();
        assert_eq!(parse(&many).expect("each is well formed").policy().expect_err("many"), PolicyError::Full);
    }
}
