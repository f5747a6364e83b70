//! `cargo xtask setup`: packages for Windows builds and for Wine, and the purpose of each.
//!
//! ```text
//!  dpkg-query ─► Missing ─┬─ none ──────────────────────────────► ready
//!                         ├─ root on Debian ─► apt-get ─► checked again ─► ready, or advice
//!                         └─ otherwise ──────► the one command to run, and what works without
//! ```
//!
//! A run that is interrupted is repeated: packages that are installed are skipped, and what an interrupted
//! installation left half configured is finished first.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};

use super::Layout;
use crate::command::{self, Failure};
use crate::progress::Step;

/// Commands that need nothing but Rust.
pub(crate) const WITHOUT: &str = "\
Without these, everything in user mode works: `cargo run -p gate-host` and `cargo test`.";

/// The oldest compiler that will do: this workspace's own minimum.
const OLDEST: (u32, u32) = (1, 91);

/// Limit on a run of apt-get.
const APT: Duration = Duration::from_mins(20);
/// Time that apt-get waits for another package manager, in seconds.
const LOCK_SECONDS: u32 = 60;

/// A package and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    name: &'static str,
    purpose: &'static str,
}

/// All packages that are needed.
pub(crate) const PACKAGES: [Package; 10] = [
    Package { name: "rustc-web", purpose: "a Rust compiler that comes with its library's sources" },
    Package { name: "rust-web-src", purpose: "those sources: core, alloc and std are built for Windows" },
    Package { name: "clang", purpose: "reads the headers, compiles small C sources for the driver" },
    Package { name: "libclang-dev", purpose: "the same as a library, for the bindings of wdk-sys" },
    Package { name: "lld", purpose: "links the driver (lld-link)" },
    Package { name: "llvm", purpose: "makes import libraries (llvm-lib)" },
    Package { name: "mingw-w64-x86-64-dev", purpose: "headers and import libraries in place of the WDK's" },
    Package {
        name: "gcc-mingw-w64-x86-64",
        purpose: "links netio.sys and gatectl.exe, compiles the C driver",
    },
    Package { name: "binutils-mingw-w64-x86-64", purpose: "tools of that compiler" },
    Package { name: "wine64", purpose: "loads the driver: its kernel is the test machine" },
];

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only report installed and missing packages; exit status 1 if any is missing
    #[arg(long)]
    check: bool,
    /// Install even if packages have to be removed for it, such as Debian's own rustc
    #[arg(long, conflicts_with = "check")]
    replace: bool,
}

/// Properties of this machine that decide how to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Machine {
    /// It has dpkg and apt-get.
    debian: bool,
    /// We may install.
    root: bool,
}

impl Machine {
    fn look() -> Self {
        Self {
            debian: which::which("dpkg-query").is_ok() && which::which("apt-get").is_ok(),
            root: command::ask("id", &["-u"]).as_deref() == Some("0"),
        }
    }
}

/// A package with its installed version, if it is installed.
#[derive(Debug, Clone)]
struct Found {
    package: Package,
    version: Option<String>,
}

impl Found {
    /// Returns whether it is installed but too old.
    fn outdated(&self) -> bool {
        let Some(version) = self.version.as_deref().filter(|_| self.package.name.starts_with("rust")) else {
            return false;
        };
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST
    }

    /// Returns its state for the table.
    fn state(&self) -> String {
        match &self.version {
            None => "no".to_owned(),
            Some(version) if self.outdated() => format!("{version} (too old)"),
            Some(version) => version.clone(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let machine = Machine::look();
    if !machine.debian {
        bail!("{NOT_DEBIAN}\n{WITHOUT}");
    }
    let found = look();
    println!("{}", table(&found));
    let missing = missing(&found);
    if missing.is_empty() {
        println!("Everything is installed. Next: `cargo xtask demo`.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}\n", summary(&missing));
    if args.check || !machine.root {
        println!(
            "To install {}:\n\n    {}\n\n{WITHOUT}",
            them(missing.len()),
            command_line(&missing, machine.root)
        );
        return Ok(ExitCode::FAILURE);
    }
    install(layout, &missing, args.replace)?;
    let missing = self::missing(&look());
    if !missing.is_empty() {
        bail!("apt-get reported success, but {} still missing: {}", is_are(missing.len()), names(&missing));
    }
    println!("Everything is installed. Next: `cargo xtask demo`.");
    Ok(ExitCode::SUCCESS)
}

/// Fails with the remedy unless everything is installed. Returns the versions, for stamps.
pub(crate) fn require() -> Result<Versions> {
    let machine = Machine::look();
    if !machine.debian {
        bail!("{NOT_DEBIAN}\n{WITHOUT}");
    }
    let found = look();
    let missing = missing(&found);
    if !missing.is_empty() {
        let how = if machine.root {
            "Run `cargo xtask setup`, which installs what is missing.".to_owned()
        } else {
            format!("Run: {}", command_line(&missing, false))
        };
        bail!("{}\n{how}\n{WITHOUT}", summary(&missing));
    }
    Ok(Versions(found))
}

/// Installs what is missing, if that may be done here; otherwise fails with the remedy.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let machine = Machine::look();
    let missing = missing(&look());
    if machine.debian && machine.root && !missing.is_empty() {
        install(layout, &missing, false)?;
    }
    require().map(drop)
}

/// Versions of the installed packages.
#[derive(Debug)]
pub(crate) struct Versions(Vec<Found>);

impl Versions {
    /// The version of one of them.
    pub(crate) fn of(&self, name: &str) -> &str {
        let found = self.0.iter().find(|found| found.package.name == name);
        found.and_then(|found| found.version.as_deref()).unwrap_or("unknown")
    }
}

const NOT_DEBIAN: &str = "\
Building for Windows on Linux needs Debian 12 or later and its packages (dpkg and apt-get are missing here).";

/// Asks dpkg for every package.
fn look() -> Vec<Found> {
    // dpkg-query fails if it does not know one of the names, but still reports the others.
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Abbrev} ${Version}\\n"]);
    query.args(PACKAGES.map(|package| package.name));
    let answer = command::capture(&mut query, Duration::from_secs(30));
    let answer = answer.map(|captured| captured.stdout).unwrap_or_default();
    parse(&answer)
}

/// Reads dpkg's answer: name, status (`ii` is installed), version.
fn parse(answer: &str) -> Vec<Found> {
    let version_of = |name: &str| {
        answer.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let installed = words.next() == Some(name) && words.next() == Some("ii");
            words.next().filter(|_| installed).map(str::to_owned)
        })
    };
    PACKAGES.map(|package| Found { package, version: version_of(package.name) }).to_vec()
}

fn missing(found: &[Found]) -> Vec<Package> {
    let absent = |found: &&Found| found.version.is_none() || found.outdated();
    found.iter().filter(absent).map(|found| found.package).collect()
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["package", "installed", "what for"]);
    for found in found {
        table.add_row([found.package.name, &found.state(), found.package.purpose]);
    }
    table
}

fn names(packages: &[Package]) -> String {
    packages.iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
}

fn summary(missing: &[Package]) -> String {
    match missing {
        [one] => format!("One package is missing or too old: {} ({}).", one.name, one.purpose),
        more => format!("{} packages are missing or too old: {}.", more.len(), names(more)),
    }
}

fn them(count: usize) -> &'static str {
    if count == 1 { "it" } else { "them" }
}

fn is_are(count: usize) -> &'static str {
    if count == 1 { "one package is" } else { "some packages are" }
}

/// The one command that installs what is missing.
fn command_line(missing: &[Package], root: bool) -> String {
    let sudo = if root { "" } else { "sudo " };
    format!("{sudo}apt-get update && {sudo}apt-get install --yes --no-install-recommends {}", names(missing))
}

/// Installs with apt-get, as root.
fn install(layout: &Layout, missing: &[Package], replace: bool) -> Result<()> {
    let _lock = layout.lock()?;
    // What an interrupted installation left behind would make apt-get refuse.
    if command::ask("dpkg", &["--audit"]).is_some_and(|audit| !audit.is_empty()) {
        let step = Step::start("Finishing an interrupted installation");
        let mut configure = Command::new("dpkg");
        configure
            .args(["--configure", "--pending"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            // What it says is read here.
            .env("LC_ALL", "C.UTF-8");
        explained(command::logged(configure, "dpkg", &layout.log("setup-dpkg"), APT, &step))?;
        step.done();
    }

    let step = Step::start("Reading the package lists");
    // Lists that are there may be good enough, so this failure counts only if the next step fails too.
    let lists = apt_get(&["update"], &layout.log("setup-update"), &step);
    let lists = match lists {
        Ok(()) => {
            step.done();
            None
        }
        Err(failure) => {
            drop(step);
            Some(failure)
        }
    };

    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().map(|package| package.name));
    let removed = would_remove(&arguments);
    if !replace && !removed.is_empty() {
        bail!(
            "installing these would remove: {}\nTo allow that, run `cargo xtask setup --replace`.\n{WITHOUT}",
            removed.join(" ")
        );
    }
    let step = Step::start(match missing {
        [one] => format!("Installing {}", one.name),
        more => format!("Installing {} packages", more.len()),
    });
    match (apt_get(&arguments, &layout.log("setup-install"), &step), lists) {
        (Ok(()), _) => {
            step.done();
            Ok(())
        }
        (Err(failure), None) => explained(Err(failure)),
        (Err(failure), Some(lists)) => {
            // The first of the two is the cause, if it is known.
            if explanation(lists.tail()).is_some() { explained(Err(lists)) } else { explained(Err(failure)) }
        }
    }
}

/// The packages that an installation would remove: Debian's other Rust compilers, for one, conflict with
/// ours.
fn would_remove(arguments: &[&str]) -> Vec<String> {
    let simulation = [&["--simulate", "-q"], arguments].concat();
    // A simulation that fails removes nothing; the installation itself will say why.
    removals(&command::ask("apt-get", &simulation).unwrap_or_default())
}

/// Returns the packages that a simulation removes.
fn removals(simulation: &str) -> Vec<String> {
    let removed = simulation.lines().filter_map(|line| line.strip_prefix("Remv "));
    removed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn apt_get(arguments: &[&str], log: &Path, step: &Step) -> Result<(), Failure> {
    let mut apt = Command::new("apt-get");
    apt.arg(format!("-oDPkg::Lock::Timeout={LOCK_SECONDS}"))
        .args(["-oDpkg::Use-Pty=0", "-oAPT::Update::Error-Mode=any"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");
    command::logged(apt, &format!("apt-get {}", arguments[0]), log, APT, step)
}

/// Puts what to do before what apt-get said.
fn explained(result: Result<(), Failure>) -> Result<()> {
    let Err(failure) = result else { return Ok(()) };
    let advice = explanation(failure.tail()).unwrap_or("The installation did not succeed.");
    bail!("{advice}\n{failure}\n{WITHOUT}")
}

/// Explains a message of apt-get or dpkg to the user.
fn explanation(said: &str) -> Option<&'static str> {
    const KNOWN: [(&[&str], &str); 5] = [
        (
            &[
                "Could not get lock",
                "Unable to acquire the dpkg frontend lock",
                "is another process using it",
                // dpkg's own words, in one release or another with «is» or «was».
                "locked by another process",
            ],
            "Another package manager is running. Let it finish, then run `cargo xtask setup` again.",
        ),
        (
            &[
                "Temporary failure resolving",
                "Could not resolve",
                "Could not connect",
                "Unable to connect",
                "Connection timed out",
                "Network is unreachable",
                "Failed to fetch",
            ],
            "The package servers cannot be reached. Check the network (or the proxy), then run `cargo xtask \
             setup` \
             again.",
        ),
        (
            &["Unable to locate package", "has no installation candidate"],
            "This release does not offer one of the packages. Debian 12 with its security suite \
             (bookworm-security in the package sources) has them all.",
        ),
        (
            &["dpkg was interrupted", "dpkg --configure -a"],
            "An installation was interrupted. Run `dpkg --configure -a`, then `cargo xtask setup` again.",
        ),
        (
            &["No space left on device", "don't have enough free space"],
            "The disk is full: about 1.5 GB are needed.",
        ),
    ];
    KNOWN.iter().find(|(words, _)| words.iter().any(|word| said.contains(word))).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let found = parse("clang ii  1:14.0-55.7~deb12u1\nlld rc  1:14.0\nwine iU  8.0\nllvm ii 1:14.0\n");
        let version = |name: &str| {
            found.iter().find(|found| found.package.name == name).and_then(|found| found.version.clone())
        };
        assert_eq!(version("clang").as_deref(), Some("1:14.0-55.7~deb12u1"));
        assert_eq!(version("llvm").as_deref(), Some("1:14.0"));
        for absent in ["lld", "wine", "wine64", "rustc-web"] {
            assert_eq!(version(absent), None, "{absent}");
        }
        assert_eq!(missing(&found).len(), PACKAGES.len() - 2);
    }

    #[test]
    fn a_compiler_older_than_the_workspace_wants_counts_as_missing() {
        let found = parse("rustc-web ii 1.85.0+dfsg3-1\nrust-web-src ii 1.96.0+dfsg1-1\nllvm ii 1:14.0\n");
        let names: Vec<&str> = missing(&found).iter().map(|package| package.name).collect();
        assert!(names.contains(&"rustc-web"));
        assert!(!names.contains(&"rust-web-src") && !names.contains(&"llvm"));
        assert_eq!(found[0].state(), "1.85.0+dfsg3-1 (too old)");
    }

    #[test]
    fn removals_are_read_from_a_simulation() {
        let said =
            "Reading package lists...\nRemv cargo [0.66]\nRemv rustc [1.63.0]\nInst rustc-web (1.96)\n";
        assert_eq!(removals(said), ["cargo", "rustc"]);
    }

    #[test]
    fn one_missing_package_is_named_with_its_purpose() {
        let lld = PACKAGES.into_iter().find(|package| package.name == "lld").unwrap();
        assert_eq!(summary(&[lld]), "One package is missing or too old: lld (links the driver (lld-link)).");
        assert!(summary(&PACKAGES).starts_with("10 packages are missing or too old: rustc-web "));
    }

    #[test]
    fn the_command_says_sudo_only_when_it_is_needed() {
        let line = command_line(&PACKAGES[4..5], false);
        assert_eq!(line, "sudo apt-get update && sudo apt-get install --yes --no-install-recommends lld");
        assert!(!command_line(&PACKAGES[4..5], true).contains("sudo"));
    }

    #[test]
    fn common_failures_are_explained() {
        let cases = [
            (
                "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)",
                "package manager",
            ),
            ("dpkg: error: dpkg frontend lock was locked by another process with pid 7", "package manager"),
            ("W: Failed to fetch http://deb.example/dists Temporary failure resolving 'deb'", "network"),
            ("E: Unable to locate package rustc-web", "Debian 12"),
            ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "interrupted"),
            ("dpkg: error: write error: No space left on device", "disk"),
        ];
        for (said, advice) in cases {
            assert!(explanation(said).is_some_and(|text| text.contains(advice)), "{said}");
        }
        assert_eq!(explanation("E: an unknown error"), None);
    }
}
