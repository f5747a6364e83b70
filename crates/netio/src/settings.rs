//! Settings from the registry.
//!
//! | name | value | default |
//! |---|---|---|
//! | `Callbacks` | the IRQL of event callbacks: `passive`, `dispatch`, or `random:<seed>` | `dispatch` |
//! | `Completions` | the IRQL of completion routines, likewise | `dispatch` |
//! | `Completion` | [when known outcomes complete](Completion), see below | `natural` |
//! | `Connections` | the limit of open connections for accepting another one, or `none` | 1024 |
//! | `Log` | a file that the [journal](crate::journal) is appended to | none |
//!
//! `Completion` is `natural`, `inline`, `nested`, `early`, `late`, or `random:<seed>`. Connections above the
//! limit wait in the host's queue.
//!
//! The settings are string values of `HKLM\System\CurrentControlSet\Services\netio\Parameters`, read when the
//! first client registers; `cargo xtask wine start --completion …` sets `Completion`. (An environment
//! variable would not work: Wine gives the process of the drivers its own environment.)

use std::fmt;
use std::num::{NonZero, ParseIntError};
use std::path::PathBuf;

use wsk_provider::transport::live;
use wsk_provider::{Completion, Config, Level};

/// The default limit of connections, for Wine 8: a thousand connections that end at once keep its server busy
/// for some seconds. That time grows with the square of the number, because the server scans all ended
/// connections between two requests.
const CONNECTIONS: usize = 1024;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The IRQL of event callbacks.
    pub callbacks: Level,
    /// The IRQL of completion routines.
    pub completions: Level,
    /// The mode in which requests complete whose outcome is known at once.
    pub completion: Completion,
    /// The number of connections below which listeners accept another one; others wait in the host's queue.
    pub connections: Option<usize>,
    /// The file of the journal.
    pub log: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            callbacks: Level::Dispatch,
            completions: Level::Dispatch,
            completion: Completion::Natural,
            connections: Some(CONNECTIONS),
            log: None,
        }
    }
}

impl Settings {
    /// Reads the settings with `find`, which returns values by name. An invalid value is replaced by its
    /// default and reported.
    pub fn read(find: impl Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut complaints = Vec::new();
        for (name, slot) in
            [("Callbacks", &mut settings.callbacks), ("Completions", &mut settings.completions)]
        {
            let Some(value) = find(name) else { continue };
            match level(&value) {
                Some(level) => *slot = level,
                None => complaints.push(format!(
                    "setting {name}: {value:?} must be passive, dispatch or random:<seed>; using dispatch"
                )),
            }
        }
        if let Some(value) = find("Completion") {
            match completion(&value) {
                Some(completion) => settings.completion = completion,
                None => complaints.push(format!(
                    "setting Completion: {value:?} must be natural, inline, nested, early, late or \
                     random:<seed>; using natural"
                )),
            }
        }
        if let Some(value) = find("Connections") {
            match connections(&value) {
                Ok(connections) => settings.connections = connections,
                Err(_) => complaints.push(format!(
                    "setting Connections: {value:?} must be none or a number above 0; using {CONNECTIONS}"
                )),
            }
        }
        settings.log = find("Log").filter(|path| !path.is_empty()).map(PathBuf::from);
        (settings, complaints)
    }

    /// The settings of the network.
    pub fn network(&self) -> live::Settings {
        live::Settings { streams: self.connections, ..live::Settings::default() }
    }

    /// The configuration of a provider.
    pub fn config(&self) -> Config {
        Config {
            callbacks: self.callbacks,
            completions: self.completions,
            completion: self.completion,
            // The functions that would mark MDLs do nothing in Wine.
            marked_mdls: false,
            // Ten thousand clients may connect at once, and a driver that accepts them one by one is slow
            // here.
            backlog: 16_384,
            // This host does not track memory.
            watch_memory: false,
            ..Config::default()
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "callbacks={} completions={} completion=",
            LevelText(self.callbacks),
            LevelText(self.completions)
        )?;
        match self.completion {
            Completion::Natural => f.write_str("natural"),
            Completion::Inline => f.write_str("inline"),
            Completion::PendNested => f.write_str("nested"),
            Completion::PendEarly => f.write_str("early"),
            Completion::PendLate => f.write_str("late"),
            Completion::Random(seed) => write!(f, "random:{seed}"),
        }?;
        match self.connections {
            Some(most) => write!(f, " connections={most}"),
            None => f.write_str(" connections=none"),
        }
    }
}

fn level(value: &str) -> Option<Level> {
    match value.to_ascii_lowercase().as_str() {
        "passive" => Some(Level::Passive),
        "dispatch" => Some(Level::Dispatch),
        other => seed(other).map(Level::Random),
    }
}

/// A number above 0, or `none`.
fn connections(value: &str) -> Result<Option<usize>, ParseIntError> {
    if value.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    value.parse::<NonZero<usize>>().map(|most| Some(most.get()))
}

fn completion(value: &str) -> Option<Completion> {
    match value.to_ascii_lowercase().as_str() {
        "natural" => Some(Completion::Natural),
        "inline" => Some(Completion::Inline),
        "nested" => Some(Completion::PendNested),
        "early" => Some(Completion::PendEarly),
        "late" => Some(Completion::PendLate),
        other => seed(other).map(Completion::Random),
    }
}

fn seed(value: &str) -> Option<u64> {
    value.strip_prefix("random:")?.parse().ok()
}

struct LevelText(Level);

impl fmt::Display for LevelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Level::Passive => f.write_str("passive"),
            Level::Dispatch => f.write_str("dispatch"),
            Level::Random(seed) => write!(f, "random:{seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> (Settings, Vec<String>) {
        Settings::read(|name| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(read(&[]), (Settings::default(), Vec::new()));
        assert_eq!(
            Settings::default().to_string(),
            "callbacks=dispatch completions=dispatch completion=natural connections=1024"
        );
    }

    #[test]
    fn values_are_read() {
        let (settings, complaints) = read(&[
            ("Callbacks", "Random:7"),
            ("Completions", "passive"),
            ("Connections", "17"),
            ("Log", r"C:\netio.log"),
            ("Completion", "Late"),
        ]);
        assert_eq!(settings.callbacks, Level::Random(7));
        assert_eq!(settings.completions, Level::Passive);
        assert_eq!(settings.log, Some(PathBuf::from(r"C:\netio.log")));
        assert_eq!(settings.network().streams, Some(17));
        assert_eq!(
            settings.to_string(),
            "callbacks=random:7 completions=passive completion=late connections=17"
        );
        assert_eq!(read(&[("Connections", "None")]).0.network().streams, None);
        assert!(complaints.is_empty());
    }

    #[test]
    fn every_completion_is_read_and_configured_and_shown() {
        for (value, completion) in [
            ("natural", Completion::Natural),
            ("inline", Completion::Inline),
            ("nested", Completion::PendNested),
            ("early", Completion::PendEarly),
            ("late", Completion::PendLate),
            ("random:11", Completion::Random(11)),
        ] {
            let (settings, complaints) = read(&[("Completion", value)]);
            assert!(complaints.is_empty());
            assert_eq!(settings.config().completion, completion);
            assert!(settings.to_string().contains(&format!(" completion={value} ")), "{settings}");
        }
    }

    #[test]
    fn a_bad_value_is_said_and_left_at_its_default() {
        for value in ["", "high", "random:", "random:x", "random:-1"] {
            for name in ["Callbacks", "Completion"] {
                let (settings, complaints) = read(&[(name, value)]);
                assert_eq!(settings, Settings::default(), "{name} {value}");
                assert_eq!(complaints.len(), 1, "{name} {value}");
            }
        }
        for value in ["", "0", "-1", "many"] {
            let (settings, complaints) = read(&[("Connections", value)]);
            assert_eq!(settings, Settings::default(), "{value}");
            assert_eq!(complaints.len(), 1, "{value}");
        }
    }
}
