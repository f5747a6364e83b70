//! Source of a rule, and the Windows versions on which it was seen.
//!
//! ```text
//!   evidence = mark { "," mark }
//!   mark     = "H" | "D" | "T" | "S" | "I" | "U"   header, documentation, test, source, inference, open
//!            | "T@" build                          this Windows build answers as the provider's default
//!            | "T@" build "=" answer               the different answer of this build
//! ```
//!
//! `U,T@14393=STATUS_INVALID_PARAMETER,T@26100` says that two builds differ. `U` stays: Microsoft has not
//! written it down, and a client has to be right under each alternative.

use anyhow::{Result, bail};

/// One observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The build of Windows.
    pub(crate) build: u32,
    /// Its answer, unless that is the provider's default.
    pub(crate) answer: Option<String>,
}

/// The column `evidence` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The column as it stands.
    pub(crate) text: String,
    /// Observations on Windows, in order.
    pub(crate) seen: Vec<Seen>,
}

impl Evidence {
    /// Reads the column.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut evidence = Self { text: text.to_owned(), seen: Vec::new() };
        let mut letters = Vec::new();
        for mark in text.split(',') {
            if matches!(mark, "H" | "D" | "T" | "S" | "I" | "U") {
                if letters.contains(&mark) {
                    bail!("duplicate {mark}");
                }
                letters.push(mark);
                continue;
            }
            let Some(seen) = mark.strip_prefix("T@") else {
                bail!("{mark:?} is not evidence; valid are H, D, T, S, I, U, T@BUILD or T@BUILD=ANSWER");
            };
            let (build, answer) = match seen.split_once('=') {
                Some((build, answer)) => (build, Some(answer)),
                None => (seen, None),
            };
            let is_number = (4..=6).contains(&build.len()) && build.bytes().all(|byte| byte.is_ascii_digit());
            let Some(build) = build.parse().ok().filter(|_| is_number) else {
                bail!("{build:?} is not a Windows build, such as 26100");
            };
            if let Some(answer) = answer
                && !is_answer(answer)
            {
                bail!("{answer:?} is not an answer: only letters, digits and _ - + / . : are valid");
            }
            if evidence.seen.iter().any(|other| other.build == build) {
                bail!("duplicate build {build}");
            }
            evidence.seen.push(Seen { build, answer: answer.map(str::to_owned) });
        }
        Ok(evidence)
    }

    /// The column with one more observation, in place of an earlier one of the same build.
    pub(crate) fn with(&self, seen: &Seen) -> String {
        let same = format!("T@{}", seen.build);
        let is_other = |mark: &&str| *mark != same && !mark.starts_with(&format!("{same}="));
        let mut marks: Vec<String> = self.text.split(',').filter(is_other).map(str::to_owned).collect();
        marks.push(seen.answer.as_ref().map_or_else(|| same.clone(), |answer| format!("{same}={answer}")));
        marks.join(",")
    }

    /// The observations that are not the provider's default.
    pub(crate) fn otherwise(&self) -> impl Iterator<Item = (u32, &str)> {
        self.seen.iter().filter_map(|seen| Some((seen.build, seen.answer.as_deref()?)))
    }
}

fn is_answer(answer: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/.:".contains(&byte);
    !answer.is_empty() && answer.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Evidence::parse(text).expect_err("malformed").to_string()
    }

    #[test]
    fn builds_and_answers_are_read() {
        let evidence = Evidence::parse("U,T@14393=STATUS_INVALID_PARAMETER,T@26100").expect("well formed");
        let otherwise: Vec<_> = evidence.otherwise().collect();
        assert_eq!(otherwise, [(14393, "STATUS_INVALID_PARAMETER")]);
        assert_eq!(evidence.seen[1], Seen { build: 26100, answer: None });
        assert_eq!(Evidence::parse("D,T").expect("well formed").seen, []);
    }

    #[test]
    fn malformed_evidence_is_refused() {
        assert!(error("X").contains("not evidence"));
        assert!(error("").contains("not evidence"));
        assert!(error("D,D").contains("duplicate"));
        assert!(error("T@").contains("not a Windows build"));
        assert!(error("T@Windows11").contains("not a Windows build"));
        assert!(error("T@+6100").contains("not a Windows build"));
        assert!(error("T@26100=").contains("not an answer"));
        assert!(error("T@26100=not good").contains("not an answer"));
        assert!(error("T@26100,T@26100=STATUS_SUCCESS").contains("duplicate"));
    }

    #[test]
    fn an_observation_replaces_the_one_of_its_build() {
        let evidence = Evidence::parse("U,T@2610,T@26100=a").expect("well formed");
        let same = Seen { build: 26100, answer: None };
        assert_eq!(evidence.with(&same), "U,T@2610,T@26100");
        let other = Seen { build: 14393, answer: Some("b".to_owned()) };
        assert_eq!(evidence.with(&other), "U,T@2610,T@26100=a,T@14393=b");
    }
}
