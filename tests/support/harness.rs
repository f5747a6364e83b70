//! Runs a test on a fresh kernel that must be left as clean as it was found.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::{Duration, Instant};

use nt_user::faults::{Attempt, Point};
use nt_user::{Config, Kernel};
// Has the provider linked, which the library calls: linkers of Windows want it even for what nothing here
// reaches.
use wsk::Passive;
use wsk_sim as _;
use wsk_sys::nt;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `body` on a thread of a new kernel, and then looks for violations and leaks.
pub(crate) fn run(body: impl FnOnce(Passive<'_>) + Send + 'static) {
    let kernel = Kernel::new(Config::default());
    let thread = kernel.spawn("test", || {
        // SAFETY: a thread of the kernel starts at PASSIVE_LEVEL, and the tests leave it so.
        body(unsafe { Passive::assume() });
    });
    let outcome = thread.expect("the host has a thread left").join();
    let left = kernel.shutdown(PATIENCE);
    let violations: Vec<_> = kernel.violations().iter().map(ToString::to_string).collect();
    match outcome {
        Ok(()) => {}
        Err(nt_user::Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
        Err(failure) => panic!("{failure:?}"),
    }
    assert!(violations.is_empty(), "violations:\n{}", violations.join("\n"));
    assert!(left.is_clean(), "left behind:\n{left}");
}

/// A further thread of the kernel.
pub(crate) struct Thread<T>(nt_user::Joiner<T>);

impl<T> Thread<T> {
    pub(crate) fn join(self) -> T {
        self.0.join().expect("the thread does not panic")
    }
}

pub(crate) fn join_all<T>(threads: Vec<Thread<T>>) {
    for thread in threads {
        thread.join();
    }
}

pub(crate) fn thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Thread<T> {
    Thread(kernel().spawn("test helper", body).expect("the host has a thread left"))
}

pub(crate) fn kernel() -> Kernel {
    Kernel::current().expect("tests run on a thread of a kernel")
}

/// Number of blocks that the library has allocated so far.
pub(crate) fn pool_allocations() -> u64 {
    kernel().pool_stats(wsk::memory::TAG).allocations
}

/// Number of blocks that the library has allocated and not freed.
pub(crate) fn pool_blocks() -> usize {
    kernel().pool_stats(wsk::memory::TAG).blocks
}

pub(crate) fn irql() -> nt::KIRQL {
    // SAFETY: the function has no preconditions.
    unsafe { nt::KeGetCurrentIrql() }
}

/// Runs `body` at `DISPATCH_LEVEL`.
pub(crate) fn at_dispatch<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: the level is not above DISPATCH_LEVEL in tests.
    let before = unsafe { nt::KfRaiseIrql(nt::DISPATCH_LEVEL) };
    let result = body();
    // SAFETY: the level is the one from before.
    unsafe { nt::KeLowerIrql(before) };
    result
}

/// Runs `body` while every allocation fails.
pub(crate) fn without_memory(body: impl FnOnce()) {
    failing_if(|attempt| attempt.point != Point::Thread, body);
}

/// Runs `body` while its `number`th allocation fails, counted from 1.
pub(crate) fn failing(number: u64, body: impl FnOnce()) {
    failing_if(move |attempt| attempt.number == number, body);
}

/// Runs `body` while the allocations fail that `choose` says; one at least.
pub(crate) fn failing_if(choose: impl FnMut(&Attempt) -> bool + Send + 'static, body: impl FnOnce()) {
    let kernel = kernel();
    kernel.faults().fail_if(choose);
    body();
    assert!(kernel.faults().injected() > 0, "nothing was made to fail");
    kernel.faults().clear();
}

/// Chooses the `count`th thread to fail.
pub(crate) fn thread_number(count: u64) -> impl FnMut(&Attempt) -> bool + Send + 'static {
    let mut threads = 0;
    move |attempt| {
        threads += u64::from(attempt.point == Point::Thread);
        attempt.point == Point::Thread && threads == count
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it never happened");
        std::thread::yield_now();
    }
}
