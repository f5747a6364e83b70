//! Source locations in the driver's code.

use std::ffi::c_void;
use std::path::Path;

/// Parts of file names that identify frames of the simulation and the standard library.
const MACHINERY: [&str; 12] = [
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
const MACHINERY_CRATES: [&str; 9] = [
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

fn is_machinery(name: &str, file: Option<&Path>) -> bool {
    let by_symbol = || {
        let name = name.trim_start_matches(['<', '&', '_']);
        !name.contains("::") || MACHINERY_CRATES.iter().any(|prefix| name.starts_with(prefix))
    };
    // Compilers on Windows write backslashes, and the standard library's files have both.
    let by_file = |file: &str| {
        let file = file.replace('\\', "/");
        MACHINERY.iter().any(|part| file.contains(part))
    };
    file.and_then(Path::to_str).map_or_else(by_symbol, by_file)
}

/// Formats a file name the same on every system.
fn shown(file: &Path) -> String {
    let file = file.to_string_lossy();
    if cfg!(windows) { file.replace('\\', "/") } else { file.into_owned() }
}

/// Returns the innermost frame outside the kernel, the provider, the test kit and the standard library.
///
/// Unwinding the stack and reading debug information take milliseconds, so this is for violations only.
pub(crate) fn capture() -> String {
    Frames::capture().place()
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
    pub(crate) fn place(&self) -> String {
        let mut place = None;
        for address in &self.addresses {
            backtrace::resolve(*address as *mut c_void, |symbol| {
                let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
                if place.is_some() || is_machinery(&name, symbol.filename()) {
                    return;
                }
                place = Some(match (symbol.filename(), symbol.lineno()) {
                    (Some(file), Some(line)) => format!("{name} ({}:{line})", shown(file)),
                    _ => name,
                });
            });
            if place.is_some() {
                break;
            }
        }
        place.unwrap_or_else(|| format!("thread `{}`", self.thread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machinery_is_known_by_its_files_on_every_system() {
        for file in [
            "/w/crates/nt-user/src/irp/mod.rs",
            r"C:\w\crates\nt-user\src\irp\mod.rs",
            r"C:\w\crates\wsk-provider\src\socket\mod.rs",
            r"/rustc/59807616e\library\std\src\panicking.rs",
            "/usr/lib/rustlib/src/rust/library/core/src/ops/function.rs",
            "./dlls/kernel32/thread.c",
        ] {
            assert!(is_machinery("driver::send", Some(Path::new(file))), "{file}");
        }
        assert!(is_machinery("__rustc::rust_begin_unwind", None) && !is_machinery("driver::send", None));
        for file in ["/w/crates/nt-user/tests/irp.rs", r"C:\w\crates\nt-user\tests\irp.rs"] {
            assert!(!is_machinery("driver::send", Some(Path::new(file))), "{file}");
        }
    }
}
