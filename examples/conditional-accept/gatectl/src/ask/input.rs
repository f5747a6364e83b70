//! Input lines of `gatectl ask`.

use gate_protocol::Answer;

/// Meaning of an input line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputLine {
    /// The answer, and the request it is for if it names one.
    Answer(Answer, Option<String>),
    /// End of the program.
    Quit,
    /// Blank line.
    Empty,
    /// Unknown input.
    Unknown,
}

/// Help on the input.
pub(super) const HELP: &str = "a accepts, r rejects, q quits; \"a 1f-7\" accepts the request 1f-7 only";

/// Parses a line: a word, and optionally the name of a request.
pub(super) fn parse_line(line: &str) -> InputLine {
    let mut words = line.split_whitespace();
    let (word, id, more) = (words.next(), words.next(), words.next());
    let answer = match word.map(str::to_ascii_lowercase).as_deref() {
        None => return InputLine::Empty,
        Some("a" | "accept") => Answer::Accept,
        Some("r" | "reject") => Answer::Reject,
        Some("q" | "quit") if id.is_none() => return InputLine::Quit,
        Some(_) => return InputLine::Unknown,
    };
    if more.is_some() {
        InputLine::Unknown
    } else {
        InputLine::Answer(answer, id.map(str::to_ascii_lowercase))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        for (line, expected) in [
            ("a", InputLine::Answer(Answer::Accept, None)),
            ("  Accept \r", InputLine::Answer(Answer::Accept, None)),
            ("r", InputLine::Answer(Answer::Reject, None)),
            ("reject 1F-7", InputLine::Answer(Answer::Reject, Some("1f-7".to_owned()))),
            ("q", InputLine::Quit),
            ("QUIT", InputLine::Quit),
            ("", InputLine::Empty),
            (" \t", InputLine::Empty),
            ("yes", InputLine::Unknown),
            ("a b c", InputLine::Unknown),
            ("quit now", InputLine::Unknown),
            ("\u{feff}a", InputLine::Unknown),
        ] {
            assert_eq!(parse_line(line), expected, "{line:?}");
        }
    }
}
