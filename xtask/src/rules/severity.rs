//! Severity of rules: breaking one is a violation or only advised against. The table says which, and the
//! checker must agree.
//!
//! ```text
//!  tests/rules.tsv, column `side` ──► rule → violation, advice or both ──┐
//!  sources of the checker ──────────► rule → how it is reported ─────────┴──► failures
//! ```
//!
//! A rule is reported as advice where its name is an argument of `advice(…)`, of `report(Severity::Advice,
//! …)`, or of a function of the checker that hands it on to `advice`. Anywhere else its name stands for a
//! violation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use syn::visit::{self, Visit};
use walkdir::WalkDir;

use super::table::{RuleTable, is_rule_id};

/// Paths of the checker, relative to the workspace.
const CHECKER: [&str; 3] = ["crates/wsk-provider/src", "crates/nt-user/src", "crates/wsk-sim/src"];

/// Severity of breaking a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// A violation.
    Violation,
    /// Advice: drivers that work on Windows break it too.
    Advice,
    /// One or the other, by the way in which it is broken.
    Both,
}

impl Severity {
    const fn words(self) -> &'static str {
        match self {
            Self::Violation => "a violation",
            Self::Advice => "advice",
            Self::Both => "a violation or advice",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}

/// Reports of the checker.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    advised: BTreeSet<String>,
    broken: BTreeSet<String>,
}

impl Reports {
    /// Reads the sources of the checker in the workspace at `root`; where there are none, nothing is
    /// reported.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for place in CHECKER {
            let dir = root.join(place);
            if !dir.exists() {
                continue;
            }
            for entry in WalkDir::new(&dir).sort_by_file_name() {
                let entry = entry.with_context(|| format!("cannot list {place}"))?;
                let path = entry.path();
                if entry.file_type().is_file() && path.extension().is_some_and(|extension| extension == "rs")
                {
                    let name = || path.display().to_string();
                    let text =
                        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", name()))?;
                    files.push(syn::parse_file(&text).with_context(|| format!("{} is not Rust", name()))?);
                }
            }
        }
        Ok(Self::of(&files))
    }

    fn of(files: &[syn::File]) -> Self {
        let mut forwarders = Forwarders::default();
        for file in files {
            forwarders.visit_file(file);
        }
        let mut reports = Literals { forwarders: forwarders.found, reports: Self::default() };
        for file in files {
            reports.visit_file(file);
        }
        reports.reports
    }

    fn severity(&self, rule: &str) -> Option<Severity> {
        match (self.broken.contains(rule), self.advised.contains(rule)) {
            (true, true) => Some(Severity::Both),
            (true, false) => Some(Severity::Violation),
            (false, true) => Some(Severity::Advice),
            (false, false) => None,
        }
    }

    /// Returns the rules for which the table and the checker disagree.
    pub(crate) fn failures(&self, rules: &RuleTable) -> Vec<String> {
        let mut failures = Vec::new();
        for rule in rules.rules() {
            match self.severity(&rule.id) {
                Some(seen) if seen != rule.severity => failures.push(format!(
                    "{} is reported as {seen}, and the table says that breaking it is {}",
                    rule.id, rule.severity
                )),
                None if rule.severity != Severity::Violation => failures.push(format!(
                    "{} is never reported, and the table says that breaking it is {}",
                    rule.id, rule.severity
                )),
                _ => {}
            }
        }
        failures
    }
}

/// The function that a call names.
fn callee(function: &syn::Expr) -> Option<String> {
    match function {
        syn::Expr::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// Functions that hand a parameter of theirs on to `advice` as the rule.
#[derive(Debug, Default)]
struct Forwarders {
    found: BTreeSet<String>,
    /// The functions around, and their parameters.
    around: Vec<(String, BTreeSet<String>)>,
}

impl Forwarders {
    fn inside<'ast>(&mut self, signature: &'ast syn::Signature, body: &'ast syn::Block) {
        let parameters = signature.inputs.iter().filter_map(|input| match input {
            syn::FnArg::Typed(typed) => match &*typed.pat {
                syn::Pat::Ident(name) => Some(name.ident.to_string()),
                _ => None,
            },
            syn::FnArg::Receiver(_) => None,
        });
        let name = signature.ident.to_string();
        // The definition of `advice` itself only reports.
        if name != "advice" {
            self.around.push((name, parameters.collect()));
            self.visit_block(body);
            self.around.pop();
        }
    }

    fn call<'a>(&mut self, name: &str, mut arguments: impl Iterator<Item = &'a syn::Expr>) {
        if name == "advice"
            && let Some(rule) = arguments.next().and_then(callee)
            && let Some((function, parameters)) = self.around.last()
            && parameters.contains(&rule)
        {
            self.found.insert(function.clone());
        }
    }
}

impl<'ast> Visit<'ast> for Forwarders {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.inside(&function.sig, &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.inside(&function.sig, &function.block);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.call(&call.method.to_string(), call.args.iter());
        visit::visit_expr_method_call(self, call);
    }
}

/// The names of rules, and what they stand for.
#[derive(Debug)]
struct Literals {
    forwarders: BTreeSet<String>,
    reports: Reports,
}

/// The name of a rule, if an expression is one.
fn rule_of(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => {
            Some(text.value()).filter(|text| is_rule_id(text))
        }
        _ => None,
    }
}

impl Literals {
    /// Takes the rules among the arguments of a call; false if they are no advice.
    fn advised<'a>(&mut self, name: &str, arguments: impl Iterator<Item = &'a syn::Expr> + Clone) -> bool {
        let is_advice = name == "advice"
            || self.forwarders.contains(name)
            || (name == "report"
                && arguments.clone().next().and_then(callee).is_some_and(|first| first == "Advice"));
        if is_advice {
            self.reports.advised.extend(arguments.filter_map(rule_of));
        }
        is_advice
    }

    /// Visits the arguments that are no rules.
    fn visit_others<'ast>(&mut self, arguments: impl Iterator<Item = &'ast syn::Expr>) {
        for argument in arguments.filter(|argument| rule_of(argument).is_none()) {
            self.visit_expr(argument);
        }
    }
}

impl<'ast> Visit<'ast> for Literals {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if callee(&call.func).is_some_and(|name| self.advised(&name, call.args.iter())) {
            self.visit_others(call.args.iter());
        } else {
            visit::visit_expr_call(self, call);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if self.advised(&call.method.to_string(), call.args.iter()) {
            self.visit_expr(&call.receiver);
            self.visit_others(call.args.iter());
        } else {
            visit::visit_expr_method_call(self, call);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        let text = text.value();
        if is_rule_id(&text) {
            self.reports.broken.insert(text);
        }
    }
}

/// The rules of each severity, for the terminal.
pub(crate) fn summary(rules: &RuleTable) -> String {
    let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for rule in rules.rules().iter().filter(|rule| rule.severity != Severity::Violation) {
        of.entry(rule.severity.words()).or_default().push(&rule.id);
    }
    let mut out = String::new();
    for (words, ids) in of {
        writeln!(out, "Breaking these is {words}: {}.", ids.join(", ")).expect("a string takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(text: &str) -> Reports {
        Reports::of(&[syn::parse_file(text).expect("Rust")])
    }

    fn table(rows: &str) -> RuleTable {
        RuleTable::parse(&format!("id\tside\tevidence\tseed\tsection\trule\n{rows}")).expect("well formed")
    }

    #[test]
    fn names_stand_for_what_the_call_around_them_says() {
        let reports = reports(
            "fn one(p: &P) { p.violation(\"A-01\", CALL, \"x\"); p.advice(\"A-02\", CALL, &why(\"A-03\")); \
             }\n\
             fn two(k: &K) { k.report(Severity::Advice, \"A-04\", X); k.report(Severity::Violation, \
             \"A-05\", X); }\n\
             const LAST: &str = \"A-06\";\n/// Says \"A-07\".\n#[cfg(test)]\n\
             mod tests { fn t() { x(\"A-08\") } }\n",
        );
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        assert_eq!(list(&reports.advised), ["A-02", "A-04"]);
        assert_eq!(list(&reports.broken), ["A-01", "A-03", "A-05", "A-06"]);
    }

    #[test]
    fn a_function_that_hands_a_rule_on_is_looked_through() {
        let reports = reports(
            "fn check(p: &P, rule: &'static str) { p.advice(rule, CALL, \"x\"); }\n\
             impl P { fn look(&self, rule: R) { if x { self.violation(rule, CALL) } }\n\
             fn advice(&self, rule: R) { self.report(rule) } }\n\
             fn use_them(p: &P) { check(p, \"A-01\"); p.look(\"A-02\"); }\n",
        );
        assert_eq!(reports.severity("A-01"), Some(Severity::Advice));
        assert_eq!(reports.severity("A-02"), Some(Severity::Violation));
        assert_eq!(reports.severity("A-03"), None);
    }

    #[test]
    fn the_table_and_the_checker_have_to_agree() {
        let rules = table(
            "A-01\tC\tD\t-\t1\tx\nA-02\tC/advice\tD\t-\t1\tx\nA-03\tPC/both\tD\t-\t1\tx\n\
             A-04\tC\tD\t-\t1\tx\n",
        );
        let said = |text: &str| reports(text).failures(&rules);
        let right = "fn f(p: &P) { p.violation(\"A-01\"); p.advice(\"A-02\"); p.advice(\"A-03\"); \
            p.violation(\"A-03\"); }";
        assert_eq!(said(right), Vec::<String>::new());
        assert_eq!(
            summary(&rules),
            "Breaking these is a violation or advice: A-03.\nBreaking these is advice: A-02.\n"
        );
        let wrong = said("fn f(p: &P) { p.advice(\"A-01\"); p.violation(\"A-02\"); p.violation(\"A-03\"); }");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("A-01 is reported as advice"), "{wrong:?}");
        let silent = said("fn f() {}");
        assert_eq!(silent.len(), 2, "{silent:?}");
        assert!(silent[0].starts_with("A-02 is never reported"), "{silent:?}");
    }
}
