//! The user-mode server under test: the program `gate-host` as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;
use gate_protocol::{Answer, Limits};

use super::processes;
use super::records::{PATIENCE, Records};
use super::server::{Holdings, Server, Settings, Started};
use crate::command::{self, logged_output};
use crate::cross::{Layout, host_cargo};
use crate::progress::Step;

/// Limit on a build.
const BUILD: Duration = Duration::from_mins(15);
/// Time until the program's own asker answers.
const ANSWER_DELAY: Duration = Duration::from_millis(50);

/// Its name.
const PROGRAM: &str = "gate-host";

/// The example.
#[derive(Debug)]
pub(crate) struct UserMode {
    program: PathBuf,
    log: PathBuf,
    /// Length of the log that was checked for crashes.
    read: usize,
    records: Records,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    settings: Settings,
    address: SocketAddr,
}

impl UserMode {
    /// The example, built unless told not to.
    pub(crate) fn prepare(layout: &Layout, build: bool) -> Result<Self> {
        let program = if build { Self::build(layout)? } else { Self::built(layout)? };
        let log = layout.log("example");
        std::fs::create_dir_all(log.parent().unwrap_or(&log)).context("the log has no directory")?;
        File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self { program, log, read: 0, records: Records::default(), running: None })
    }

    /// Builds the program. Returns the path that cargo reports: configuration and variables may put it
    /// anywhere.
    fn build(layout: &Layout) -> Result<PathBuf> {
        let step = Step::start("Building gate-host");
        let mut cargo = host_cargo(layout);
        cargo
            .args(["build", "--locked", "--release", "--package", PROGRAM])
            .arg("--message-format=json-render-diagnostics");
        let what = format!("cargo build --package {PROGRAM}");
        let messages = logged_output(cargo, &what, &layout.log("example-build"), BUILD, &step)?;
        let program = executable(&messages).context("cargo does not report the path of gate-host")?;
        let note = Self::note(layout);
        std::fs::write(&note, program.to_string_lossy().as_bytes())
            .with_context(|| format!("cannot write {}", note.display()))?;
        step.done();
        Ok(program)
    }

    /// Returns the path of the last build's program.
    fn built(layout: &Layout) -> Result<PathBuf> {
        let program = std::fs::read_to_string(Self::note(layout)).map(PathBuf::from);
        match program {
            Ok(program) if program.is_file() => Ok(program),
            _ => bail!("gate-host is not built yet: run once without --no-build"),
        }
    }

    /// The file that keeps that place.
    fn note(layout: &Layout) -> PathBuf {
        layout.cross.join("example-is-at")
    }

    /// Returns what the process printed on standard error.
    fn said(&self) -> String {
        command::tail_of(&self.log, 5)
    }

    fn spawn(&self, settings: &Settings) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["--log", "json", "--listen", &settings.listen.to_string()]);
        for (net, action) in &settings.nets {
            command.arg(format!("--{action}")).arg(net);
        }
        command.args(["--default", &settings.default.to_string(), "--accept-by", &settings.by.to_string()]);
        let Limits { clients, per_source, idle_timeout } = settings.limits;
        for (option, limit) in
            [("max-clients", clients), ("max-per-source", per_source), ("idle-timeout", idle_timeout)]
        {
            command.arg(format!("--{option}")).arg(limit.to_string());
        }
        // No answer means an asker that never finishes.
        let (answer, after) = match settings.answer {
            Some(answer) => (answer, ANSWER_DELAY),
            None => (Answer::Reject, Duration::from_hours(1)),
        };
        command.args(["--verdict", &answer.to_string(), "--verdict-after", &after.as_millis().to_string()]);
        let log = File::options().append(true).open(&self.log);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.with_context(|| format!("cannot write {}", self.log.display()))?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))
    }
}

impl Server for UserMode {
    fn title(&self) -> String {
        "the user-mode program".to_owned()
    }

    fn start(&mut self, settings: &Settings) -> Result<Started> {
        processes::checkpoint();
        if self.running.as_ref().is_some_and(|running| running.settings == *settings) {
            return Ok(Started::Listening);
        }
        self.stop()?;
        if let Some((_, value)) = settings.bad.first() {
            bail!("gate-host has no registry for {value:?}");
        }
        let mark = self.records.mark();
        let mut child = self.spawn(settings)?;
        self.records.follow(child.stdout.take().context("gate-host has no output")?);
        let loaded = self.records.wait(mark, "record that it listens", PATIENCE, |lines| {
            let loaded = lines.iter().find(|line| line["event"] == "loaded")?;
            loaded["local"].as_str().and_then(|local| local.parse().ok())
        });
        match loaded {
            Ok(address) => {
                self.running = Some(Running { child, settings: settings.clone(), address });
                Ok(Started::Listening)
            }
            Err(error) => {
                let status = command::wait(child, PATIENCE)?;
                if status.and_then(|status| status.code()) != Some(1) {
                    return Err(error);
                }
                Ok(Started::Failed(self.said()))
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.running.as_ref().map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |running| running.address)
    }

    fn stop(&mut self) -> Result<Duration> {
        let Some(Running { child, .. }) = self.running.take() else { return Ok(Duration::ZERO) };
        let (mark, start) = (self.records.mark(), Instant::now());
        processes::terminate(&child)?;
        let Some(status) = command::wait(child, PATIENCE)? else {
            bail!("gate-host did not end within {} s", PATIENCE.as_secs());
        };
        let took = start.elapsed();
        if !status.success() {
            bail!("gate-host ended with {status}: {}", self.said());
        }
        self.records.wait(mark, "record that nothing is left", PATIENCE, |lines| {
            let unloaded = lines.iter().find(|line| line["event"] == "unloaded")?;
            (unloaded["violations"] == 0 && unloaded["leaks"] == 0).then_some(())
        })?;
        Ok(took)
    }

    fn crash(&mut self) -> Result<()> {
        if let Some(Running { mut child, .. }) = self.running.take() {
            child.kill().context("cannot kill gate-host")?;
            child.wait().context("cannot wait for gate-host")?;
            self.records.ended(PATIENCE);
        }
        Ok(())
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn crashes(&mut self) -> Vec<String> {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let new = said.get(self.read..).unwrap_or_default();
        self.read = said.len();
        new.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
    }

    fn gone(&mut self) -> Option<String> {
        let status = self.running.as_mut()?.child.try_wait().ok()??;
        self.running = None;
        Some(format!("gate-host has ended by itself, {status}"))
    }

    fn log_tail(&self) -> String {
        command::tail_of(&self.log, 20)
    }

    fn holdings(&self) -> Option<Holdings> {
        let process = i32::try_from(self.running.as_ref()?.child.id()).ok()?;
        Some(processes::holdings([process]))
    }

    fn end(&mut self) -> Result<()> {
        self.crash()
    }
}

impl Drop for UserMode {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be ended.
        let _ = self.crash();
    }
}

/// The example's executable, by cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    Message::parse_stream(messages.as_bytes()).filter_map(Result::ok).find_map(|message| match message {
        Message::CompilerArtifact(artifact)
            if artifact.target.name == PROGRAM && artifact.target.is_bin() =>
        {
            artifact.executable.map(Into::into)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_where_cargo_says() {
        let artifact = |name: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"p","manifest_path":"/w/Cargo.toml",
                "target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{name}","src_path":"/w/m.rs",
                "edition":"2024","doc":false,"doctest":false,"test":true}},
                "profile":{{"opt_level":"3","debuginfo":1,"debug_assertions":false,"overflow_checks":false,
                "test":false}},"features":[],"filenames":[],"executable":{executable},"fresh":true}}"#
            )
            .replace('\n', "")
        };
        let place = "/elsewhere/some-target/release/gate-host";
        let messages = [
            artifact("wsk", "lib", "null"),
            artifact(PROGRAM, "example", r#""/another/program""#),
            artifact(PROGRAM, "bin", &format!("{place:?}")),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        assert_eq!(executable(&messages.join("\n")), Some(PathBuf::from(place)));
        assert_eq!(executable(&messages[..2].join("\n")), None);
    }

    #[test]
    fn what_was_not_built_is_not_guessed() {
        let place = tempfile::tempdir().unwrap();
        let layout = Layout { workspace: place.path().to_owned(), cross: place.path().join("cross") };
        let guess = place.path().join("release").join(PROGRAM);
        std::fs::create_dir_all(guess.parent().unwrap()).unwrap();
        std::fs::write(&guess, "old").unwrap();
        assert!(UserMode::built(&layout).is_err());
        std::fs::create_dir_all(&layout.cross).unwrap();
        std::fs::write(UserMode::note(&layout), guess.to_str().unwrap()).unwrap();
        assert_eq!(UserMode::built(&layout).unwrap(), guess);
    }
}
