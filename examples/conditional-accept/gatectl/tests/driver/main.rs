//! The commands against the code that the driver runs behind its control device: the service listens on the
//! simulated kernel, clients connect by TCP, and requests are IRPs.

mod device;
#[path = "../../../service/tests/support/io.rs"]
#[expect(dead_code, reason = "it is the kit of other tests, too")]
mod io;
#[path = "../../../service/tests/support/running.rs"]
mod running;
#[path = "../commands/screen.rs"]
mod screen;

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use gate_service::policy::{Action, Policy};
use gate_service::{Control, Parameters};
use gatectl::device::Device;
use wsk::Passive;
use wsk_sim::Sim;

use crate::device::Simulated;
use crate::running::Running;
use crate::screen::{LIMIT, Screen};

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);

const GONE: &str = "the driver was stopped: to restart it, run sc start conditional_accept";

/// A machine with the driver on it. Its policy asks about everyone.
struct Machine {
    sim: Sim,
    control: Control,
    address: SocketAddr,
    finish: Cell<Option<Sender<()>>>,
}

/// Runs `body` beside the driver, and then unloads that.
fn with_driver(verdict_timeout: Duration, body: impl FnOnce(&Machine)) {
    let sim = Sim::new();
    let (started, start) = channel();
    let (finish, finished) = channel::<()>();
    let driver = sim.thread("driver", move || {
        // SAFETY: the start of a system thread, at PASSIVE_LEVEL, without locks.
        let passive = unsafe { Passive::assume() };
        let parameters = Parameters {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            policy: Policy::new(Action::Ask),
            verdict_timeout: verdict_timeout.as_millis() as u32,
            ..Parameters::default()
        };
        let control = Control::try_new(&parameters).expect("memory");
        let settings = control.settings().expect("an address");
        let service = Running::start(settings, control.clone(), 2, passive).expect("the service listens");
        // Nobody waits for it if the test has failed.
        let _ = started.send((control.clone(), service.local_addr()));
        // The sender is dropped when it is time.
        let _ = finished.recv();
        control.stopping();
        service.unload(LIMIT);
        control.shut_down(passive);
    });
    let (control, address) = start.recv().expect("the driver starts");
    let machine = Machine { sim, control, address, finish: Cell::new(Some(finish)) };
    // A test that fails has the machine taken down in good order, too.
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&machine)));
    machine.unload();
    if let Err(failure) = driver.join() {
        panic!("the driver: {failure:?}");
    }
    let Machine { sim, control, .. } = machine;
    let entered = sim.enter();
    drop(control);
    drop(entered);
    let report = sim.finish();
    match outcome {
        Ok(()) => report.assert_clean(),
        Err(panic) => resume_unwind(panic),
    }
}

impl Machine {
    fn unload(&self) {
        drop(self.finish.take());
    }

    /// Starts a command, with the device opened for it.
    fn start(&self, words: &str, input: &'static str) -> Gatectl {
        self.start_with(words, Box::new(input.as_bytes()))
    }

    fn start_with(&self, words: &str, input: Box<dyn BufRead + Send>) -> Gatectl {
        let device: Arc<dyn Device> = Arc::new(Simulated::open(self.sim.kernel(), &self.control));
        let words = ["gatectl"].into_iter().chain(words.split_whitespace());
        let options: gatectl::cli::Options = clap::Parser::try_parse_from(words).expect("well formed");
        let (out, stop) = (Screen::default(), Arc::clone(&device));
        let screen = out.clone();
        let thread = std::thread::spawn(move || {
            let mut screen = anstream::StripStream::new(Box::new(screen) as Box<dyn Write>);
            let input = || gatectl::Input { lines: input, typed: false };
            let result = gatectl::run(&options.command, &device, &mut screen, &mut std::io::sink(), input);
            result.map_err(|error| error.to_string())
        });
        Gatectl { thread, out, device: stop }
    }

    /// Runs a command that ends by itself.
    fn run(&self, words: &str) -> String {
        self.start(words, "").end().expect(words)
    }

    /// A counter, by the name it has in the objects.
    fn counter(&self, name: &str) -> u64 {
        let status: serde_json::Value = serde_json::from_str(&self.run("status --json")).expect("an object");
        status["counters"][name].as_u64().expect(name)
    }

    /// Waits until a counter has reached a value.
    fn wait_for(&self, name: &str, value: u64) {
        let start = std::time::Instant::now();
        while self.counter(name) < value {
            assert!(start.elapsed() < LIMIT, "{name} has not reached {value}: {}", self.run("status"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A client, beside the test: what comes back of its word.
    fn client(&self) -> JoinHandle<std::io::Result<String>> {
        let address = self.address;
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(b"hello")?;
            stream.shutdown(Shutdown::Write)?;
            let mut back = String::new();
            stream.read_to_string(&mut back)?;
            Ok(back)
        })
    }
}

/// A command that is running.
struct Gatectl {
    thread: JoinHandle<Result<(), String>>,
    out: Screen,
    device: Arc<dyn Device>,
}

impl Gatectl {
    /// Waits for the end and returns the output, or the error and the output.
    fn end(self) -> Result<String, (String, String)> {
        let result = self.thread.join().expect("no panic");
        let out = self.out.text();
        result.map(|()| out.clone()).map_err(|error| (error, out))
    }

    /// Ctrl-C.
    fn stop(&self) {
        self.device.stop();
    }
}

fn served(client: JoinHandle<std::io::Result<String>>) -> bool {
    client.join().expect("no panic").is_ok_and(|back| back == "hello")
}

/// The records of some kinds, as they were printed.
fn records(out: &str, kinds: &[&str]) -> Vec<serde_json::Value> {
    let all = out.lines().map(|line| serde_json::from_str(line).expect("an object"));
    all.filter(|record: &serde_json::Value| kinds.iter().any(|kind| record["event"] == *kind)).collect()
}

#[test]
fn status_and_policy_are_those_of_the_driver() {
    with_driver(LONG, |machine| {
        let status = machine.run("status");
        assert!(status.starts_with("phase             listening\n"), "{status}");
        assert!(status.contains(&format!("address           {}\n", machine.address)), "{status}");
        let limits = "max clients     4096\nmax per source  64\nidle time-out   120000 ms\n";
        assert_eq!(machine.run("policy show"), format!("all others  ask\n\n{limits}"));
        let set = machine.run("policy set --reject 127.0.0.0/8 --accept 10.0.0.0/8 --default ask --json");
        let policy = [
            r#"{"default":"ask","accept":["10.0.0.0/8"],"reject":["127.0.0.0/8"],"ask":[],"#,
            r#""max_clients":4096,"max_per_source":64,"idle_timeout":120000}"#,
        ];
        let policy = policy.concat();
        assert_eq!(set.trim_end(), policy);
        assert!(!served(machine.client()));
        machine.run("policy set --default accept");
        assert!(served(machine.client()));
        assert_eq!((machine.counter("rejected"), machine.counter("accepted")), (1, 1));
        assert_eq!(machine.counter("handles"), 1, "that of the command itself");
        // Limits alone leave the rest as it is, and are in the status.
        let set = machine.run("policy set --max-per-source 1 --idle-timeout 0");
        assert_eq!(
            set,
            "all others  accept\n\nmax clients     4096\nmax per source  1\nidle time-out   none\n"
        );
        let status = machine.run("status");
        assert!(status.contains("max per source    1\nidle time-out     none\n"), "{status}");
    });
}

#[test]
fn a_verdict_is_the_answer_to_every_client() {
    with_driver(LONG, |machine| {
        for (words, expected) in
            [("ask --verdict accept --count 3", true), ("ask --verdict reject --count 3", false)]
        {
            let ask = machine.start(words, "");
            let clients: Vec<_> = (0..3).map(|_| machine.client()).collect();
            for client in clients {
                assert_eq!(served(client), expected, "{words}");
            }
            assert_eq!(ask.end().expect("three are answered").lines().count(), 3);
        }
        assert_eq!((machine.counter("answered_accept"), machine.counter("answered_reject")), (3, 3));
    });
}

#[test]
fn typed_answers_reach_their_clients_in_order() {
    with_driver(LONG, |machine| {
        let clients: Vec<_> = (1..=3)
            .map(|count| {
                let client = machine.client();
                machine.wait_for("questions", count);
                client
            })
            .collect();
        let out = machine.start("ask --json", "a\nr\naccept\n").end().expect("the input ends");
        let actions: Vec<_> =
            records(&out, &["answer"]).iter().map(|answer| answer["action"].clone()).collect();
        assert_eq!(actions, ["accept", "reject", "accept"], "{out}");
        let served: Vec<_> = clients.into_iter().map(served).collect();
        assert_eq!(served, [true, false, true]);
    });
}

#[test]
fn a_program_that_ends_rejects_what_it_holds() {
    with_driver(LONG, |machine| {
        let ask = machine.start_with("ask --count 1", Box::new(BufReader::new(Silence)));
        let client = machine.client();
        ask.out.wait_for("question");
        ask.stop();
        let (error, out) = ask.end().expect_err("no answer");
        assert_eq!(error, "only 0 of 1 questions were answered before the interruption");
        assert!(out.contains("left unanswered, so rejected"), "{out}");
        assert!(!served(client));
    });
}

/// Input of which nothing ever comes.
struct Silence;

impl Read for Silence {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        loop {
            std::thread::park();
        }
    }
}

/// Withdraws a client's question while it is held, and returns the reason.
fn lapse(verdict_timeout: Duration, gives_up: bool) -> serde_json::Value {
    let mut reason = serde_json::Value::Null;
    with_driver(verdict_timeout, |machine| {
        let ask = machine.start_with("ask --json", Box::new(BufReader::new(Silence)));
        let client = TcpStream::connect(machine.address).expect("the host takes it");
        ask.out.wait_for("question");
        if gives_up {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("the host does it");
            drop(client);
        }
        ask.out.wait_for("lapsed");
        ask.stop();
        let out = ask.end().expect("Ctrl-C is how it ends");
        reason = records(&out, &["lapsed"])[0]["reason"].clone();
    });
    reason
}

#[test]
fn a_question_whose_time_is_up_is_told() {
    assert_eq!(lapse(Duration::from_secs(1), false), "timed-out");
}

#[test]
fn a_question_that_is_given_up_is_told() {
    assert_eq!(lapse(LONG, true), "given-up");
}

#[test]
fn watch_tells_all_of_it_up_to_the_unload() {
    with_driver(LONG, |machine| {
        let watch = machine.start("watch --json", "");
        let ask = machine.start("ask --verdict accept --count 1", "");
        assert!(served(machine.client()));
        ask.end().expect("one is answered");
        watch.out.wait_for("closed");
        machine.unload();
        let (error, out) = watch.end().expect_err("the driver is gone");
        assert_eq!(error, GONE);
        let kinds = ["loaded", "inspect", "verdict", "accepted", "disconnect", "closed"];
        let found: Vec<_> = records(&out, &kinds).iter().map(|record| record["event"].clone()).collect();
        for kind in kinds {
            assert_eq!(found.iter().filter(|found| *found == kind).count(), 1, "{kind}: {out}");
        }
        assert_eq!((&found[0], &found[5]), (&"loaded".into(), &"closed".into()), "{out}");
    });
}

#[test]
fn a_late_watch_sees_what_was_before_and_ctrl_c_ends_it() {
    with_driver(LONG, |machine| {
        machine.run("policy set --default accept");
        assert!(served(machine.client()));
        let out = machine.run("watch --json --count 3");
        assert_eq!(records(&out, &["loaded", "policy", "inspect"]).len(), 3, "{out}");
        let watch = machine.start("watch", "");
        watch.out.wait_for("listening");
        watch.stop();
        watch.end().expect("that is how it ends");
    });
}

#[test]
fn an_unload_ends_whoever_waits() {
    with_driver(LONG, |machine| {
        let ask = machine.start("ask --verdict accept", "");
        machine.wait_for("handles", 2);
        machine.unload();
        let (error, _) = ask.end().expect_err("the driver is gone");
        assert_eq!(error, GONE);
    });
}
