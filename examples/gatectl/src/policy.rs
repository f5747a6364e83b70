//! `gatectl policy`: who may connect.

use std::io::{self, Write};

use gate_protocol::text::{BAD, GOOD, WAITS};
use gate_protocol::{Action, Policy};
use serde::Serialize;

use crate::cli::{Format, PolicyOptions};
use crate::driver::Driver;
use crate::error::Error;
use crate::output;

/// Prints the policy that is in force.
pub fn show(driver: &Driver, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    Ok(print(&driver.policy()?, format, out)?)
}

/// Replaces the policy, and prints what is in force then.
pub fn set(driver: &Driver, options: &PolicyOptions, out: &mut dyn Write) -> Result<(), Error> {
    driver.set_policy(&options.policy)?;
    show(driver, options.format, out)
}

/// A policy as an object: its members are the options that set it.
#[derive(Debug, Serialize)]
struct Object {
    default: String,
    accept: Vec<String>,
    reject: Vec<String>,
    ask: Vec<String>,
}

impl Object {
    fn new(policy: &Policy) -> Self {
        let nets = |action| {
            let rules = policy.rules().iter().filter(move |(_, other)| *other == action);
            rules.map(|(net, _)| net.to_string()).collect()
        };
        Self {
            default: policy.default_action().to_string(),
            accept: nets(Action::Accept),
            reject: nets(Action::Reject),
            ask: nets(Action::Ask),
        }
    }
}

/// The most specific network comes first, as it is the one that counts.
fn print(policy: &Policy, format: Format, out: &mut dyn Write) -> io::Result<()> {
    if format.json {
        return output::json(out, &Object::new(policy));
    }
    let rules = policy.rules().iter().map(|(net, action)| (net.to_string(), *action));
    let rules: Vec<_> = rules.chain([("everyone else".to_owned(), policy.default_action())]).collect();
    let width = rules.iter().map(|(net, _)| net.len()).max().unwrap_or(0);
    for (net, action) in rules {
        let style = match action {
            Action::Accept => GOOD,
            Action::Reject => BAD,
            Action::Ask => WAITS,
        };
        output::line(out, format_args!("{net:<width$}  {style}{action}{style:#}"))?;
    }
    Ok(())
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
        let mut out = Vec::new();
        print(&policy, Format { json }, &mut anstream::StripStream::new(&mut out)).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_table_has_the_most_specific_network_first() {
        assert_eq!(
            printed(false),
            "10.1.0.0/16    ask\n10.0.0.0/8     reject\n2001:db8::/32  accept\neveryone else  accept\n"
        );
    }

    #[test]
    fn the_object_has_the_options_that_set_it() {
        assert_eq!(
            printed(true),
            "{\"default\":\"accept\",\"accept\":[\"2001:db8::/32\"],\"reject\":[\"10.0.0.0/8\"],\"ask\":[\"10.1.0.0/16\"]}\n"
        );
    }
}
