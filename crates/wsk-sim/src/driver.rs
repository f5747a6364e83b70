//! A driver's entry and unload routines, called as the I/O manager calls them.
//!
//! ```text
//!   DriverEntry ──success──► loaded ──DriverUnload──► returned ──► the image goes with its last device
//!        └──failure──────────────────────────────────────────────► the image is unloaded
//! ```
//!
//! On Windows an unloaded image is no longer mapped: a thread, timer, deferred call, work item, completion
//! routine or callback that is left crashes. Here the code stays, and the routine is reported.

use std::panic::Location;

use nt_user::Severity;

use crate::Sim;

impl Sim {
    /// Loads a driver, unloads it, finishes, and checks the report, like [`run`](Self::run).
    ///
    /// `entry` is the body of `DriverEntry`. It returns the driver's state, or an error: then the image is
    /// unloaded at once, `unload` is not called, and the error is the result. `unload` is the body of
    /// `DriverUnload`, preceded by what the test does with the driver. Both are called at `PASSIVE_LEVEL` on
    /// one system thread.
    ///
    /// The run fails if anything is left behind in an unloaded image:
    ///
    /// | left behind | reported |
    /// |---|---|
    /// | a registration | REG-27 |
    /// | a thread that can no longer be waited for | REG-27 |
    /// | a thread, work item, deferred call, completion routine or callback that has not returned | LIFE-19 |
    /// | a timer that is set, a deferred call or a work item that is queued | LIFE-19 |
    /// | pool, IRPs, sockets, handles, references | as by [`run`](Self::run) |
    ///
    /// A device that the driver creates ([`Kernel::create_device`](nt_user::Kernel::create_device)) keeps the
    /// image loaded as long as it is referenced. To let routines linger after their return, call
    /// [`Kernel::watch_image`](nt_user::Kernel::watch_image) before.
    ///
    /// ```
    /// use wsk_sim::Sim;
    ///
    /// let sim = Sim::new();
    /// sim.driver(|_| Ok::<_, i32>("state"), |_, state| assert_eq!(state, "state")).expect("it loads");
    /// ```
    ///
    /// # Errors
    /// The error of `entry`, if the run was clean otherwise.
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

    /// Unloads the driver's image.
    fn end_image(&self, refused: bool, caller: &Location<'_>) {
        let call = if refused { "DriverEntry" } else { "DriverUnload" };
        let clients = self.provider().clients();
        if clients != 0 {
            let detail = format!(
                "{clients} registrations with WSK are left in an image that is unloaded, at {caller}"
            );
            self.kernel().report(Severity::Violation, "REG-27", call, detail);
        }
        if refused {
            self.kernel().fail_driver_entry();
        } else {
            self.kernel().unload_image();
        }
        // Lingering routines return now, in the image or not.
        self.kernel().finish_lingering_routines();
    }
}
