//! The program itself, without a driver.

use std::process::{Command, Output};

fn gatectl(words: &str) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_gatectl")).args(words.split_whitespace()).output();
    output.expect("the program starts")
}

#[test]
fn without_a_driver_each_command_says_so_in_one_line() {
    for words in
        ["status", "policy show --json", "policy set --default ask", "watch", "ask", "ask --verdict accept"]
    {
        let output = gatectl(words);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert_eq!(output.stdout, b"", "{words}");
        let said = String::from_utf8(output.stderr).expect("text");
        let line = if cfg!(windows) {
            "error: the driver is not running: sc start conditional_accept\n"
        } else {
            "error: the driver can only be controlled on Windows: run gatectl.exe there or under Wine\n"
        };
        assert_eq!(said, line, "{words}");
    }
}

#[test]
fn wrong_options_are_another_status() {
    for words in ["", "polic", "policy set", "watch --count 0", "policy set --accept ::1 --reject ::1"] {
        let output = gatectl(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains("Usage: gatectl") || said.contains("--help"), "{words}: {said}");
    }
}

#[test]
fn help_is_no_failure() {
    let output = gatectl("--help");
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).expect("text");
    for command in ["status", "policy", "watch", "ask", "Exit status"] {
        assert!(said.contains(command), "{said}");
    }
}
