//! Records of the server as they arrive: lines of JSON, read by a thread, awaited with a deadline.
//!
//! ```text
//!   output of gate-host, or of `gatectl watch --json` ──► thread ──► lines ──► wait, story
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

/// Limit on everything that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// The records of one run of the demo.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Value>,
    /// Lines that were no JSON.
    odd: Vec<String>,
    /// Readers that have not come to their end.
    readers: usize,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(usize);

impl Mark {
    /// The place before the first record.
    pub(crate) const START: Self = Self(0);
}

impl Records {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lines of `from` until its end.
    pub(crate) fn follow(&self, from: impl Read + Send + 'static) {
        self.state().readers += 1;
        let records = self.clone();
        std::thread::spawn(move || {
            // An error is an end, too: waiters are notified.
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut state = records.state();
                match serde_json::from_str(&line) {
                    Ok(value) => state.lines.push(value),
                    Err(_) => state.odd.push(line),
                }
                drop(state);
                records.0.changed.notify_all();
            }
            records.state().readers -= 1;
            records.0.changed.notify_all();
        });
    }

    /// Takes what a program says beside its records, to be shown with an error.
    pub(crate) fn follow_remarks(&self, from: impl Read + Send + 'static) {
        let records = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                records.state().odd.push(line);
            }
        });
    }

    /// The place after the last record.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.state().lines.len())
    }

    /// Waits until `find` finds something among the records since `since`.
    ///
    /// # Errors
    ///
    /// When it is not found in time, or the records end: `what` says what was awaited.
    pub(crate) fn wait<T>(
        &self,
        since: Mark,
        what: &str,
        limit: Duration,
        mut find: impl FnMut(&[Value]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            let lines = &state.lines[since.0..];
            if let Some(found) = find(lines) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.readers == 0 || left.is_zero() {
                let last: Vec<_> =
                    lines[lines.len().saturating_sub(5)..].iter().map(Value::to_string).collect();
                let last = if last.is_empty() { "none".to_owned() } else { last.join(" ") };
                let odd = state.odd.last().map(|line| format!("; the last line: {line}")).unwrap_or_default();
                if state.readers == 0 {
                    bail!("the records ended before {what}; the last ones: {last}{odd}");
                }
                bail!("no {what} within {:.0} s; the last records: {last}{odd}", limit.as_secs_f32());
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until no more records can come.
    pub(crate) fn ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while state.readers > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Returns the number of records of this kind since `since`.
    pub(crate) fn count(&self, since: Mark, event: &str) -> usize {
        count(&self.state().lines[since.0..], event)
    }

    /// Waits until a request of `client` was pended.
    pub(crate) fn pended(&self, since: Mark, client: SocketAddr) -> Result<()> {
        let name = client.to_string();
        self.wait(since, "record that the request was pended", PATIENCE, |lines| {
            lines
                .iter()
                .any(|line| line["event"] == "inspect" && line["remote"] == *name && line["action"] == "pend")
                .then_some(())
        })
    }

    /// Waits until `client` was accepted.
    pub(crate) fn accepted(&self, since: Mark, client: SocketAddr) -> Result<()> {
        let name = client.to_string();
        self.wait(since, "record that the client was accepted", PATIENCE, |lines| {
            lines.iter().any(|line| line["event"] == "accepted" && line["remote"] == *name).then_some(())
        })
    }

    /// Waits for the end of what happened to `client`, and tells all of it in a few words.
    pub(crate) fn story(&self, since: Mark, client: SocketAddr) -> Result<String> {
        let name = client.to_string();
        self.wait(since, &format!("end of what happened to {name}"), PATIENCE, |lines| {
            let (story, ended) = story(lines, &name);
            ended.then_some(story)
        })
    }

    /// Returns what has happened to `client` so far.
    pub(crate) fn story_so_far(&self, since: Mark, client: SocketAddr) -> String {
        story(&self.state().lines[since.0..], &client.to_string()).0
    }

    /// Looks through all records: a request has one answer and one end, and what was not let in was not
    /// served.
    pub(crate) fn ledger(&self) -> Ledger {
        ledger(&self.state().lines)
    }
}

/// Returns the number of records of this kind.
pub(crate) fn count(lines: &[Value], event: &str) -> usize {
    lines.iter().filter(|line| line["event"] == event).count()
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or("?")
}

/// The records that concern a client, in words; and whether they have come to an end.
fn story(lines: &[Value], name: &str) -> (String, bool) {
    let (mut story, mut ended, mut id) = (String::new(), false, None);
    for line in lines {
        let event = text(line, "event");
        let mine = match event {
            "verdict" | "abort" => id.is_some() && line["id"].as_str() == id,
            _ => line["remote"] == *name,
        };
        if !mine {
            continue;
        }
        if !story.is_empty() {
            story.push_str(", ");
        }
        let action = text(line, "action");
        // Writing to a string does not fail.
        let _ = match event {
            "inspect" => {
                id = line["id"].as_str();
                ended |= action == "reject";
                match line["reason"].as_str() {
                    None | Some("policy") => write!(story, "{action}"),
                    Some(reason) => write!(story, "{action} ({reason})"),
                }
            }
            "verdict" => {
                ended |= action == "reject";
                write!(story, "verdict {action}")
            }
            "abort" => {
                ended = true;
                write!(story, "abort")
            }
            "accepted" => write!(story, "accepted by {}", text(line, "by")),
            "dropped" => write!(story, "dropped ({})", text(line, "reason")),
            "disconnect" => write!(story, "{} disconnect", text(line, "kind")),
            "closed" => {
                ended = true;
                write!(story, "closed {}/{}", line["received"], line["sent"])
            }
            other => write!(story, "{other}"),
        };
    }
    (story, ended)
}

/// Totals of the records of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Connection requests.
    pub requests: usize,
    /// Records that contradict others.
    pub contradictions: Vec<String>,
}

fn ledger(lines: &[Value]) -> Ledger {
    #[derive(Default)]
    struct Request<'a> {
        remote: &'a str,
        action: &'a str,
        verdict: Option<&'a str>,
        aborted: bool,
    }
    let mut ledger = Ledger::default();
    let mut requests: HashMap<&str, Request<'_>> = HashMap::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for line in lines {
        let (id, remote) = (text(line, "id"), text(line, "remote"));
        let mut wrong = |what: &str| ledger.contradictions.push(format!("{what}: {line}"));
        match text(line, "event") {
            // Identifiers and addresses are used again after the next start.
            "loaded" => {
                requests.clear();
                open.clear();
            }
            "inspect" => {
                let request = Request { remote, action: text(line, "action"), ..Request::default() };
                // An identifier may come again once the request has its end.
                requests.insert(id, request);
                ledger.requests += 1;
            }
            "verdict" => match requests.get_mut(id) {
                Some(request) if request.action == "pend" && request.verdict.is_none() => {
                    request.verdict = Some(text(line, "action"));
                }
                Some(_) => wrong("a second answer, or one to a request that was not pended"),
                None => wrong("an answer to nothing"),
            },
            "abort" => match requests.get_mut(id) {
                Some(request) if request.action == "reject" || request.verdict == Some("reject") => {
                    wrong("an abort of a request that was rejected");
                }
                Some(request) if request.aborted => wrong("a second abort"),
                Some(request) => request.aborted = true,
                None => wrong("an abort of nothing"),
            },
            "accepted" => {
                let rejected = |request: &&Request<'_>| {
                    request.remote == remote
                        && (request.action == "reject" || request.verdict == Some("reject"))
                };
                if requests.values().any(|request| rejected(&request))
                    && !requests.values().any(|request| request.remote == remote && !rejected(&request))
                {
                    wrong("a connection of a client that was rejected");
                }
                *open.entry(remote).or_default() += 1;
            }
            "closed" => match open.get_mut(remote) {
                Some(count @ 1..) => *count -= 1,
                _ => wrong("an end of a connection that was not there"),
            },
            "lost" => wrong("records are missing"),
            _ => {}
        }
    }
    ledger
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const PENDED: &str = r#"{"event":"inspect","id":"1-1","remote":"127.0.0.4:9","action":"pend"}
{"event":"inspect","id":"1-2","remote":"127.0.0.2:8","action":"accept"}
{"event":"verdict","id":"1-1","action":"accept"}
{"event":"accepted","remote":"127.0.0.4:9","by":"irp"}
{"event":"accepted","remote":"127.0.0.2:8","by":"irp"}
{"event":"disconnect","remote":"127.0.0.4:9","kind":"abortive"}
{"event":"closed","remote":"127.0.0.4:9","received":5,"sent":4}
"#;

    fn records(text: &'static str) -> Records {
        let records = Records::default();
        records.follow(Cursor::new(text));
        assert!(records.ended(PATIENCE));
        records
    }

    #[test]
    fn a_story_has_what_concerns_the_client() {
        let records = records(PENDED);
        let story = records.story(Mark::START, "127.0.0.4:9".parse().unwrap()).unwrap();
        assert_eq!(story, "pend, verdict accept, accepted by irp, abortive disconnect, closed 5/4");
        let error = records.story(Mark::START, "127.0.0.2:8".parse().unwrap()).expect_err("it is open");
        assert!(error.to_string().starts_with("the records ended before"), "{error}");
        assert_eq!(records.count(Mark::START, "inspect"), 2);
        assert_eq!(records.count(Mark(1), "inspect"), 1);
    }

    #[test]
    fn a_ledger_without_contradictions() {
        assert_eq!(records(PENDED).ledger(), Ledger { requests: 2, contradictions: vec![] });
    }

    #[test]
    fn contradictions_are_found() {
        for (lines, what) in [
            (r#"{"event":"verdict","id":"1-1","action":"accept"}"#, "an answer to nothing"),
            (
                "{\"event\":\"inspect\",\"id\":\"1-1\",\"remote\":\"a\",\"action\":\"reject\"}\n\
                 {\"event\":\"accepted\",\"remote\":\"a\",\"by\":\"irp\"}",
                "a connection of a client that was rejected",
            ),
            (
                "{\"event\":\"inspect\",\"id\":\"1-1\",\"remote\":\"a\",\"action\":\"pend\"}\n\
                 {\"event\":\"abort\",\"id\":\"1-1\"}\n{\"event\":\"abort\",\"id\":\"1-1\"}",
                "a second abort",
            ),
            (r#"{"event":"closed","remote":"a"}"#, "an end of a connection that was not there"),
            (r#"{"event":"lost","records":3}"#, "records are missing"),
        ] {
            let found = records(lines).ledger().contradictions;
            assert!(found.len() == 1 && found[0].starts_with(what), "{found:?}");
        }
    }

    #[test]
    fn waiting_has_an_end() {
        let records = Records::default();
        let (reader, writer) = std::io::pipe().unwrap();
        records.follow(reader);
        let error = records
            .wait(Mark::START, "miracle", Duration::from_millis(20), |_| None::<()>)
            .expect_err("nothing came");
        assert_eq!(error.to_string(), "no miracle within 0 s; the last records: none");
        drop(writer);
    }
}
