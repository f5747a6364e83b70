//! What a line of input says.

use gate_protocol::Answer;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The answer, and the request it is for if it names one.
    Answer(Answer, Option<String>),
    /// Enough of it.
    Quit,
    /// Nothing.
    Nothing,
    /// Nothing that can be understood.
    Nonsense,
}

/// What can be said.
pub(super) const HELP: &str = "a accepts, r rejects, q ends; \"a 1f-7\" accepts the request 1f-7 only";

/// Reads a line: a word, and perhaps the name of a request.
pub(super) fn understand(line: &str) -> Said {
    let mut words = line.split_whitespace();
    let (word, id, more) = (words.next(), words.next(), words.next());
    let answer = match word.map(str::to_ascii_lowercase).as_deref() {
        None => return Said::Nothing,
        Some("a" | "accept") => Answer::Accept,
        Some("r" | "reject") => Answer::Reject,
        Some("q" | "quit") if id.is_none() => return Said::Quit,
        Some(_) => return Said::Nonsense,
    };
    if more.is_some() { Said::Nonsense } else { Said::Answer(answer, id.map(str::to_ascii_lowercase)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        for (line, said) in [
            ("a", Said::Answer(Answer::Accept, None)),
            ("  Accept \r", Said::Answer(Answer::Accept, None)),
            ("r", Said::Answer(Answer::Reject, None)),
            ("reject 1F-7", Said::Answer(Answer::Reject, Some("1f-7".to_owned()))),
            ("q", Said::Quit),
            ("QUIT", Said::Quit),
            ("", Said::Nothing),
            (" \t", Said::Nothing),
            ("yes", Said::Nonsense),
            ("a b c", Said::Nonsense),
            ("quit now", Said::Nonsense),
            ("\u{feff}a", Said::Nonsense),
        ] {
            assert_eq!(understand(line), said, "{line:?}");
        }
    }
}
