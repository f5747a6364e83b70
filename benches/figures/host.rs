//! Questions to the operating system.

use std::time::Duration;

/// The connections of the memory figure, both ends, and some more.
#[cfg(target_os = "linux")]
const DESCRIPTORS: u64 = 12_000;

/// Lets this process have as many descriptors as it needs, if it may.
#[cfg(target_os = "linux")]
pub(crate) fn allow_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        limit.current = Some(limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS)));
        // Where it is refused, the figure that needs them will say what is missing.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Lets this process have as many descriptors as it needs, if it may.
#[cfg(not(target_os = "linux"))]
pub(crate) fn allow_descriptors() {}

/// The processor time that this process has used, where the host can tell.
#[cfg(target_os = "linux")]
pub(crate) fn processor_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    let used = clock_gettime(ClockId::ProcessCPUTime);
    Some(Duration::new(used.tv_sec.try_into().ok()?, used.tv_nsec.try_into().ok()?))
}

/// The processor time that this process has used, where the host can tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn processor_time() -> Option<Duration> {
    None
}
