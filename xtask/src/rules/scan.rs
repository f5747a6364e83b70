//! Scan of the sources for the rule names of tests.
//!
//! A name counts only where something runs it: on a test function with a body that is not ignored, or in a
//! `compile_fail` file which the `tests/compile_fail.rs` next to it hands to `trybuild` and whose compiler
//! output is recorded. A rule name anywhere else is an error, so that nothing looks shown without being run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use walkdir::WalkDir;

use super::open::{Bodies, Choice};
use super::table::Kind;

/// Directories that may contain tests.
const PLACES: [&str; 4] = ["src", "tests", "crates", "examples"];

/// A test that names a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The rule named.
    pub(crate) id: String,
    /// Kind of evidence.
    pub(crate) kind: Kind,
    /// The test: its function's name with the modules around it, or `compile_fail`.
    pub(crate) test: String,
    /// `path:line`, relative to the workspace.
    pub(crate) place: String,
    /// Choices of the test for the provider.
    pub(crate) chooses: BTreeSet<Choice>,
}

/// Reads every Rust file of the workspace at `root` in which a test may be.
pub(crate) fn workspace(root: &Path) -> Result<Vec<Claim>> {
    let mut found = Found::default();
    for place in PLACES {
        let dir = root.join(place);
        if !dir.exists() {
            continue;
        }
        let walk = WalkDir::new(&dir).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|e| e.file_name() != "target") {
            let entry = entry.with_context(|| format!("cannot list {place}"))?;
            let path = entry.path();
            if !entry.file_type().is_file() || path.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = place_of(path.strip_prefix(root).unwrap_or(path));
            match Expected::of(path) {
                None => found.source(&shown, &text),
                Some(expected) => found.compile_fail(&shown, &text, &expected),
            }
        }
    }
    if !found.problems.is_empty() {
        bail!("{}", found.problems.join("\n       "));
    }
    Ok(found.claims)
}

/// A path as reports show it, the same on every system.
fn place_of(path: &Path) -> String {
    path.iter().map(OsStr::to_string_lossy).collect::<Vec<_>>().join("/")
}

/// Requirements on a file in a `compile_fail` directory before its rule names count.
struct Expected {
    /// Reason that nothing runs the file, if so.
    not_run: Option<String>,
    /// True if the compiler's answer is recorded next to it.
    recorded: bool,
}

impl Expected {
    /// `Some` if `path` is a file of a `tests/compile_fail` directory.
    fn of(path: &Path) -> Option<Self> {
        let tests = path.ancestors().skip(1).find(|dir| dir.ends_with("tests/compile_fail"))?.parent()?;
        let runner = tests.join("compile_fail.rs");
        let not_run = match std::fs::read_to_string(&runner) {
            Err(error) => Some(format!("{}: {error}", runner.display())),
            Ok(text) => {
                let relative = path.strip_prefix(tests.parent()?).ok()?;
                let run = trybuild_patterns(&text).iter().any(|pattern| pattern.matches_path(relative));
                (!run).then(|| format!("no test in {} hands it to trybuild", runner.display()))
            }
        };
        Some(Self { not_run, recorded: path.with_extension("stderr").exists() })
    }
}

/// The patterns that the tests in the source `text` pass to `trybuild::TestCases::compile_fail`.
fn trybuild_patterns(text: &str) -> Vec<glob::Pattern> {
    struct Calls(Vec<glob::Pattern>);
    impl<'ast> Visit<'ast> for Calls {
        fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
            if is_test(&function.attrs) && !is_ignored(&function.attrs) {
                visit::visit_item_fn(self, function);
            }
        }
        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if call.method == "compile_fail"
                && let Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. })) = call.args.first()
            {
                self.0.extend(glob::Pattern::new(&path.value()));
            }
            visit::visit_expr_method_call(self, call);
        }
    }
    let mut calls = Calls(Vec::new());
    if let Ok(file) = syn::parse_file(text) {
        calls.visit_file(&file);
    }
    calls.0
}

/// Findings so far.
#[derive(Debug, Default)]
struct Found {
    claims: Vec<Claim>,
    problems: Vec<String>,
}

impl Found {
    /// Reads an ordinary source file.
    fn source(&mut self, path: &str, text: &str) {
        match syn::parse_file(text) {
            Ok(file) => {
                let bodies = Bodies::of(&file);
                Source { path, modules: Vec::new(), bodies: &bodies, found: self }.visit_file(&file);
            }
            Err(error) => {
                let line = error.span().start().line;
                self.problems.push(format!("{path}:{line}: not Rust: {error}"));
            }
        }
    }

    /// Reads a file that must not compile. It need not be valid Rust either, so only its leading lines are
    /// read.
    fn compile_fail(&mut self, path: &str, text: &str, expected: &Expected) {
        let mut claims = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let Some(doc) = line.trim_start().strip_prefix("//!") else { break };
            read_line(doc, &format!("{path}:{}", index + 1), "compile_fail", &mut claims, &mut self.problems);
        }
        let Some(first) = claims.first() else { return };
        let place = first.place.clone();
        if let Some(claim) = claims.iter().find(|claim| claim.kind != Kind::Prevents) {
            self.problems.push(format!(
                "{}: a compile-fail test can only say Prevents, not {}",
                claim.place,
                claim.kind.word()
            ));
        }
        if let Some(reason) = &expected.not_run {
            self.problems.push(format!("{place}: names rules, but nothing runs it ({reason})"));
        } else if !expected.recorded {
            self.problems
                .push(format!("{place}: names rules, but the compiler's answer (.stderr) is not recorded"));
        }
        self.claims.append(&mut claims);
    }
}

/// The walk over one source file.
struct Source<'a> {
    path: &'a str,
    modules: Vec<String>,
    bodies: &'a Bodies,
    found: &'a mut Found,
}

impl Source<'_> {
    fn place(&self, span: proc_macro2::Span) -> String {
        format!("{}:{}", self.path, span.start().line)
    }

    fn problem(&mut self, span: proc_macro2::Span, text: &str) {
        let place = self.place(span);
        self.found.problems.push(format!("{place}: {text}"));
    }

    /// Takes the rule names on a function, `runs` saying why they do not count if they do not.
    fn function(
        &mut self,
        name: &proc_macro2::Ident,
        docs: &[(String, proc_macro2::Span)],
        runs: Result<(), &'static str>,
    ) {
        let test = self.modules.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>().join("::");
        let place = self.place(name.span());
        let mut claims = Vec::new();
        for (text, span) in docs {
            let place_of_doc = self.place(*span);
            let before = claims.len();
            for line in text.lines() {
                read_line(line, &place_of_doc, &test, &mut claims, &mut self.found.problems);
            }
            for index in before..claims.len() {
                let (earlier, [claim, ..]) = claims.split_at(index) else { break };
                if earlier.iter().any(|e| e.id == claim.id && e.kind == claim.kind) {
                    let (kind, id) = (claim.kind.word(), &claim.id);
                    self.found.problems.push(format!("{place_of_doc}: {test} says `{kind}: {id}` twice"));
                }
            }
        }
        match runs {
            Err(why) if !claims.is_empty() => {
                self.found.problems.push(format!("{place}: {test} names rules, but {why}"));
            }
            _ => {
                let chooses = self.bodies.choices(&name.to_string());
                for claim in &mut claims {
                    claim.place.clone_from(&place);
                    claim.chooses.clone_from(&chooses);
                }
                self.found.claims.append(&mut claims);
            }
        }
    }

    /// Looks for functions in the arguments of a macro, where only tokens are known.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut docs = Vec::new();
        let (mut test, mut ignored) = (false, false);
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let Some(TokenTree::Group(group)) = tokens.peek() else { continue };
                    if group.delimiter() != Delimiter::Bracket {
                        continue;
                    }
                    let Ok(meta) = syn::parse2::<syn::Meta>(group.stream()) else { continue };
                    docs.extend(doc_text(&meta));
                    test |= names_test(&meta);
                    ignored |= meta.path().is_ident("ignore");
                    tokens.next();
                }
                TokenTree::Ident(ident) if ident == "fn" => {
                    if let Some(TokenTree::Ident(name)) = tokens.peek() {
                        let (name, docs) = (name.clone(), std::mem::take(&mut docs));
                        self.function(&name, &docs, runs(test, ignored, false));
                    }
                    (test, ignored) = (false, false);
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {}
            }
        }
        for (text, span) in docs {
            if text.lines().any(is_rule_line) {
                self.problem(span, "rule names in a macro that are not on a test function");
            }
        }
    }
}

impl<'ast> Visit<'ast> for Source<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        let docs: Vec<_> = function.attrs.iter().filter_map(|a| doc_text(&a.meta)).collect();
        let runs =
            runs(is_test(&function.attrs), is_ignored(&function.attrs), function.block.stmts.is_empty());
        self.function(&function.sig.ident, &docs, runs);
        // The attributes were dealt with here; what is inside the function is not.
        self.visit_block(&function.block);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.modules.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.modules.pop();
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
    }

    /// An attribute of anything but a function outside an `impl`.
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let Some((text, _)) = doc_text(&attribute.meta)
            && text.lines().any(is_rule_line)
        {
            self.problem(attribute.pound_token.span, "rule names that are not on a test function");
        }
    }
}

/// Returns an error if the rule names on a function do not count, with the reason.
fn runs(test: bool, ignored: bool, empty: bool) -> Result<(), &'static str> {
    match (test, ignored, empty) {
        (false, ..) => Err("it is not a test"),
        (true, true, _) => Err("it is ignored"),
        (true, false, true) => Err("its body is empty"),
        (true, false, false) => Ok(()),
    }
}

fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attribute| names_test(&attribute.meta))
}

fn is_ignored(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attribute| attribute.path().is_ident("ignore"))
}

/// True for `#[test]` and for the attributes of test crates that end in `::test`.
fn names_test(meta: &syn::Meta) -> bool {
    meta.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

/// The text of a doc comment.
fn doc_text(meta: &syn::Meta) -> Option<(String, proc_macro2::Span)> {
    match meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            path,
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
            ..
        }) if path.is_ident("doc") => Some((text.value(), text.span())),
        _ => None,
    }
}

/// The text of a doc comment, without its place.
pub(super) fn doc_of(meta: &syn::Meta) -> Option<String> {
    doc_text(meta).map(|(text, _)| text)
}

/// True if a line of a doc comment is, or is meant to be, a list of rules.
fn is_rule_line(line: &str) -> bool {
    matches!(opening(line), Opening::Names(..) | Opening::NearMiss(_))
}

/// Opening of a line of a doc comment.
enum Opening<'a> {
    Names(Kind, &'a str),
    NearMiss(Kind),
    Prose,
}

fn opening(line: &str) -> Opening<'_> {
    let line = line.trim().trim_start_matches('*').trim_start();
    let Some((word, rest)) = line.split_once(':') else { return Opening::Prose };
    for kind in Kind::ALL {
        if word == kind.word() {
            return Opening::Names(kind, rest);
        }
        let (word, wanted) = (word.trim().to_ascii_lowercase(), kind.word().to_ascii_lowercase());
        if word == wanted || (word.len() >= 4 && wanted.starts_with(&word)) {
            return Opening::NearMiss(kind);
        }
    }
    Opening::Prose
}

/// Takes the rule names of one line of a doc comment.
fn read_line(line: &str, place: &str, test: &str, claims: &mut Vec<Claim>, problems: &mut Vec<String>) {
    match opening(line) {
        Opening::Prose => {}
        Opening::NearMiss(kind) => {
            problems.push(format!("{place}: {test}: {:?} must be spelt `{}:`", line.trim(), kind.word()));
        }
        Opening::Names(kind, names) => {
            for id in names.split(',').map(str::trim) {
                if id.is_empty() {
                    problems.push(format!("{place}: {test}: an empty name in {:?}", line.trim()));
                    continue;
                }
                claims.push(Claim {
                    id: id.to_owned(),
                    kind,
                    test: test.to_owned(),
                    place: place.to_owned(),
                    chooses: BTreeSet::new(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn source(text: &str) -> Found {
        let mut found = Found::default();
        found.source("t.rs", text);
        found
    }

    fn names(found: &Found) -> Vec<(String, &str, &str)> {
        assert_eq!(found.problems, Vec::<String>::new());
        found.claims.iter().map(|c| (format!("{}: {}", c.kind.word(), c.id), &*c.test, &*c.place)).collect()
    }

    fn problem(text: &str) -> String {
        let found = source(text);
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        found.problems.into_iter().next().expect("one problem")
    }

    #[test]
    fn names_on_tests_are_taken() {
        let found = source(
            "mod m {\n/// A listener.\n///\n/// Shows: LSN-01, LSN-02\n/// Shows: LSN-03\n\
             /// Catches: LSN-09\n\
             #[test]\nfn one() { run(); }\n}\n/// Prevents: LSN-04\n#[tokio::test]\n\
             async fn two() { run(); }\n",
        );
        assert_eq!(
            names(&found),
            [
                ("Shows: LSN-01".to_owned(), "m::one", "t.rs:8"),
                ("Shows: LSN-02".to_owned(), "m::one", "t.rs:8"),
                ("Shows: LSN-03".to_owned(), "m::one", "t.rs:8"),
                ("Catches: LSN-09".to_owned(), "m::one", "t.rs:8"),
                ("Prevents: LSN-04".to_owned(), "two", "t.rs:12"),
            ]
        );
    }

    #[test]
    fn prose_and_other_rule_names_are_left_alone() {
        let found = source(
            "//! See LSN-01: it shows.\n/// Note: LSN-01.\n/// This shows: nothing.\nfn helper() {}\n\
             /// # Errors\n/** Uses LSN-02. */\n#[test]\nfn one() { run(); }\n",
        );
        assert_eq!(names(&found), []);
    }

    #[test]
    fn block_comments_are_read() {
        let found = source("/**\n * A test.\n * Shows: LSN-01\n */\n#[test]\nfn one() { run(); }\n");
        assert_eq!(names(&found), [("Shows: LSN-01".to_owned(), "one", "t.rs:6")]);
    }

    #[test]
    fn names_inside_macros_are_taken() {
        let found = source(
            "modes! {\n/// Shows: LSN-01\n#[test]\nfn one(sim in all) { run(); }\n/// Shows: LSN-02\n\
             #[test]\nfn two() {}\n}",
        );
        assert_eq!(
            names(&found),
            [("Shows: LSN-01".to_owned(), "one", "t.rs:4"), ("Shows: LSN-02".to_owned(), "two", "t.rs:7")]
        );
    }

    #[test]
    fn names_that_nothing_runs_are_refused() {
        assert!(
            problem("/// Shows: LSN-01\nfn one() { run(); }")
                .contains("t.rs:2: one names rules, but it is not a test")
        );
        assert!(
            problem("/// Shows: LSN-01\n#[test]\n#[ignore]\nfn one() { run(); }").contains("it is ignored")
        );
        assert!(problem("/// Shows: LSN-01\n#[test]\nfn one() {}").contains("its body is empty"));
        assert!(problem("//! Shows: LSN-01\n").contains("not on a test function"));
        assert!(problem("/// Shows: LSN-01\nstruct S;").contains("t.rs:1"));
        assert!(problem("struct S;\nimpl S {\n/// Shows: LSN-01\nfn f() {}\n}").contains("t.rs:3"));
        assert!(problem("m! { /// Shows: LSN-01\n fn one() {} }").contains("it is not a test"));
        assert!(
            problem("m! { #[test] fn zero() {}\n /// Shows: LSN-01\n struct S; }").contains("in a macro")
        );
    }

    #[test]
    fn misspelt_lines_are_refused() {
        assert!(problem("/// Show: LSN-01\n#[test]\nfn one() { run(); }").contains("must be spelt `Shows:`"));
        assert!(
            problem("/// catches: LSN-01\n#[test]\nfn one() { run(); }").contains("must be spelt `Catches:`")
        );
        assert!(problem("/// Shows:\n#[test]\nfn one() { run(); }").contains("empty name"));
        assert!(problem("/// Shows: LSN-01,\n#[test]\nfn one() { run(); }").contains("empty name"));
        assert!(
            problem("/// Shows: A-01, A-01\n#[test]\nfn one() { run(); }").contains("`Shows: A-01` twice")
        );
        assert!(problem("/// Shows: A-01\n/// Shows: A-01\n#[test]\nfn one() { run(); }").contains("t.rs:2"));
    }

    #[test]
    fn a_file_that_is_not_rust_is_named() {
        assert!(problem("fn one( {").contains("t.rs:1: not Rust"));
    }

    #[test]
    fn compile_fail_files_count_when_trybuild_runs_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tests = dir.path().join("crates/one/tests");
        let cases = tests.join("compile_fail");
        fs::create_dir_all(&cases).expect("a directory");
        fs::write(
            cases.join("a.rs"),
            "//! No token, no wait.\n//!\n//! Prevents: LSN-01\nfn main() { let }\n",
        )
        .expect("a file");
        fs::write(cases.join("quiet.rs"), "//! No rule.\nfn main() { let }\n").expect("a file");
        let scan = || workspace(dir.path());
        let failure = || format!("{:#}", scan().expect_err("malformed"));
        let runner = |text: &str| fs::write(tests.join("compile_fail.rs"), text).expect("a file");

        assert!(failure().contains("nothing runs it"), "{}", failure());
        runner("fn helper() { t.compile_fail(\"tests/compile_fail/*.rs\"); }");
        assert!(failure().contains("no test in"), "{}", failure());
        runner("#[test]\nfn ui() { t.compile_fail(\"tests/compile_fail/b*.rs\"); }");
        assert!(failure().contains("no test in"), "{}", failure());
        runner(
            "#[test]\nfn ui() { let t = trybuild::TestCases::new();\n\
             t.compile_fail(\"tests/compile_fail/*.rs\"); }",
        );
        assert!(failure().contains(".stderr"), "{}", failure());
        fs::write(cases.join("a.stderr"), "error").expect("a file");
        let claims = scan().expect("well formed");
        assert_eq!(
            claims,
            [Claim {
                id: "LSN-01".to_owned(),
                kind: Kind::Prevents,
                test: "compile_fail".to_owned(),
                place: "crates/one/tests/compile_fail/a.rs:3".to_owned(),
                chooses: BTreeSet::new(),
            }]
        );
        fs::write(cases.join("a.rs"), "//! Shows: LSN-01\n").expect("a file");
        assert!(failure().contains("only say Prevents"), "{}", failure());
    }

    #[test]
    fn only_rust_files_outside_target_are_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, text: &str| {
            let path: PathBuf = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        let test = "/// Shows: LSN-01\n#[test]\nfn one() { run(); }\n";
        put("src/lib.rs", test);
        put("crates/a/tests/b.rs", test);
        put("examples/c/target/debug/out.rs", test);
        put("docs/d.rs", test);
        put("tests/e.txt", test);
        let places: Vec<_> =
            workspace(dir.path()).expect("well formed").into_iter().map(|c| c.place).collect();
        assert_eq!(places, ["src/lib.rs:3", "crates/a/tests/b.rs:3"]);
    }
}
