//! Source locations in the driver's code.

use std::ffi::c_void;
use std::path::Path;

/// Parts of file names that identify frames of the simulation and the standard library.
const INTERNAL_FILES: [&str; 12] = [
    "/nt-user/src/",
    "/wsk-provider/src/",
    "/wsk-sim/src/",
    "/wsk-sys/src/",
    "/rustc/",
    "/library/core/",
    "/library/alloc/",
    "/library/std/",
    "/.cargo/registry/",
    "/nptl/",
    "/sysdeps/",
    // Wine's own.
    "/dlls/",
];

/// Prefixes of symbols that do the same for frames without line information.
const INTERNAL_CRATES: [&str; 9] = [
    "nt_user::",
    "wsk_provider::",
    "wsk_sim::",
    "wsk_sys::",
    "std::",
    "core::",
    "alloc::",
    "backtrace::",
    // Underscores in front are taken off.
    "rust",
];

fn is_internal(name: &str, file: Option<&Path>) -> bool {
    let by_symbol = || {
        let name = name.trim_start_matches(['<', '&', '_']);
        !name.contains("::") || INTERNAL_CRATES.iter().any(|prefix| name.starts_with(prefix))
    };
    // Compilers on Windows write backslashes, and the standard library's files have both.
    let by_file = |file: &str| {
        let file = file.replace('\\', "/");
        INTERNAL_FILES.iter().any(|part| file.contains(part))
    };
    file.and_then(Path::to_str).map_or_else(by_symbol, by_file)
}

/// Formats a file name the same on every system.
fn display_path(file: &Path) -> String {
    let file = file.to_string_lossy();
    if cfg!(windows) { file.replace('\\', "/") } else { file.into_owned() }
}

/// Returns the innermost frame outside the kernel, the provider, the test kit and the standard library.
///
/// Unwinding the stack and reading debug information take milliseconds, so this is for violations only.
pub(crate) fn capture() -> String {
    Frames::capture().location()
}

/// The frames of a stack, before symbolization.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    /// The addresses in them, the innermost first.
    addresses: Vec<usize>,
    thread: String,
}

impl Frames {
    /// Captures the frames of the calling thread.
    pub(crate) fn capture() -> Self {
        let mut addresses = Vec::new();
        backtrace::trace(|frame| {
            addresses.push(frame.ip() as usize);
            true
        });
        let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
        Self { addresses, thread }
    }

    /// Returns the innermost frame outside the simulation.
    pub(crate) fn location(&self) -> String {
        let mut location = None;
        for address in &self.addresses {
            backtrace::resolve(*address as *mut c_void, |symbol| {
                let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
                if location.is_some() || is_internal(&name, symbol.filename()) {
                    return;
                }
                location = Some(match (symbol.filename(), symbol.lineno()) {
                    (Some(file), Some(line)) => format!("{name} ({}:{line})", display_path(file)),
                    _ => name,
                });
            });
            if location.is_some() {
                break;
            }
        }
        location.unwrap_or_else(|| format!("thread `{}`", self.thread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_frames_are_known_by_their_files_on_every_system() {
        for file in [
            "/w/crates/nt-user/src/irp/mod.rs",
            r"C:\w\crates\nt-user\src\irp\mod.rs",
            r"C:\w\crates\wsk-provider\src\socket\mod.rs",
            r"/rustc/59807616e\library\std\src\panicking.rs",
            "/usr/lib/rustlib/src/rust/library/core/src/ops/function.rs",
            "./dlls/kernel32/thread.c",
        ] {
            assert!(is_internal("driver::send", Some(Path::new(file))), "{file}");
        }
        assert!(is_internal("__rustc::rust_begin_unwind", None) && !is_internal("driver::send", None));
        for file in ["/w/crates/nt-user/tests/irp.rs", r"C:\w\crates\nt-user\tests\irp.rs"] {
            assert!(!is_internal("driver::send", Some(Path::new(file))), "{file}");
        }
    }
}
