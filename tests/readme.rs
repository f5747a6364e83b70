//! The README shows the files that it names.

/// The minimal driver in the README is the one that is built.
#[test]
fn the_minimal_driver_is_shown_as_it_is() {
    let readme = include_str!("../README.md");
    let driver = include_str!("../examples/minimal/src/lib.rs");
    assert!(
        readme.contains(driver.trim_end()),
        "README.md shows another driver than examples/minimal/src/lib.rs"
    );
    let lines = driver.lines().count();
    assert!(lines <= 100, "a driver of {lines} lines is not minimal");
}

/// Each small program has its line in the README.
#[test]
fn every_small_program_is_listed() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(examples).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            assert!(
                include_str!("../README.md").contains(&format!("(examples/{name})")),
                "{name} is not in README.md"
            );
        }
    }
}
