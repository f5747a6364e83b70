//! A driver's two ends, called as the I/O manager calls them.
//!
//! ```text
//!   DriverEntry ──success──► loaded ──DriverUnload──► returned ──► the image goes, with the last reference on a device
//!        └──failure──────────────────────────────────────────────► the image goes
//! ```
//!
//! On Windows the code of an image that has gone is no longer there: a thread, timer, deferred call, work item, completion
//! routine or callback that is left then runs whatever is in its place. Here it is left where it is, and named.

use std::panic::Location;

use nt_user::Severity;

use crate::Sim;

impl Sim {
    /// Loads a driver, unloads it, finishes, and checks that everything was as it should be, like [`run`](Self::run).
    ///
    /// `entry` is what `DriverEntry` does. What it returns is the driver's state, or why the driver cannot be loaded: then
    /// the image goes at once, nothing else is called, and the error is the result. `unload` is what `DriverUnload` does with
    /// the state; what a test wants of the driver in between comes first in it. Both are called at `PASSIVE_LEVEL` on one
    /// system thread.
    ///
    /// A run fails that leaves something behind in an image that goes:
    ///
    /// | left behind | reported |
    /// |---|---|
    /// | a registration | REG-27 |
    /// | a thread that nobody can wait for any more | REG-27 |
    /// | a thread, work item, deferred call, completion routine or callback that has not returned | LIFE-19 |
    /// | a timer that is set, a deferred call or a work item that is queued | LIFE-19 |
    /// | pool, IRPs, sockets, handles, references | as by [`run`](Self::run) |
    ///
    /// The driver has a device if it makes one ([`Kernel::create_device`](nt_user::Kernel::create_device)), which keeps the
    /// image as long as it is referenced. To have routines linger that have returned, ask for that
    /// ([`Kernel::watch_image`](nt_user::Kernel::watch_image)) before.
    ///
    /// ```
    /// use wsk_sim::Sim;
    ///
    /// let sim = Sim::new();
    /// sim.driver(|_| Ok::<_, i32>("state"), |_, state| assert_eq!(state, "state")).expect("it loads");
    /// ```
    ///
    /// # Errors
    /// What `entry` returned, if the run was clean otherwise.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn driver<T, E: Send + 'static>(
        &self,
        entry: impl FnOnce(&Sim) -> Result<T, E> + Send + 'static,
        unload: impl FnOnce(&Sim, T) + Send + 'static,
    ) -> Result<(), E> {
        if !self.kernel().image_is_watched() {
            self.kernel().watch_image(false);
        }
        let caller = Location::caller();
        let ended = self.run_for("driver", move |sim| {
            let loaded = entry(sim).map(|state| unload(sim, state));
            sim.end_image(loaded.is_err(), caller);
            loaded
        });
        ended.unwrap_or(Ok(()))
    }

    /// The driver's image goes.
    fn end_image(&self, refused: bool, caller: &Location<'_>) {
        let call = if refused { "DriverEntry" } else { "DriverUnload" };
        let clients = self.provider().clients();
        if clients != 0 {
            let detail =
                format!("{clients} registrations with WSK are left in an image that goes, at {caller}");
            self.kernel().report(Severity::Violation, "REG-27", call, detail);
        }
        if refused {
            self.kernel().fail_driver_entry();
        } else {
            self.kernel().unload_image();
        }
        // What lingers returns now, in the image or not.
        self.kernel().finish_lingering_routines();
    }
}
