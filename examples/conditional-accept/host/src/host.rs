//! Settings of the host's C library.

use std::ffi::c_int;

/// Number of heaps (arenas) of the allocator. By default there are eight for each processor, and memory that
/// one thread has freed for another stays in the heap it came from. The threads of the simulated kernel come
/// and go, and each would add to what the process keeps.
const MAX_ARENAS: c_int = 2;

/// Limits the allocator to few heaps. Call it before there are other threads.
pub(crate) fn limit_arenas() {
    // SAFETY: the parameter is one of the library's, and no other thread allocates yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, MAX_ARENAS) };
}
