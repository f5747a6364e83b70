//! What can be set from outside, by name.
//!
//! | name | value | default |
//! |---|---|---|
//! | `Callbacks` | the IRQL of event callbacks: `passive`, `dispatch`, or `random:<seed>` | `dispatch` |
//! | `Completions` | the IRQL of completion routines, likewise | `dispatch` |
//! | `Log` | a file that the [journal](crate::journal) is appended to | none |
//!
//! They are string values of `HKLM\System\CurrentControlSet\Services\netio\Parameters`, read when the first client
//! registers. (The environment would not do: Wine gives the process of the drivers one of its own.)

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use wsk_provider::{Config, Level};

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The IRQL of event callbacks.
    pub callbacks: Level,
    /// The IRQL of completion routines.
    pub completions: Level,
    /// The file of the journal.
    pub log: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { callbacks: Level::Dispatch, completions: Level::Dispatch, log: None }
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
        settings.log = find("Log").filter(|path| !path.is_empty()).map(PathBuf::from);
        (settings, complaints)
    }

    /// The configuration of a provider.
    pub fn config(&self) -> Config {
        Config {
            callbacks: self.callbacks,
            completions: self.completions,
            // The functions that would mark them do nothing there.
            marked_mdls: false,
            // Ten thousand clients may come at once, and a driver that takes them one by one is slow here.
            backlog: 16_384,
            // This host watches none.
            watch_memory: false,
            // A Windows host does not tell that a callback sleeps, and the probe holds one for no more than a second.
            return_patience: Duration::from_millis(500),
            ..Config::default()
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "callbacks={} completions={}", Shown(self.callbacks), Shown(self.completions))
    }
}

fn level(value: &str) -> Option<Level> {
    match value.to_ascii_lowercase().as_str() {
        "passive" => Some(Level::Passive),
        "dispatch" => Some(Level::Dispatch),
        other => other.strip_prefix("random:")?.parse().ok().map(Level::Random),
    }
}

struct Shown(Level);

impl fmt::Display for Shown {
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
        assert_eq!(Settings::default().to_string(), "callbacks=dispatch completions=dispatch");
    }

    #[test]
    fn values_are_read() {
        let (settings, complaints) =
            read(&[("Callbacks", "Random:7"), ("Completions", "passive"), ("Log", r"C:\netio.log")]);
        assert_eq!(settings.callbacks, Level::Random(7));
        assert_eq!(settings.completions, Level::Passive);
        assert_eq!(settings.log, Some(PathBuf::from(r"C:\netio.log")));
        assert_eq!(settings.to_string(), "callbacks=random:7 completions=passive");
        assert!(complaints.is_empty());
    }

    #[test]
    fn a_bad_value_is_said_and_left_at_its_default() {
        for value in ["", "high", "random:", "random:x", "random:-1"] {
            let (settings, complaints) = read(&[("Callbacks", value)]);
            assert_eq!(settings, Settings::default(), "{value}");
            assert_eq!(complaints.len(), 1, "{value}");
        }
    }
}
