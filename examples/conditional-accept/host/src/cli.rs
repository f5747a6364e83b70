//! The options of the example.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};
use gate_service::Limits;
use gate_service::policy::{Action, Answer, Net, Policy, PolicyError};
use gate_service::record::AcceptBy;

/// An echo service with a gate in front.
///
/// Every byte that comes is sent back. Who may connect is decided before the connection exists: by the network the
/// request comes from (the most specific one that was named wins), or after a while by an asker.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7007")]
    pub(crate) listen: SocketAddr,

    /// Accept requests from this address or network (repeatable)
    #[arg(long, value_name = "NET")]
    accept: Vec<Net>,

    /// Reject requests from this address or network (repeatable)
    #[arg(long, value_name = "NET")]
    reject: Vec<Net>,

    /// Pend requests from this address or network, and ask (repeatable)
    #[arg(long, value_name = "NET")]
    ask: Vec<Net>,

    /// What to do with everyone else
    #[arg(long, value_name = "ACTION", default_value = "accept")]
    default: Word<Action>,

    /// What the asker answers
    #[arg(long, value_name = "ANSWER", default_value = "accept")]
    verdict: Word<Answer>,

    /// How long the asker takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    verdict_after: u32,

    /// Take connections by WskAccept requests, or by WskAcceptEvent
    #[arg(long, value_name = "WAY", default_value = "irp")]
    accept_by: Word<AcceptBy>,

    /// Reject who comes when so many are served and asked about. Each takes a descriptor, and with none left further clients are
    /// refused: `ulimit -n` is the limit if it is lower
    #[arg(long, value_name = "N", default_value_t = MOST, value_parser = among(Limits::CLIENTS))]
    max_clients: u32,

    /// Reject who comes when so many of them are of the same source, an IPv4 address or an IPv6 /64; 0 for any number
    #[arg(long, value_name = "N", default_value_t = MOST / 2, value_parser = among(Limits::PER_SOURCE))]
    max_per_source: u32,

    /// Close a connection that is silent for so many milliseconds; 0 for never
    #[arg(
        long, value_name = "MS", default_value_t = Limits::DEFAULT.idle_timeout,
        value_parser = among(Limits::IDLE_TIMEOUT)
    )]
    idle_timeout: u32,

    /// Unload after so many seconds; without it on Ctrl-C or SIGTERM
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,

    /// Print for people, or one JSON object per line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: Format,
}

/// How many clients there may be if it is not said: more than the driver takes, as memory is not scarce here. Half of them can be
/// of one source: on one machine, where the example is tried, there are few sources, and each connects from some 28,000 ports unless
/// the host is told otherwise.
const MOST: u32 = *Limits::CLIENTS.end();

/// A number in a range.
fn among(range: RangeInclusive<u32>) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*range.start())..=i64::from(*range.end()))
}

const AFTER_HELP: &str = "\
Example: accept by default, reject one address, ask about a network\n  \
  gate-host --reject 127.0.0.3 --ask 127.0.0.4/31\n\n\
Exit status: 0 if the contract was kept and nothing leaked, 1 if not or if the service could not start or not print all, 2 for\n\
wrong options. A host that has no memory left aborts it (134): the pool of the simulated kernel is the host's memory. Limit\n\
clients by --max-clients rather than memory by ulimit -v.";

impl Options {
    /// Reads the command line; on wrong options it prints what is wrong and exits with status 2.
    pub(crate) fn from_command_line() -> (Self, Policy) {
        let options = Self::parse();
        match options.policy() {
            Ok(policy) => (options, policy),
            Err(error) => Self::command().error(ErrorKind::ArgumentConflict, error).exit(),
        }
    }

    /// The networks and their actions.
    fn policy(&self) -> Result<Policy, PolicyError> {
        let mut policy = Policy::new(self.default.0);
        let Self { max_clients: clients, max_per_source: per_source, idle_timeout, .. } = *self;
        policy.set_limits(Limits { clients, per_source, idle_timeout });
        for (nets, action) in
            [(&self.accept, Action::Accept), (&self.reject, Action::Reject), (&self.ask, Action::Ask)]
        {
            for net in nets {
                policy.add(*net, action)?;
            }
        }
        Ok(policy)
    }

    /// What the asker answers.
    pub(crate) fn verdict(&self) -> Answer {
        self.verdict.0
    }

    /// When the asker answers.
    pub(crate) fn verdict_after(&self) -> Duration {
        Duration::from_millis(self.verdict_after.into())
    }

    /// How connections are taken.
    pub(crate) fn accept_by(&self) -> AcceptBy {
        self.accept_by.0
    }

    /// When to unload without being told to.
    pub(crate) fn unload_after(&self) -> Option<Duration> {
        self.seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A type of the shared part as an option's value: it knows nothing of command lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word<T>(T);

macro_rules! words {
    ($type:ident: $($value:ident $word:literal),+) => {
        impl ValueEnum for Word<$type> {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self($type::$value)),+]
            }
            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self.0 {
                    $($type::$value => PossibleValue::new($word)),+
                })
            }
        }
    };
}
words!(Action: Accept "accept", Reject "reject", Ask "ask");
words!(Answer: Accept "accept", Reject "reject");
words!(AcceptBy: Irp "irp", Event "event");

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn parse(words: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(["gate-host"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_command_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let options = parse("").expect("no options are needed");
        assert_eq!(options.listen, SocketAddr::from(([127, 0, 0, 1], 7007)));
        assert_eq!(options.policy().expect("empty").action(IpAddr::from([127, 0, 0, 1])), Action::Accept);
        assert_eq!(
            (options.verdict(), options.verdict_after()),
            (Answer::Accept, Duration::from_millis(200))
        );
        assert_eq!((options.accept_by(), options.unload_after()), (AcceptBy::Irp, None));
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
        assert_eq!((options.verdict(), options.verdict_after()), (Answer::Reject, Duration::ZERO));
        assert_eq!(
            (options.accept_by(), options.unload_after()),
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
