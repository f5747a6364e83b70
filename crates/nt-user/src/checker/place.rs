//! Where in the driver's code something happened.

use std::path::Path;

/// Frames of these files are the machinery, not the driver.
const MACHINERY: [&str; 9] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/"),
    "/wsk-provider/src/",
    "/wsk-sim/src/",
    "/wsk-sys/src/",
    "/rustc/",
    "/library/std/",
    "/.cargo/registry/",
    "/nptl/",
    "/sysdeps/",
];

/// The same by symbol, for frames without line information.
const MACHINERY_CRATES: [&str; 9] = [
    "nt_user::",
    "wsk_provider::",
    "wsk_sim::",
    "wsk_sys::",
    "std::",
    "core::",
    "alloc::",
    "backtrace::",
    "__rust",
];

fn is_machinery(name: &str, file: Option<&Path>) -> bool {
    let by_symbol = || {
        let name = name.trim_start_matches(['<', '&', '_']);
        !name.contains("::") || MACHINERY_CRATES.iter().any(|prefix| name.starts_with(prefix))
    };
    let by_file = |file: &str| MACHINERY.iter().any(|part| file.contains(part));
    file.and_then(Path::to_str).map_or_else(by_symbol, by_file)
}

/// The innermost frame outside the kernel, the provider, the test kit and the standard library.
///
/// Unwinding the stack and reading debug information take milliseconds, so this is for what went wrong only.
pub(crate) fn capture() -> String {
    let mut place = None;
    backtrace::trace(|frame| {
        backtrace::resolve_frame(frame, |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
            if place.is_some() || is_machinery(&name, symbol.filename()) {
                return;
            }
            place = Some(match (symbol.filename(), symbol.lineno()) {
                (Some(file), Some(line)) => format!("{name} ({}:{line})", file.display()),
                _ => name,
            });
        });
        place.is_none()
    });
    place.unwrap_or_else(|| format!("thread `{}`", std::thread::current().name().unwrap_or("without a name")))
}
