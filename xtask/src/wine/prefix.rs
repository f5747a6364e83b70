//! The private prefix: a Windows machine in a directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Service;
use crate::command::{self, Captured};
use crate::cross::{self, Layout};
use crate::progress::Step;

/// The name of the log.
pub(super) const LOG: &str = "wine";
/// Marks a prefix that was created to the end, and holds the version of Wine that did it.
const READY: &str = ".ready";
/// Limits on the creation of a prefix, and on an ordinary command.
const CREATE: Duration = Duration::from_mins(3);
pub(super) const COMMAND: Duration = Duration::from_mins(1);
/// Limit on a start or an end of the server.
const SERVER: Duration = Duration::from_secs(20);
/// Messages for the log: what a driver prints, and errors but those of the missing desktop. Crashes and calls
/// of absent functions are always reported; functions that do nothing are not, as some of them are called for
/// every request.
const MESSAGES: &str = "fixme-all,warn+debugstr,err-winediag,err-ole,err-systray";
/// Includes every call of the kernel's functions, with the process that it came from.
const ALL_CALLS: &str = "fixme-all,warn+debugstr,err-winediag,err-ole,err-systray,+pid,trace+ntoskrnl";
/// Stands in the log where the machine was started.
const STARTS: &str = "---- the machine starts";
/// A log that is longer is put aside before the next run.
const LONG: u64 = 8 << 20;
/// Our `netio.sys` instead of Wine's; no menu entries in the home directory, no browser, no .NET.
const OVERRIDES: &str = "netio.sys=n;winemenubuilder.exe=d;mscoree=d;mshtml=d";
/// Words in the log that tell of a crash, or of a kernel function that is not there.
const CRASHES: [&str; 6] = [
    "Unhandled exception",
    "wine: Unhandled",
    "unimplemented function",
    "err:ntoskrnl",
    "err:seh",
    "err:virtual:virtual_setup_exception",
];

/// A private Wine prefix. Its processes live until [`Prefix::kill`].
#[derive(Debug, Clone)]
pub(crate) struct Prefix {
    layout: Layout,
    directory: PathBuf,
    images: PathBuf,
    log: PathBuf,
    wine: PathBuf,
    server: PathBuf,
    messages: &'static str,
}

impl Prefix {
    /// The prefix of this layout; it need not exist yet.
    pub(crate) fn open(layout: &Layout) -> Result<Self> {
        // Debian's wrappers end the server with its last client, and print advice that does not apply.
        let wine = find(&["/usr/lib/wine/wine64", "wine64", "wine"])?;
        let server = find(&["/usr/lib/wine/wineserver64", "wineserver64", "wineserver"])?;
        let prefix = Self {
            layout: layout.clone(),
            directory: layout.prefix(),
            images: layout.images(),
            log: layout.log(LOG),
            wine,
            server,
            messages: MESSAGES,
        };
        if prefix.log_mark() > LONG && !prefix.is_up() {
            // It stays where it is if it cannot be moved.
            let _ = std::fs::rename(&prefix.log, prefix.log.with_extension("old.log"));
        }
        Ok(prefix)
    }

    /// Returns its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of the log of Wine and the drivers.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the directory from which drivers are loaded.
    pub(crate) fn drivers(&self) -> PathBuf {
        self.directory.join("drive_c/windows/system32/drivers")
    }

    /// A service of this machine.
    pub(crate) fn service<'a>(&'a self, name: &'a str) -> Service<'a> {
        Service::new(self, name)
    }

    /// Keeps other runs of this program from changing the machine until it is dropped; `None` if another one
    /// does.
    pub(crate) fn try_hold(&self) -> Result<Option<File>> {
        cross::try_lock(&self.lock_file())
    }

    /// Takes the prefix, and waits if another run holds it.
    pub(crate) fn hold(&self) -> Result<File> {
        cross::lock(&self.lock_file(), "Another run uses the Wine prefix; waiting for its end.")
    }

    fn lock_file(&self) -> PathBuf {
        self.layout.cross.join(".prefix.lock")
    }

    /// Turns the log of the kernel's calls on or off, from the next start of the machine on.
    pub(crate) fn log_all_calls(&mut self, all: bool) {
        self.messages = if all { ALL_CALLS } else { MESSAGES };
    }

    /// Creates the machine if it is not there, brings its server up, and gives it our `netio.sys`.
    ///
    /// A creation that was interrupted is begun anew.
    pub(crate) fn create(&self) -> Result<()> {
        let version = self.version();
        let ready = self.directory.join(READY);
        // Locked before it is looked at: another run may be creating it right now.
        let lock = self.layout.lock()?;
        if std::fs::read_to_string(&ready).ok().as_deref() != Some(&version) {
            let step = Step::start("Creating a private Wine prefix");
            self.remove()?;
            std::fs::create_dir_all(&self.directory)
                .with_context(|| format!("cannot create {}", self.directory.display()))?;
            self.up()?;
            let mut boot = self.command("wineboot")?;
            self.bounded(boot.arg("--init"), CREATE, "wineboot")?;
            // No dialog for a crash: it would not be closed, and the log has it.
            let mut dialogue = self.command("reg")?;
            dialogue.args(["add", r"HKCU\Software\Wine\WineDbg", "/v", "ShowCrashDialog"]).args([
                "/t",
                "REG_DWORD",
                "/d",
                "0",
                "/f",
            ]);
            self.bounded(&mut dialogue, COMMAND, "reg add")?;
            // The service manager of the first boot does not see services that are created later: a second
            // boot.
            self.kill()?;
            std::fs::write(&ready, version).context("cannot mark the prefix as ready")?;
            step.done();
        }
        drop(lock);
        self.up()?;
        self.install_images()
    }

    /// Copies the provider and what it needs, if they were built.
    fn install_images(&self) -> Result<()> {
        let system = self.directory.join("drive_c/windows/system32");
        for (name, to) in [("netio.sys", self.drivers()), ("bcryptprimitives.dll", system)] {
            let image = self.images.join(name);
            if image.is_file() {
                copy_if_new(&image, &to.join(name))?;
            }
        }
        Ok(())
    }

    /// Starts the server, which keeps the machine up between commands.
    fn up(&self) -> Result<()> {
        if self.is_up() {
            return Ok(());
        }
        // A log that cannot be written is reported by what follows.
        let _ = writeln!(self.log_file()?, "{STARTS}");
        let mut server = self.environment(&self.server);
        server.arg("--persistent").stdin(Stdio::null()).stdout(self.log_file()?).stderr(self.log_file()?);
        let child = server.spawn().with_context(|| format!("cannot start {}", self.server.display()))?;
        if !command::wait(child, SERVER)?.is_some_and(|status| status.success()) {
            bail!("Wine's server does not start:\n{}", self.log_tail(10));
        }
        if self.is_ready() {
            // The first program starts the services, which keep its messages and its log for themselves.
            let mut first = self.command("cmd")?;
            self.bounded(first.args(["/c", "exit"]), COMMAND, "starting Wine's services")?;
        }
        Ok(())
    }

    /// Was it created, to the end?
    pub(crate) fn is_ready(&self) -> bool {
        self.directory.join(READY).is_file()
    }

    /// Returns whether its server is running.
    pub(crate) fn is_up(&self) -> bool {
        // Signal 0 only asks.
        let mut ask = self.environment(&self.server);
        self.directory.is_dir()
            && command::capture(ask.arg("-k0"), SERVER).is_ok_and(|captured| captured.ok())
    }

    /// Ends all of its processes, and no others. Nothing happens if there are none.
    pub(crate) fn kill(&self) -> Result<()> {
        if !self.is_up() {
            return Ok(());
        }
        for argument in ["-k", "-w"] {
            // Both report what is shown by the question below.
            command::capture(self.environment(&self.server).arg(argument), SERVER)?;
        }
        if self.is_up() {
            bail!("Wine's server for {} does not end", self.directory.display());
        }
        Ok(())
    }

    /// Ends its processes and removes it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.kill()?;
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// A Windows program: one of Wine's by name, a built image by name, or a path. What it prints is the
    /// caller's to redirect; what Wine has to say goes to standard error.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let image = self.images.join(program);
        let path = Path::new(program);
        let mut command = self.environment(&self.wine);
        if image.is_file() {
            command.arg(image);
        } else if path.is_file() {
            command.arg(std::path::absolute(path).context("invalid program path")?);
        } else {
            command.arg(program);
        }
        Ok(command)
    }

    /// Runs a program to its end. Its own output is returned, and Wine is silent about it.
    pub(crate) fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Captured> {
        self.up()?;
        command::capture(self.command(program)?.args(arguments).env("WINEDEBUG", "-all"), limit)
    }

    /// Starts a program and returns it running, its streams as pipes.
    pub(crate) fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Child> {
        self.up()?;
        self.command(program)?
            .args(arguments)
            .env("WINEDEBUG", "-all")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))
    }

    /// Runs one of Wine's own programs, its complaints in the log. Returns what it printed.
    pub(super) fn bounded(&self, command: &mut Command, limit: Duration, what: &str) -> Result<String> {
        let mark = self.log_mark();
        let mut stdout = tempfile::tempfile().context("cannot create a temporary file")?;
        let printed = stdout.try_clone().context("cannot create a temporary file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(printed)
            .stderr(self.log_file()?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.wine.display()))?;
        let status = command::wait(child, limit)?;
        let mut text = Vec::new();
        std::io::Seek::rewind(&mut stdout).context("cannot read what Wine printed")?;
        std::io::Read::read_to_end(&mut stdout, &mut text).context("cannot read what Wine printed")?;
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        match status {
            Some(status) if status.success() => return Ok(text),
            _ if !self.is_up() => bail!("{what}: Wine was ended meanwhile; run the command again"),
            Some(status) => bail!("{what}: {status}\n{text}{}", last_lines(&self.log_since(mark), 10)),
            None => {}
        }
        bail!("{what}: timed out after {} s\n{}", limit.as_secs(), last_lines(&self.log_since(mark), 10))
    }

    /// Returns the length of the log: later output is [`Prefix::log_since`] this.
    pub(crate) fn log_mark(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Returns what was written to the log since a mark.
    pub(crate) fn log_since(&self, mark: u64) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(mark).unwrap_or(usize::MAX).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// The last lines of the log, for a reader.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        last_lines(&self.log_since(0), lines)
    }

    /// The lines since a mark that tell of a crash or of a call to something that the kernel lacks.
    pub(crate) fn crashes_since(&self, mark: u64) -> Vec<String> {
        crashes(&self.log_since(mark))
    }

    /// Returns the crashes since the machine was last started.
    pub(crate) fn crashes(&self) -> Vec<String> {
        let log = self.log_since(0);
        crashes(log.rfind(STARTS).map_or(&log, |at| &log[at..]))
    }

    /// The version of Wine; a prefix of another one is made anew.
    fn version(&self) -> String {
        let version = command::ask(&self.wine.to_string_lossy(), &["--version"]);
        version.unwrap_or_else(|| "unknown".to_owned())
    }

    /// A command that sees this prefix, and no display.
    fn environment(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("WINEPREFIX", &self.directory)
            .env("WINEARCH", "win64")
            .env("WINESERVER", &self.server)
            .env("WINELOADER", &self.wine)
            .env("WINEDLLOVERRIDES", OVERRIDES)
            .env("WINEDEBUG", self.messages)
            .env("DISPLAY", "")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("LD_LIBRARY_PATH");
        command
    }

    /// The log, opened so that several processes write to its end.
    fn log_file(&self) -> Result<File> {
        let cannot = || format!("cannot write {}", self.log.display());
        if let Some(directory) = self.log.parent() {
            std::fs::create_dir_all(directory).with_context(cannot)?;
        }
        OpenOptions::new().create(true).append(true).open(&self.log).with_context(cannot)
    }
}

/// The last lines of a part of the log as a reader wants them: what drivers print without Wine's marks, and
/// nothing of the boot's complaints.
pub(super) fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().filter_map(readable).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One line of the log for a reader; `None` if it tells nothing.
fn readable(line: &str) -> Option<&str> {
    const PRINTED: &str = ":vDbgPrintExWithPrefix ";
    const NOISE: [&str; 4] =
        ["could not open working directory", ":wineboot:", "syswow64", "configuration in L"];
    if let Some((_, text)) = line.split_once(PRINTED) {
        // Component and level of the message come first.
        return Some(text.split_once(": ").map_or(text, |(_, text)| text));
    }
    (!line.trim().is_empty() && !NOISE.iter().any(|noise| line.contains(noise))).then_some(line)
}

/// Copies a file unless the copy is the same: a loaded image is left alone, and so is what it is linked to.
pub(super) fn copy_if_new(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    cross::replace(from, to)
}

fn crashes(log: &str) -> Vec<String> {
    let is_crash = |line: &&str| CRASHES.iter().any(|word| line.contains(word));
    log.lines().filter(is_crash).map(str::to_owned).collect()
}

fn find(names: &[&str]) -> Result<PathBuf> {
    let found = names.iter().find_map(|name| which::which(name).ok());
    found.with_context(|| format!("{} is missing: run `cargo xtask setup`", names[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_are_told_from_what_a_driver_prints() {
        let log = "012c:warn:debugstr:vDbgPrintExWithPrefix 00000000:00000001: an unhandled case\n\
                   wine: Unhandled page fault on read access to 0000000000000000 at address \
                   0000000140001234\n\
                   wine: Call from 0000 to unimplemented function ntoskrnl.exe.ExAllocatePool3, aborting\n\
                   0048:fixme:ntoskrnl:KeLowerIrql stub\n";
        let found = crashes(log);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("page fault") && found[1].contains("ExAllocatePool3"));
    }

    #[test]
    fn a_reader_sees_what_drivers_print() {
        let log = "wine: could not open working directory L\"C:\\\\windows\", starting in the Windows \
            directory.\n\
                   002c:err:wineboot:process_run_key Error running cmd L\"x\" (126).\n\n\
                   0154:warn:debugstr:vDbgPrintExWithPrefix 00000000:00000001: gate: listening on 0.0.0.0:7\n\
                   0140:fixme:ntoskrnl:KeFlushQueuedDpcs stub!\n";
        let shown = last_lines(log, 10);
        assert_eq!(shown, "gate: listening on 0.0.0.0:7\n0140:fixme:ntoskrnl:KeFlushQueuedDpcs stub!");
        assert_eq!(last_lines(log, 1), "0140:fixme:ntoskrnl:KeFlushQueuedDpcs stub!");
    }

    #[test]
    fn a_copy_that_is_the_same_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::write(&from, "one").unwrap();
        copy_if_new(&from, &to).unwrap();
        let written = std::fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_new(&from, &to).unwrap();
        assert_eq!(std::fs::metadata(&to).unwrap().modified().unwrap(), written);
        std::fs::write(&from, "two").unwrap();
        copy_if_new(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "two");
    }
}
