//! Rules that leave the provider a choice (evidence `U`): each has to be shown under every alternative.
//!
//! ```text
//!  wsk-provider/src/behaviours.rs ──► rule → the types of its alternatives ──┐
//!  wsk-provider/src/config.rs ──────► rule → the settings that stand for it ─┼──► failures
//!  test sources ────────────────────► test → what it goes through, and sets ─┘
//! ```
//!
//! A test goes through the alternatives of a type when it calls `for_each_choice` with a closure whose
//! parameter has that type, or loops over its `ALL`; helpers of the same file count as part of the tests that
//! call them. A rule whose choice is a number is run under another one when a test assigns the setting that
//! names the rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::coverage::Entry;
use super::table::Kind;

/// Path of the alternatives, relative to the workspace.
const BEHAVIOURS: &str = "crates/wsk-provider/src/behaviours.rs";
/// Path of the settings.
const CONFIG: &str = "crates/wsk-provider/src/config.rs";

/// Identification of a choice: the type of its alternatives, or a setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Choice {
    /// A type with an `ALL`.
    Alternatives(String),
    /// A field of the configuration.
    Setting(String),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alternatives(name) => write!(f, "goes through all of `{name}`"),
            Self::Setting(name) => write!(f, "sets `{name}` to anything else"),
        }
    }
}

/// Choices that each rule leaves open.
#[derive(Debug, Default)]
pub(crate) struct Choices(BTreeMap<String, BTreeSet<Choice>>);

impl Choices {
    /// Reads the provider's sources in the workspace at `root`; where there are none, nothing can be chosen.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut choices = Self::default();
        for (path, take) in
            [(BEHAVIOURS, Self::behaviours as fn(&mut Self, &syn::File)), (CONFIG, Self::settings)]
        {
            let full = root.join(path);
            if !full.exists() {
                continue;
            }
            let text = std::fs::read_to_string(full).with_context(|| format!("cannot read {path}"))?;
            let file = syn::parse_file(&text).with_context(|| format!("{path} is not Rust"))?;
            take(&mut choices, &file);
        }
        Ok(choices)
    }

    fn add(&mut self, rule: &str, choice: Choice) {
        self.0.entry(rule.to_owned()).or_default().insert(choice);
    }

    /// In the call of the macro `behaviours!` an alternative is `"RULE" field: Type …`.
    fn behaviours(&mut self, file: &syn::File) {
        for item in &file.items {
            if let syn::Item::Macro(call) = item
                && call.mac.path.is_ident("behaviours")
            {
                self.alternatives(call.mac.tokens.clone());
            }
        }
    }

    fn alternatives(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for window in tokens.windows(4) {
            if let [
                TokenTree::Literal(rule),
                TokenTree::Ident(_),
                TokenTree::Punct(colon),
                TokenTree::Ident(name),
            ] = window
                && colon.as_char() == ':'
                && let Ok(rule) = syn::parse_str::<syn::LitStr>(&rule.to_string())
            {
                self.add(&rule.value(), Choice::Alternatives(name.to_string()));
            }
        }
        for token in tokens {
            if let TokenTree::Group(group) = token {
                self.alternatives(group.stream());
            }
        }
    }

    /// A setting names its rules in the parentheses of its documentation.
    fn settings(&mut self, file: &syn::File) {
        for item in &file.items {
            let syn::Item::Struct(config) = item else { continue };
            for field in &config.fields {
                let Some(name) = &field.ident else { continue };
                for text in field.attrs.iter().filter_map(|attribute| super::scan::doc_of(&attribute.meta)) {
                    for rule in text.split(['(', ')', ',', ' ']) {
                        self.add(rule, Choice::Setting(name.to_string()));
                    }
                }
            }
        }
    }

    /// The failures: rules that leave something open, and no test shows them under all of it. Rules with
    /// evidence `U` do, and have to be shown; so do others for which the provider has alternatives, once a
    /// test shows them.
    pub(crate) fn failures(&self, entries: &[Entry]) -> Vec<String> {
        let mut failures = Vec::new();
        for entry in entries {
            let id = &entry.rule.id;
            let counts = |choice: &&Choice| entry.rule.open || matches!(choice, Choice::Alternatives(_));
            let shows: Vec<_> = entry.claims.iter().filter(|claim| claim.kind == Kind::Shows).collect();
            if shows.is_empty() && !entry.rule.open {
                continue;
            }
            let choices: Vec<_> = self.0.get(id).into_iter().flatten().filter(counts).collect();
            if entry.rule.open && choices.is_empty() {
                failures.push(format!("{id} leaves a choice, and the provider has nothing to choose for it"));
            }
            for choice in choices {
                if !shows.iter().any(|claim| claim.chooses.contains(choice)) {
                    failures.push(format!("{id} leaves a choice, and no test that shows it {choice}"));
                }
            }
        }
        failures
    }
}

/// Choices that a function of a file makes by itself, and the functions it calls.
#[derive(Debug, Default)]
struct Body {
    chooses: BTreeSet<Choice>,
    calls: BTreeSet<String>,
}

/// The functions of a file.
#[derive(Debug, Default)]
pub(crate) struct Bodies(BTreeMap<String, Body>);

impl Bodies {
    /// Reads all functions of a file. Those of the same name in different modules count as one.
    pub(crate) fn of(file: &syn::File) -> Self {
        struct Functions(Bodies);
        impl<'ast> Visit<'ast> for Functions {
            fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
                let body = self.0.0.entry(function.sig.ident.to_string()).or_default();
                body.visit_block(&function.block);
                visit::visit_item_fn(self, function);
            }
        }
        let mut functions = Functions(Self::default());
        functions.visit_file(file);
        functions.0
    }

    /// Returns the choices of a function, by itself or in the functions of its file that it calls.
    pub(crate) fn choices(&self, function: &str) -> BTreeSet<Choice> {
        let (mut chosen, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![function]);
        while let Some(name) = left.pop() {
            if let Some(body) = self.0.get(name)
                && seen.insert(name)
            {
                chosen.extend(body.chooses.iter().cloned());
                left.extend(body.calls.iter().map(String::as_str));
            }
        }
        chosen
    }
}

/// The last name of a type or path.
fn last_name(path: &syn::Path) -> Option<String> {
    path.segments.last().map(|segment| segment.ident.to_string())
}

/// `Type::ALL`, also borrowed or iterated over.
fn all_of(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Reference(inner) => all_of(&inner.expr),
        syn::Expr::Paren(inner) => all_of(&inner.expr),
        syn::Expr::MethodCall(call) if call.method == "iter" => all_of(&call.receiver),
        syn::Expr::Path(path) => {
            let mut names = path.path.segments.iter().rev();
            (names.next()?.ident == "ALL").then_some(())?;
            names.next().map(|segment| segment.ident.to_string())
        }
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Body {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && let Some(name) = last_name(&function.path)
        {
            if name == "for_each_choice"
                && let Some(syn::Expr::Closure(select)) = call.args.first()
                && let Some(syn::Pat::Type(parameter)) = select.inputs.last()
                && let syn::Type::Path(of) = &*parameter.ty
            {
                self.chooses.extend(last_name(&of.path).map(Choice::Alternatives));
            }
            self.calls.insert(name);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_for_loop(&mut self, repeated: &'ast syn::ExprForLoop) {
        self.chooses.extend(all_of(&repeated.expr).map(Choice::Alternatives));
        visit::visit_expr_for_loop(self, repeated);
    }

    fn visit_expr_assign(&mut self, assignment: &'ast syn::ExprAssign) {
        if let syn::Expr::Field(field) = &*assignment.left
            && let syn::Member::Named(name) = &field.member
        {
            self.chooses.insert(Choice::Setting(name.to_string()));
        }
        visit::visit_expr_assign(self, assignment);
    }

    /// A function inside is read for itself.
    fn visit_item_fn(&mut self, _: &'ast syn::ItemFn) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(text: &str) -> Bodies {
        Bodies::of(&syn::parse_file(text).expect("Rust"))
    }

    fn names(choices: impl IntoIterator<Item = Choice>) -> Vec<String> {
        choices.into_iter().map(|choice| choice.to_string()).collect()
    }

    #[test]
    fn the_choices_of_the_provider_are_read() {
        let mut choices = Choices::default();
        let file = "behaviours! { statuses { /** Doc. */ \"A-01\" one: One = X | Y; }\n\
                    choices { \"A-02\" two: Two { /** V. */ V, W } \"A-01\" more: More { V, W } } }";
        choices.behaviours(&syn::parse_file(file).expect("Rust"));
        choices
            .settings(&syn::parse_file("struct Config { /** How many (A-03). */ many: u8 }").expect("Rust"));
        let of = |rule: &str| names(choices.0.get(rule).cloned().unwrap_or_default());
        assert_eq!(of("A-01"), ["goes through all of `More`", "goes through all of `One`"]);
        assert_eq!(of("A-02"), ["goes through all of `Two`"]);
        assert_eq!(of("A-03"), ["sets `many` to anything else"]);
    }

    #[test]
    fn what_a_test_goes_through_is_found() {
        let bodies = bodies(
            "fn one() { for_each_choice(|b, choice: One| b.one = choice, |_, _| ()); }\n\
             fn two() { for &choice in m::Two::ALL { run(choice); } }\n\
             fn three() { helper(|| ()); }\n fn helper(f: F) { for c in Three::ALL.iter() { three(); } }\n\
             fn four() { Sim::builder().provider(|config| config.many = 3); }\n\
             fn five() { assert_eq!(One::ALL[0], X); let c: One = One::X; for c in [One::X] {} }",
        );
        let of = |name: &str| names(bodies.choices(name));
        assert_eq!(of("one"), ["goes through all of `One`", "sets `one` to anything else"]);
        assert_eq!(of("two"), ["goes through all of `Two`"]);
        assert_eq!(of("three"), ["goes through all of `Three`"]);
        assert_eq!(of("four"), ["sets `many` to anything else"]);
        assert_eq!(of("five"), Vec::<String>::new());
        assert_eq!(of("none"), Vec::<String>::new());
    }
}
