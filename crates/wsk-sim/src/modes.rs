//! Runs of one test on many machines: every way in which requests complete, every alternative of a behavior.

use wsk_provider::Alternatives;

use crate::{Behaviours, Builder, Completion, Level, Sim};

/// The ways in which requests complete: inline, pending, early, late, and a mixture of them.
pub const COMPLETIONS: [Completion; 6] = [
    Completion::Natural,
    Completion::Inline,
    Completion::PendNested,
    Completion::PendEarly,
    Completion::PendLate,
    Completion::Random(7),
];

/// The levels at which a machine calls the driver.
const LEVELS: [Level; 3] = [Level::Passive, Level::Dispatch, Level::Random(3)];

/// Runs `test` on a machine for each of the [`COMPLETIONS`] and for each level at which callbacks and
/// completion routines may be called: 18 machines. Each run ends with the checker, as [`Sim::run`] does.
///
/// A driver's code has to hold in all of these modes: on Windows it meets most of them, some of them rarely.
///
/// ```
/// use wsk_sim::for_each_mode;
/// use wsk_sim::raw::Client;
///
/// for_each_mode(|_sim| {
///     // Here is what the driver does.
///     drop(Client::new());
/// });
/// ```
///
/// # Panics
/// On the first machine on which the run fails; see [`Sim::run`].
#[track_caller]
pub fn for_each_mode(test: impl Fn(&Sim) + Clone + Send + 'static) {
    for_each_mode_with(Builder::build, test);
}

/// Runs `test` as [`for_each_mode`] does, on machines that `build` makes of their builders.
///
/// ```
/// use wsk_sim::for_each_mode_with;
///
/// // Advice of the checker is a failure, too.
/// for_each_mode_with(
///     |machine| {
///         let sim = machine.build();
///         sim.forbid_advice();
///         sim
///     },
///     |_sim| {},
/// );
/// ```
///
/// # Panics
/// On the first machine on which the run fails; see [`Sim::run`].
#[track_caller]
pub fn for_each_mode_with(build: impl Fn(Builder) -> Sim, test: impl Fn(&Sim) + Clone + Send + 'static) {
    for completion in COMPLETIONS {
        for level in LEVELS {
            let machine = Sim::builder().completion(completion).callbacks(level).completions(level);
            build(machine).run(test.clone());
        }
    }
}

/// Runs `test` on a machine for each alternative of a behavior that the contract of WSK leaves open; `select`
/// sets it.
///
/// ```
/// use wsk_sim::for_each_choice;
/// use wsk_sim::wsk_provider::behaviours::Truncated;
///
/// for_each_choice(
///     |behaviours, choice: Truncated| behaviours.truncated = choice,
///     |_sim, _choice| {
///         // A datagram that is cut is a success here, and a failure there.
///     },
/// );
/// ```
///
/// # Panics
/// On the first machine on which the run fails; see [`Sim::run`].
#[track_caller]
pub fn for_each_choice<A: Alternatives + Send>(
    select: impl Fn(&mut Behaviours, A),
    test: impl Fn(&Sim, A) + Clone + Send + 'static,
) {
    for &choice in A::ALL {
        let test = test.clone();
        Sim::builder()
            .behaviours(|behaviours| select(behaviours, choice))
            .build()
            .run(move |sim| test(sim, choice));
    }
}
