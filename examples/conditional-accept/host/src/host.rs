//! What the program asks of the host's C library.

use std::ffi::c_int;

/// How many heaps the allocator keeps. By default there are eight for each processor, and memory that one thread has freed for another
/// stays in the heap it came from: the threads of the simulated kernel, which come and go, would each add to what the program keeps.
const MAX_ARENAS: c_int = 2;

/// Has the allocator keep few heaps. To be called before there are other threads.
pub(crate) fn limit_arenas() {
    // SAFETY: the parameter is one of the library's, and no other thread allocates yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, MAX_ARENAS) };
}
