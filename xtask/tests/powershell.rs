//! Checks of PowerShell: scripts, workflow steps and code blocks of the documentation parse, and the scripts
//! keep a few rules. Nothing is run here.

use std::path::{Path, PathBuf};

use tree_sitter::{Node, Parser, Tree};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .replace("\r\n", "\n")
}

fn files(directory: &str, extension: &str) -> Vec<String> {
    let entries =
        std::fs::read_dir(root().join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut names: Vec<_> = entries
        .map(|entry| format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|name| Path::new(name).extension().is_some_and(|found| found == extension))
        .collect();
    names.sort();
    names
}

fn parse(script: &str) -> Tree {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).unwrap();
    parser.parse(script, None).unwrap()
}

/// All nodes below `node`, itself included.
fn nodes<'t>(node: Node<'t>, found: &mut Vec<Node<'t>>) {
    found.push(node);
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        nodes(child, found);
    }
}

/// The first place that is no PowerShell.
fn fault(script: &str) -> Option<String> {
    let tree = parse(script);
    let mut all = Vec::new();
    nodes(tree.root_node(), &mut all);
    let bad = all.into_iter().find(|node| node.is_error() || node.is_missing())?;
    let row = bad.start_position().row;
    Some(format!("line {}: {}", row + 1, script.lines().nth(row).unwrap_or_default()))
}

/// The fenced blocks of a page that are marked as PowerShell.
fn blocks(page: &str) -> Vec<String> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix("pwsh\n").map(str::to_owned)).collect()
}

/// The scripts of a workflow's steps. Expressions of the workflow are filled in before PowerShell sees them.
fn steps(workflow: &str) -> Vec<String> {
    let lines: Vec<&str> = workflow.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let text = line.trim_start().trim_start_matches("- ");
        let Some(run) = text.strip_prefix("run: ") else { continue };
        found.push(if run == "|" {
            let deeper = |next: &&&str| next.trim().is_empty() || indent(next) > indent(line);
            lines[index + 1..].iter().take_while(deeper).copied().collect::<Vec<_>>().join("\n")
        } else {
            run.to_owned()
        });
    }
    found.into_iter().map(|script: String| script.replace("${{", "").replace("}}", "")).collect()
}

/// Returns the programs called by a name with `.exe` outside of an expression that uses their output: the
/// exit code is lost.
fn unchecked(script: &str) -> Vec<String> {
    let tree = parse(script);
    let mut all = Vec::new();
    nodes(tree.root_node(), &mut all);
    let text = |node: Node<'_>| script[node.byte_range()].to_owned();
    let in_parentheses = |node: Node<'_>| {
        std::iter::successors(node.parent(), Node::parent)
            .any(|outer| outer.kind() == "parenthesized_expression")
    };
    all.iter()
        .filter(|node| node.kind() == "command" && !in_parentheses(**node))
        .filter_map(|command| command.child_by_field_name("command_name"))
        .map(text)
        .filter(|name| name.to_ascii_lowercase().ends_with(".exe") || name == "bcdedit" || name == "sc")
        .collect()
}

#[test]
fn scripts_parse() {
    let scripts = files("scripts", "ps1");
    assert!(!scripts.is_empty());
    for script in scripts {
        assert_eq!(fault(&read(&script)), None, "{script}");
    }
}

#[test]
fn what_is_no_powershell_is_noticed() {
    assert_eq!(fault("if ($a -eq 1) { 'x' }"), None);
    for broken in ["if ($a -eq 1) { 'x'", "$x = (1, 2", "foreach ($a n $b) { }", "'text"] {
        assert!(fault(broken).is_some(), "{broken}");
    }
}

#[test]
fn code_blocks_of_the_documentation_parse() {
    let mut count = 0;
    for page in files("docs", "md") {
        for block in blocks(&read(&page)) {
            count += 1;
            assert_eq!(fault(&block), None, "{page}:\n{block}");
        }
    }
    assert!(count > 5, "{count} blocks");
}

#[test]
fn steps_of_the_windows_workflow_parse() {
    let steps = steps(&read(".github/workflows/windows.yml"));
    assert!(steps.len() > 5, "{steps:?}");
    for step in steps {
        assert_eq!(fault(&step), None, "{step}");
    }
}

#[test]
fn scripts_check_the_exit_codes_of_programs() {
    for script in files("scripts", "ps1") {
        assert_eq!(unchecked(&read(&script)), Vec::<String>::new(), "{script}");
    }
    assert_eq!(unchecked("sc.exe start x | Out-Null"), ["sc.exe"]);
    assert_eq!(unchecked("if ((verifier.exe /query) -match 'x') { }"), Vec::<String>::new());
}

#[test]
fn scripts_do_not_read_translated_output() {
    for script in files("scripts", "ps1") {
        let text = read(&script);
        // The one mention tells what to type.
        let read = text
            .lines()
            .filter(|line| line.contains("bcdedit") && !line.contains("throw") && !line.contains('#'));
        assert_eq!(read.collect::<Vec<_>>(), Vec::<&str>::new(), "{script}");
    }
}
