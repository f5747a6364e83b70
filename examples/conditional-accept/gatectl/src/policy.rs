//! `gatectl policy`: shows and replaces the policy.

use std::io::{self, Write};

use gate_protocol::text::{BAD, GOOD, WAITS};
use gate_protocol::{Action, Limits, Policy};
use serde::Serialize;

use crate::cli::{Format, PolicyOptions};
use crate::driver::Driver;
use crate::error::Error;
use crate::output::{self, limit};

/// Prints the policy that is in force.
pub fn show(driver: &Driver, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    Ok(print(&driver.policy()?, format, out)?)
}

/// Replaces the policy, and prints what is in force then.
///
/// What the options do not name is taken from the policy that is in force before. The driver has no call that
/// changes a part, and does not look whether that one still is in force: of two programs that replace it at
/// the same time, the later one can undo what the other did.
pub fn set(driver: &Driver, options: &PolicyOptions, out: &mut dyn Write) -> Result<(), Error> {
    driver.set_policy(&options.apply(&driver.policy()?))?;
    show(driver, options.format, out)
}

/// A policy as an object: its members are the options that set it.
#[derive(Debug, Serialize)]
struct Object {
    default: String,
    accept: Vec<String>,
    reject: Vec<String>,
    ask: Vec<String>,
    max_clients: u32,
    max_per_source: u32,
    idle_timeout: u32,
}

impl Object {
    fn new(policy: &Policy) -> Self {
        let nets = |action| {
            let rules = policy.rules().iter().filter(move |(_, other)| *other == action);
            rules.map(|(net, _)| net.to_string()).collect()
        };
        let Limits { clients, per_source, idle_timeout } = policy.limits();
        Self {
            default: policy.default_action().to_string(),
            accept: nets(Action::Accept),
            reject: nets(Action::Reject),
            ask: nets(Action::Ask),
            max_clients: clients,
            max_per_source: per_source,
            idle_timeout,
        }
    }
}

/// The most specific network comes first, as it is the one that counts.
fn print(policy: &Policy, format: Format, out: &mut dyn Write) -> io::Result<()> {
    if format.json {
        return output::json(out, &Object::new(policy));
    }
    let rules = policy.rules().iter().map(|(net, action)| (net.to_string(), *action));
    let rules: Vec<_> = rules.chain([("all others".to_owned(), policy.default_action())]).collect();
    let width = rules.iter().map(|(net, _)| net.len()).max().unwrap_or(0);
    for (net, action) in rules {
        let style = match action {
            Action::Accept => GOOD,
            Action::Reject => BAD,
            Action::Ask => WAITS,
        };
        output::line(out, format_args!("{net:<width$}  {style}{action}{style:#}"))?;
    }
    let Limits { clients, per_source, idle_timeout } = policy.limits();
    output::line(out, "")?;
    output::line(out, format_args!("max clients     {clients}"))?;
    output::line(out, format_args!("max per source  {}", limit(per_source, "")))?;
    output::line(out, format_args!("idle time-out   {}", limit(idle_timeout, " ms")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool) -> String {
        let mut policy = Policy::new(Action::Accept);
        for (net, action) in
            [("10.0.0.0/8", Action::Reject), ("10.1.0.0/16", Action::Ask), ("2001:db8::/32", Action::Accept)]
        {
            policy.add(net.parse().expect("a network"), action).expect("room");
        }
        policy.set_limits(Limits { idle_timeout: Limits::NONE, ..Limits::DEFAULT });
        let mut out = Vec::new();
        print(&policy, Format { json }, &mut anstream::StripStream::new(&mut out)).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_table_has_the_most_specific_network_first() {
        assert_eq!(
            printed(false),
            "10.1.0.0/16    ask\n10.0.0.0/8     reject\n2001:db8::/32  accept\nall others     accept\n\n\
             max clients     4096\nmax per source  64\nidle time-out   none\n"
        );
    }

    #[test]
    fn the_object_has_the_options_that_set_it() {
        assert_eq!(
            printed(true),
            "{\"default\":\"accept\",\"accept\":[\"2001:db8::/32\"],\"reject\":[\"10.0.0.0/8\"],\
             \"ask\":[\"10.1.0.0/16\"],\"max_clients\":4096,\"max_per_source\":64,\"idle_timeout\":0}\n"
        );
    }
}
