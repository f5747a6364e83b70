//! What can be set from outside, by name.
//!
//! | name | value | default |
//! |---|---|---|
//! | `Callbacks` | the IRQL of event callbacks: `passive`, `dispatch`, or `random:<seed>` | `dispatch` |
//! | `Completions` | the IRQL of completion routines, likewise | `dispatch` |
//! | `Completion` | [when a request completes](Completion) whose outcome is known at once: `natural`, `inline`, `nested`, `early`, `late`, or `random:<seed>` | `natural` |
//! | `Connections` | the most connections at a time for listeners to take one more, or `none`; others wait | 1024 |
//! | `Log` | a file that the [journal](crate::journal) is appended to | none |
//!
//! They are string values of `HKLM\System\CurrentControlSet\Services\netio\Parameters`, read when the first client
//! registers; `cargo xtask wine start --completion …` sets `Completion`. (The environment would not do: Wine gives the process
//! of the drivers one of its own.)

use std::fmt;
use std::num::{NonZero, ParseIntError};
use std::path::PathBuf;

use wsk_provider::transport::live;
use wsk_provider::{Completion, Config, Level};

/// The connections at a time that Wine 8 holds: a thousand that end at once keep its server busy for some seconds, and that
/// grows with the square, because it looks at each that has ended, over and over, between any two requests.
const CONNECTIONS: usize = 1024;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The IRQL of event callbacks.
    pub callbacks: Level,
    /// The IRQL of completion routines.
    pub completions: Level,
    /// When requests complete whose outcome is known at once.
    pub completion: Completion,
    /// The most connections at a time for listeners to take one more; others wait in the host's queue.
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
    /// Reads the settings with `find`, which knows values by name. What cannot be used is left at its default, and said.
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
                    "setting {name}: {value:?} is none of passive, dispatch, random:<seed>; dispatch it is"
                )),
            }
        }
        if let Some(value) = find("Completion") {
            match completion(&value) {
                Some(completion) => settings.completion = completion,
                None => complaints.push(format!(
                    "setting Completion: {value:?} is none of natural, inline, nested, early, late, random:<seed>; natural it is"
                )),
            }
        }
        if let Some(value) = find("Connections") {
            match connections(&value) {
                Ok(connections) => settings.connections = connections,
                Err(_) => complaints.push(format!(
                    "setting Connections: {value:?} is neither none nor a number above 0; {CONNECTIONS} it is"
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
            // The functions that would mark them do nothing there.
            marked_mdls: false,
            // Ten thousand clients may come at once, and a driver that takes them one by one is slow here.
            backlog: 16_384,
            // This host watches none.
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
