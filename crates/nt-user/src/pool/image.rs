//! The static data of the process, which counts as non-paged.

/// Whether the bytes belong to a loaded image.
#[cfg(target_os = "linux")]
pub(crate) fn contains(address: usize, bytes: usize) -> bool {
    let end = address.saturating_add(bytes);
    linux::segments().iter().any(|segment| segment.start <= address && end <= segment.end)
}

/// Other systems do not tell easily what an image covers; nothing there is denied to be static.
#[cfg(not(target_os = "linux"))]
pub(crate) fn contains(_address: usize, _bytes: usize) -> bool {
    true
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{c_int, c_void};
    use std::ops::Range;
    use std::sync::OnceLock;

    /// The loaded segments of the program and of its libraries, as they were when this was first asked.
    pub(super) fn segments() -> &'static [Range<usize>] {
        static SEGMENTS: OnceLock<Vec<Range<usize>>> = OnceLock::new();
        SEGMENTS.get_or_init(|| {
            let mut segments: Vec<Range<usize>> = Vec::new();
            // SAFETY: the callback is called during the call only, with the pointer passed here.
            unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut segments).cast()) };
            segments
        })
    }

    /// # Safety
    /// Called by `dl_iterate_phdr`, with a pointer to the collection.
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _size: usize, segments: *mut c_void) -> c_int {
        // SAFETY: `segments` above passes its collection, which nobody else uses meanwhile.
        let segments = unsafe { &mut *segments.cast::<Vec<Range<usize>>>() };
        // SAFETY: the loader passes a valid description.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the description has so many program headers there.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
            let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            segments.push(start..start + header.p_memsz as usize);
        }
        0
    }
}
