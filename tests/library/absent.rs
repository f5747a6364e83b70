//! Calls that the library never makes: rules about it cannot be broken by its users. Whoever adds such a call
//! finds the rules here that need a proof of their own from then on.

use std::fs;
use std::path::{Path, PathBuf};

/// The library's files.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Expects that no line of the library's code, comments and names of errors apart, has one of these words.
#[track_caller]
fn assert_absent(words: &[&str]) {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 10, "the library is where it was");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // A call goes through a table's field; a name in a message is quoted.
            let found =
                words.iter().find(|word| code.contains(**word) && !code.contains(&format!("\"{word}")));
            assert!(found.is_none(), "{}:{}: {found:?}", file.display(), number + 1);
        }
    }
}

/// Prevents: IRQL-09
#[test]
fn names_are_never_resolved() {
    assert_absent(&["WskGetAddressInfo", "WskFreeAddressInfo", "WskGetNameInfo"]);
}

/// Prevents: IRQL-10
#[test]
fn the_ioctls_for_passive_level_are_never_issued() {
    assert_absent(&["SIO_ADDRESS_LIST", "SIO_LOOPBACK_FAST_PATH", "WFP_CONNECTION_REDIRECT"]);
}

/// Prevents: IRQL-11
#[test]
fn rdma_adapters_are_never_opened() {
    assert_absent(&["WSKNDK", "NdkAdapter", "WSK_PROVIDER_NDK_DISPATCH"]);
}

/// Prevents: LIFE-10
#[test]
fn buffer_lists_and_control_messages_of_streams_are_never_passed() {
    assert_absent(&["WSK_BUF_LIST", "WskSendMessages", "WskSendEx", "WskReceiveEx"]);
}

/// The search itself: what the library does call is found.
#[test]
#[should_panic(expected = "WskCloseSocket")]
fn what_is_called_is_found() {
    assert_absent(&["WskCloseSocket"]);
}
