//! Current settings, cheap to read on the data path.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::behaviours::Behaviours;
use crate::config::{Completion, Config, Level, Release};

/// Time and thread of the completion of a request that could complete at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// On the calling thread, whose call returns the final status.
    Inline,
    /// On the calling thread, whose call returns `STATUS_PENDING`.
    Nested,
    /// On another thread, before the call returns `STATUS_PENDING`.
    Early,
    /// On another thread, after the call has returned `STATUS_PENDING`.
    Late,
}

/// IRQL of a call of client code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallbackIrql {
    /// Raise to `DISPATCH_LEVEL` first.
    pub(crate) to_dispatch: bool,
    /// Pass `WSK_FLAG_AT_DISPATCH_LEVEL`, if the callback has flags.
    pub(crate) with_flag: bool,
}

/// Current settings.
///
/// # Invariants
/// The atomics mirror the fields of `config` that the data path reads; they change under its write lock.
#[derive(Debug)]
pub(crate) struct LiveConfig {
    config: RwLock<Config>,
    completion: AtomicU8,
    callbacks: AtomicU8,
    completions: AtomicU8,
    release: AtomicU8,
    watch_memory: AtomicBool,
    draws: AtomicU64,
}

const RANDOM: u8 = 255;

fn code_of_completion(completion: Completion) -> (u8, Option<u64>) {
    match completion {
        Completion::Natural => (0, None),
        Completion::Inline => (1, None),
        Completion::PendNested => (2, None),
        Completion::PendEarly => (3, None),
        Completion::PendLate => (4, None),
        Completion::Random(seed) => (RANDOM, Some(seed)),
    }
}

fn code_of_level(level: Level) -> (u8, Option<u64>) {
    match level {
        Level::Passive => (0, None),
        Level::Dispatch => (1, None),
        Level::Random(seed) => (RANDOM, Some(seed)),
    }
}

impl LiveConfig {
    pub(crate) fn new(config: Config) -> Self {
        let live_config = Self {
            config: RwLock::new(Config::default()),
            completion: AtomicU8::new(0),
            callbacks: AtomicU8::new(0),
            completions: AtomicU8::new(0),
            release: AtomicU8::new(0),
            watch_memory: AtomicBool::new(true),
            draws: AtomicU64::new(0),
        };
        live_config.change(|current| *current = config);
        live_config
    }

    /// Changes the settings; requests in progress keep the former ones.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config.write();
        change(&mut config);
        let mut seed = 0;
        for (slot, (code, own_seed)) in [
            (&self.completion, code_of_completion(config.completion)),
            (&self.callbacks, code_of_level(config.callbacks)),
            (&self.completions, code_of_level(config.completions)),
        ] {
            slot.store(code, Ordering::Relaxed);
            seed ^= own_seed.unwrap_or(0);
        }
        self.watch_memory.store(config.watch_memory, Ordering::Relaxed);
        self.draws.store(seed, Ordering::Relaxed);
        self.release.store(config.release as u8, Ordering::Relaxed);
    }

    /// Returns a copy of the settings.
    pub(crate) fn config(&self) -> Config {
        self.config.read().clone()
    }

    /// Returns the selected behaviors.
    pub(crate) fn behaviours(&self) -> Behaviours {
        self.config.read().behaviours
    }

    /// Returns one setting.
    pub(crate) fn get<T>(&self, read: impl FnOnce(&Config) -> T) -> T {
        read(&self.config.read())
    }

    /// Returns whether the selected Windows release is `release` or later.
    pub(crate) fn has(&self, release: Release) -> bool {
        self.release.load(Ordering::Relaxed) >= release as u8
    }

    /// Draws a random number below `alternatives` (SplitMix64).
    pub(crate) fn draw(&self, alternatives: u64) -> u64 {
        let mut x = self.draws.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % alternatives
    }

    /// Returns how a request that could complete at once completes; `usually_pends` for those that Windows
    /// pends.
    pub(crate) fn timing(&self, usually_pends: bool) -> Timing {
        match self.completion.load(Ordering::Relaxed) {
            0 if usually_pends => Timing::Late,
            0 | 1 => Timing::Inline,
            2 => Timing::Nested,
            3 => Timing::Early,
            4 => Timing::Late,
            _ => match self.draw(4) {
                0 => Timing::Inline,
                1 => Timing::Nested,
                2 => Timing::Early,
                _ => Timing::Late,
            },
        }
    }

    /// Returns whether client memory is pinned with the host.
    pub(crate) fn watches_memory(&self) -> bool {
        self.watch_memory.load(Ordering::Relaxed)
    }

    /// Returns whether late completions are delayed by the configured time, or only by the thread switch.
    pub(crate) fn delays(&self) -> bool {
        self.completion.load(Ordering::Relaxed) != 0
    }

    /// The IRQL of the next callback.
    pub(crate) fn callback_level(&self) -> CallbackIrql {
        self.level(&self.callbacks)
    }

    /// The IRQL of the next completion routine.
    pub(crate) fn completion_level(&self) -> CallbackIrql {
        self.level(&self.completions)
    }

    fn level(&self, slot: &AtomicU8) -> CallbackIrql {
        match slot.load(Ordering::Relaxed) {
            0 => CallbackIrql { to_dispatch: false, with_flag: false },
            1 => CallbackIrql { to_dispatch: true, with_flag: true },
            _ => match self.draw(3) {
                0 => CallbackIrql { to_dispatch: false, with_flag: false },
                1 => CallbackIrql { to_dispatch: true, with_flag: false },
                _ => CallbackIrql { to_dispatch: true, with_flag: true },
            },
        }
    }
}
