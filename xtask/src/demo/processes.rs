//! Processes: those to end when the demo is interrupted, and the resources of the server's.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::server::Holdings;
use crate::command::family;
use crate::wine::Prefix;

/// The status a shell shows for a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// Limit on ending everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Function that ends a server. It returns whether nothing is left.
type End = Box<dyn FnMut() -> bool + Send>;

/// Servers to end when the program is interrupted.
static ENDS: Mutex<Vec<End>> = Mutex::new(Vec::new());
/// The program is being interrupted.
static INTERRUPTION: AtomicBool = AtomicBool::new(false);
/// Its main thread has noticed, and starts nothing more.
static PARKED: AtomicBool = AtomicBool::new(false);

/// Calls `end` when the program is interrupted, until it returns that nothing is left.
pub(crate) fn on_interrupt(end: impl FnMut() -> bool + Send + 'static) {
    ENDS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(end));
}

/// Ends the machine in a prefix when the program is interrupted.
pub(crate) fn end_on_interrupt(prefix: &Prefix) {
    let prefix = prefix.clone();
    on_interrupt(move || {
        // What matters is what is left then.
        let _ = prefix.kill();
        let left = of_wine(prefix.directory());
        kill(&left);
        left.is_empty()
    });
}

/// Blocks once the program is being interrupted. Call it before something is started and before a failure is
/// reported, which may be a result of the interruption.
pub(crate) fn checkpoint() {
    while INTERRUPTION.load(Ordering::SeqCst) {
        PARKED.store(true, Ordering::SeqCst);
        std::thread::park();
    }
}

/// Makes Ctrl-C, SIGTERM and SIGHUP end everything that was started here, and then the program.
///
/// ```text
///   signal ──► handler: end children and servers, repeatedly ──► main thread parked, nothing left ──► exit
///              main thread: its operation fails ──► checkpoint ──► parked
/// ```
pub(crate) fn end_all_on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        eprintln!("\ninterrupted: stopping everything that was started");
        INTERRUPTION.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            // Asked first: what a thread that is parked now has started is there to be found.
            let parked = PARKED.load(Ordering::SeqCst);
            end_children();
            let mut nothing_left = true;
            for end in &mut *ENDS.lock().unwrap_or_else(PoisonError::into_inner) {
                nothing_left &= end();
            }
            if parked && nothing_left {
                break true;
            }
            if Instant::now() > deadline {
                break false;
            }
        };
        eprintln!(
            "{}",
            if ended { "nothing is left running" } else { "error: not everything could be ended" }
        );
        std::process::exit(INTERRUPTED);
    })
    .context("cannot set a signal handler")
}

/// Tells a process to end in order.
#[cfg(unix)]
pub(crate) fn terminate(child: &Child) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    kill_process(Pid::from_child(child), Signal::TERM).context("cannot signal the server")
}

/// Tells a process to end in order.
#[cfg(not(unix))]
pub(crate) fn terminate(_: &Child) -> Result<()> {
    anyhow::bail!("this host cannot terminate processes")
}

/// Ends the children of this process, and theirs.
fn end_children() {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        let descendants = || family::descendants(std::process::id().cast_signed());
        for process in descendants() {
            // An error says that it has ended.
            Pid::from_raw(process).map(|process| kill_process(process, Signal::TERM));
        }
        std::thread::sleep(Duration::from_millis(200));
        kill(&descendants());
    }
}

/// Returns the resources that these processes hold.
pub(crate) fn holdings(processes: impl IntoIterator<Item = i32>) -> Holdings {
    let mut sum = Holdings::default();
    for process in processes {
        let directory = Path::new("/proc").join(process.to_string());
        let entries = |name: &str| std::fs::read_dir(directory.join(name)).map_or(0, Iterator::count);
        sum.threads += entries("task");
        sum.descriptors += entries("fd");
        let status = std::fs::read_to_string(directory.join("status")).unwrap_or_default();
        sum.memory += memory_in(&status).unwrap_or_default();
    }
    sum
}

/// Returns Wine's processes with this prefix. Other processes may have it in their environment, too, such as
/// the shell of a user who inspects it.
pub(crate) fn of_wine(prefix: &Path) -> Vec<i32> {
    let wanted = format!("WINEPREFIX={}", prefix.display()).into_bytes();
    let has = |process: &i32| {
        let directory = Path::new("/proc").join(process.to_string());
        let environment = std::fs::read(directory.join("environ")).unwrap_or_default();
        let program = std::fs::read_link(directory.join("exe")).unwrap_or_default();
        is_wine(&program) && environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    family::processes().into_iter().filter(has).collect()
}

/// Returns whether it is Wine's loader, under one of its names, or its server.
fn is_wine(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wine"))
}

/// Ends processes at once. They are those of a gate of ours, found by their environment.
pub(crate) fn kill(processes: &[i32]) {
    #[cfg(unix)]
    for process in processes {
        use rustix::process::{Pid, Signal, kill_process};
        // An error says that it has ended.
        Pid::from_raw(*process).map(|process| kill_process(process, Signal::KILL));
    }
    #[cfg(not(unix))]
    let _ = processes;
}

/// `VmRSS` of a process' `status`, in KiB.
fn memory_in(status: &str) -> Option<usize> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn fields_of_processes() {
        assert!(is_wine(Path::new("/usr/lib/wine/wine64-preloader")) && !is_wine(Path::new("/usr/bin/bash")));
        assert_eq!(memory_in("Name:\tx\nVmRSS:\t  1234 kB\n"), Some(1234));
        let own = holdings([i32::try_from(std::process::id()).unwrap()]);
        assert!(own.threads >= 1 && own.descriptors >= 3 && own.memory > 100, "{own}");
    }
}
