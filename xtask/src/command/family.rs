//! A process, its children, and theirs.
//!
//! A compiler or a test that cargo has started does not end with cargo. Nor would a process group do: what is
//! not in the terminal's foreground group does not get its Ctrl-C.
//!
//! ```text
//!   listed by their parents in /proc ──► stopped ──► listed again, until none is new ──► killed
//! ```
//!
//! Without `/proc` no process is found; Windows has a program that ends a family.

use std::path::Path;

/// The children of a process, and theirs.
#[cfg(unix)]
pub(crate) fn descendants(of: i32) -> Vec<i32> {
    let parent = |process: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        parent_in(&stat).and_then(|parent| parent.parse::<i32>().ok())
    };
    let all: Vec<_> =
        processes().into_iter().filter_map(|process| Some((process, parent(&process)?))).collect();
    let mut family = vec![of];
    let mut looked_at = 0;
    while let Some(ancestor) = family.get(looked_at).copied() {
        looked_at += 1;
        family.extend(all.iter().filter(|(_, parent)| *parent == ancestor).map(|(process, _)| *process));
    }
    family.split_off(1)
}

/// Ends a child of this process and its descendants at once. The child is not reaped.
#[cfg(unix)]
pub(super) fn end(child: i32) {
    use rustix::process::{Pid, Signal, kill_process};
    // An error says that it has ended.
    let signal = |process: i32, signal| Pid::from_raw(process).map(|process| kill_process(process, signal));
    let mut family = vec![child];
    signal(child, Signal::STOP);
    // A stopped process starts no other, so this comes to an end; the limit is for the case that stopping
    // fails.
    for _ in 0..100 {
        let new: Vec<i32> =
            descendants(child).into_iter().filter(|process| !family.contains(process)).collect();
        if new.is_empty() {
            break;
        }
        for process in &new {
            signal(*process, Signal::STOP);
        }
        family.extend(new);
    }
    for process in family {
        signal(process, Signal::KILL);
    }
}

/// Ends a child of this process and its descendants at once, as far as they are found.
#[cfg(windows)]
pub(super) fn end(child: i32) {
    use std::process::{Command, Stdio};
    let mut taskkill = Command::new("taskkill");
    taskkill.args(["/f", "/t", "/pid", &child.cast_unsigned().to_string()]);
    taskkill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // An error says that it has ended; the caller ends the child itself in any case.
    let _ = taskkill.status();
}

/// All processes.
pub(crate) fn processes() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(Path::new("/proc")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fourth field of a process' `stat`; the second is in parentheses, and may hold anything.
#[cfg(unix)]
fn parent_in(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::command::capture;

    /// Returns whether it runs. A process that has ended may stay listed until its new parent waits for it.
    fn runs(process: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with(['Z', 'X']))
    }

    #[test]
    fn names_of_processes_may_hold_anything() {
        assert_eq!(parent_in("12 (a) b) S 7 12 12 0"), Some("7"));
        assert_eq!(parent_in(""), None);
    }

    #[test]
    fn a_grandchild_is_found() {
        let own = std::process::id().cast_signed();
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let child = shell.id().cast_signed();
        let deadline = Instant::now() + Duration::from_secs(10);
        while descendants(child).is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let grandchildren = descendants(child);
        let all = descendants(own);
        end(child);
        shell.wait().unwrap();
        assert_eq!(grandchildren.len(), 1, "{grandchildren:?}");
        assert!(all.contains(&child) && all.contains(&grandchildren[0]), "{all:?}");
    }

    #[test]
    fn a_child_that_overruns_is_ended_with_its_family() {
        let script = "sh -c 'sleep 60 & echo $!; wait' & echo $!; wait";
        let mut shell = Command::new("sh");
        let captured = capture(shell.args(["-c", script]), Duration::from_millis(500)).unwrap();
        assert!(captured.status.is_none());
        let family: Vec<i32> = captured.stdout.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(family.len(), 2, "{family:?}");
        // A signal is on its way for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while family.iter().any(|process| runs(*process)) {
            assert!(Instant::now() < deadline, "{family:?} are still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
