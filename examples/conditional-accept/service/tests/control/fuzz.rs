//! Fuzzer: requests of every kind from several programs at once, while clients come and go. Each request ends
//! once, and nothing is left.
//!
//! The seed is printed; `GATE_FUZZ_SEED` repeats a run as far as the threads do, `GATE_FUZZ_ROUNDS` makes it
//! longer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gate_service::Limits;
use gate_service::policy::{Action, Answer, Policy};
use gate_service::wire::{
    AnswerBytes, IOCTL_ANSWER, IOCTL_GET_POLICY, IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY,
    IOCTL_STATUS, Question, QuestionAnswer, encode_policy, policy_size,
};
use socket2::SockRef;
use wsk_sim::Sim;
use zerocopy::IntoBytes as _;

use crate::io::{Call, File, thread};
use crate::service::{Driver, on};

const CODES: [u32; 6] =
    [IOCTL_STATUS, IOCTL_GET_POLICY, IOCTL_SET_POLICY, IOCTL_NEXT_RECORDS, IOCTL_NEXT_QUESTION, IOCTL_ANSWER];

/// Programs that issue requests at the same time.
const PROGRAMS: u64 = 4;
/// Clients that come at the same time.
const CLIENTS: u64 = 3;
/// The most calls that a program leaves unfinished.
const LEFT: usize = 24;

/// SplitMix64: small, and good enough to choose what to do.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }

    /// A code that there is, with its method or another, or none.
    fn code(&mut self) -> u32 {
        match self.below(8) {
            0 => self.roll() as u32,
            1 => self.pick(&CODES) | (1 + self.below(3) as u32),
            2 => self.pick(&CODES) ^ (1 << self.below(32)),
            _ => self.pick(&CODES),
        }
    }

    fn policy(&mut self) -> Vec<u8> {
        let mut policy = Policy::new(self.pick(&[Action::Accept, Action::Ask, Action::Ask, Action::Reject]));
        for _ in 0..self.below(5) {
            let net = std::net::IpAddr::from([10, 0, 0, self.roll() as u8]);
            // The second action of an address is not taken.
            let _ = policy.add(net.into(), self.pick(&[Action::Accept, Action::Reject]));
        }
        let limits = Limits {
            clients: 1 + self.below(40) as u32,
            per_source: self.below(40) as u32,
            idle_timeout: self.pick(&[0, 1, 50, 120_000]),
        };
        policy.set_limits(limits);
        let mut bytes = vec![0; policy_size(&policy)];
        encode_policy(&policy, &mut bytes).expect("it fits");
        bytes
    }

    /// An input that is right, nearly right, or anything.
    fn input(&mut self, code: u32, asked: &[u64]) -> Vec<u8> {
        let mut right = match code {
            IOCTL_SET_POLICY => self.policy(),
            IOCTL_ANSWER => {
                let number = if asked.is_empty() { self.roll() } else { self.pick(asked) };
                let answer = self.pick(&[Answer::Accept, Answer::Reject]);
                AnswerBytes::from(QuestionAnswer { number, answer }).as_bytes().to_vec()
            }
            _ => Vec::new(),
        };
        match self.below(8) {
            0 => {
                let length = self.below(2048);
                self.bytes(length)
            }
            1 if !right.is_empty() => {
                let at = self.below(right.len());
                right[at] = self.roll() as u8;
                right
            }
            2 => {
                let length = (right.len() + self.below(5)).saturating_sub(2);
                right.resize(length, 0);
                right
            }
            _ => right,
        }
    }
}

/// Situations that were met so far. Without any of them the requests would only meet an idle driver.
#[derive(Debug, Default)]
struct Seen {
    /// Clients that were served.
    served: AtomicU64,
    /// Questions that a program got.
    asked: AtomicU64,
    /// Answers that were taken.
    answered: AtomicU64,
}

impl Seen {
    fn all(&self) -> bool {
        [&self.served, &self.asked, &self.answered].iter().all(|count| count.load(Ordering::Relaxed) > 0)
    }
}

/// State of a program with one handle.
struct Program {
    seen: Arc<Seen>,
    file: File,
    left: Vec<(u32, Call)>,
    asked: Vec<u64>,
}

impl Program {
    fn open(driver: &gate_service::Control, seen: &Arc<Seen>) -> Self {
        Self { seen: Arc::clone(seen), file: File::open(driver), left: Vec::new(), asked: Vec::new() }
    }

    /// Takes the calls that have ended, and waits for the others if it is to.
    fn collect(&mut self, all: bool) {
        let (ended, left) = self.left.drain(..).partition(|(_, call)| all || call.has_ended());
        self.left = left;
        let ended: Vec<(u32, Call)> = ended;
        for (code, call) in ended {
            // The harness looks at how it ended, and at each byte.
            match (code, call.wait()) {
                (IOCTL_NEXT_QUESTION, Ok(output)) => {
                    self.asked.push(Question::decode(&output).expect("a question").number);
                    self.seen.asked.fetch_add(1, Ordering::Relaxed);
                }
                (IOCTL_ANSWER, Ok(_)) => _ = self.seen.answered.fetch_add(1, Ordering::Relaxed),
                _ => {}
            }
        }
        let old = self.asked.len().saturating_sub(16);
        self.asked.drain(..old);
    }

    fn step(&mut self, dice: &mut Dice) {
        let code = dice.code();
        let input = dice.input(code, &self.asked);
        let room = match dice.below(4) {
            0 => dice.below(200),
            1 => dice.below(3000),
            _ => 8192,
        };
        let call = if dice.one_in(16) {
            self.file.send_cancelled(code, room)
        } else {
            self.file.send(code, &input, room)
        };
        match dice.below(6) {
            0 => call.cancel(),
            1 => {
                let rival = thread(call.canceller());
                call.cancel();
                rival.join();
            }
            _ => {}
        }
        self.left.push((code, call));
        if self.left.len() > LEFT {
            self.left[..LEFT / 2].iter().for_each(|(_, call)| call.cancel());
        }
        self.collect(false);
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn requests_of_every_kind_while_clients_come_and_go() {
    let seed = number("GATE_FUZZ_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64)
    });
    let rounds = number("GATE_FUZZ_ROUNDS").unwrap_or(1500);
    eprintln!("GATE_FUZZ_SEED={seed} GATE_FUZZ_ROUNDS={rounds}");
    let sim = Sim::new();
    on(&sim, move |passive| {
        let driver = Driver::load(Action::Ask, 20, passive);
        let (over, seen) = (AtomicBool::new(false), Arc::new(Seen::default()));
        let (issued, to) = (Arc::new(AtomicU64::new(0)), driver.local_addr());
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (over, seen) = (&over, &seen);
                scope.spawn(move || {
                    let mut dice = Dice(seed ^ (client << 32) ^ 1);
                    while !over.load(Ordering::Relaxed) {
                        let Ok(mut stream) = TcpStream::connect(to) else { continue };
                        let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(50)));
                        if !dice.one_in(3) && stream.write_all(b"ping").is_ok() {
                            let served = stream.read_exact(&mut [0; 4]).is_ok();
                            seen.served.fetch_add(served.into(), Ordering::Relaxed);
                        }
                        if dice.one_in(2) {
                            let _ = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                        }
                    }
                });
            }
            let programs: Vec<_> = (0..PROGRAMS)
                .map(|program| {
                    let (control, issued) = (driver.control().clone(), Arc::clone(&issued));
                    let seen = Arc::clone(&seen);
                    thread(move || {
                        let mut dice = Dice(seed ^ (program << 48));
                        let mut programs: Vec<_> = (0..2).map(|_| Program::open(&control, &seen)).collect();
                        let mut round = 0;
                        // Where nothing of what is to be met was met, it goes on, but not for ever.
                        while round < rounds || (!seen.all() && round < 100 * rounds) {
                            round += 1;
                            let at = dice.below(programs.len());
                            programs[at].step(&mut dice);
                            issued.fetch_add(1, Ordering::Relaxed);
                            if dice.one_in(60) {
                                // The program ends: its calls end with its handle, by themselves.
                                let Program { file, mut left, .. } =
                                    std::mem::replace(&mut programs[at], Program::open(&control, &seen));
                                drop(file);
                                left.drain(..).for_each(|(_, call)| drop(call.wait()));
                            }
                        }
                        for mut program in programs {
                            program.left.iter().for_each(|(_, call)| call.cancel());
                            program.collect(true);
                        }
                    })
                })
                .collect();
            for program in programs {
                program.join();
            }
            over.store(true, Ordering::Relaxed);
        });
        // It still answers, and whatever policy it was left with is one.
        let file = File::open(driver.control());
        file.call(IOCTL_STATUS, &[], 4096).expect("a status");
        file.call(IOCTL_GET_POLICY, &[], 4096).expect("a policy");
        drop(file);
        assert_eq!(driver.control().status().counters.handles, 0);
        let issued = issued.load(Ordering::Relaxed);
        assert!(issued >= PROGRAMS * rounds && seen.all(), "{issued} requests, {seen:?}");
        driver.unload();
        eprintln!("{issued} requests, {seen:?}");
    });
}
