//! Checks that programs and drivers for Windows link the C runtime statically.

use std::path::Path;
use std::process::Command;

/// Returns the target configuration of the compiler when cargo builds for Windows in `directory`; nothing is
/// built.
fn configuration(directory: &str, arguments: &[&str]) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let target = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "-Zunstable-options",
            "rustc",
            "--locked",
            "--target",
            "x86_64-pc-windows-msvc",
            "--print",
            "cfg",
        ])
        .args(arguments)
        .arg("--target-dir")
        .arg(target.path())
        .current_dir(workspace.join(directory))
        // For `--print` alone. The flags of this test's own build would take the place of those of the
        // configuration.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_control_program_needs_no_runtime_of_the_test_machine() {
    let output = configuration(".", &["--package", "gatectl", "--bin", "gatectl"]);
    assert!(output.lines().any(|line| line == "target_feature=\"crt-static\""), "{output}");
}

#[test]
fn the_user_mode_program_needs_no_runtime_either() {
    let output = configuration(".", &["--package", "gate-host", "--bin", "gate-host"]);
    assert!(output.lines().any(|line| line == "target_feature=\"crt-static\""), "{output}");
}
