//! The static data of the process, which counts as non-paged.

/// Returns true if the bytes belong to a loaded image.
#[cfg(target_os = "linux")]
pub(crate) fn contains(address: usize, bytes: usize) -> bool {
    let end = address.saturating_add(bytes);
    linux::segments().iter().any(|segment| segment.start <= address && end <= segment.end)
}

/// Returns true if the bytes belong to a loaded image.
#[cfg(windows)]
pub(crate) fn contains(address: usize, bytes: usize) -> bool {
    let end = address.saturating_add(bytes.max(1));
    let mut at = address;
    while at < end {
        match windows::image_region(at) {
            Some(after) if after > at => at = after,
            _ => return false,
        }
    }
    true
}

/// Returns true: other systems do not report easily what an image covers.
#[cfg(not(any(target_os = "linux", windows)))]
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
        // SAFETY: `segments` passes its collection, which is not used otherwise during the call.
        let segments = unsafe { &mut *segments.cast::<Vec<Range<usize>>>() };
        // SAFETY: the loader passes a valid description.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the loader's description gives the number of program headers at this address.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
            let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            segments.push(start..start + header.p_memsz as usize);
        }
        0
    }
}

#[cfg(windows)]
mod windows {
    use std::ffi::c_void;
    use std::mem::MaybeUninit;

    /// `MEMORY_BASIC_INFORMATION` of a 64-bit process: a run of pages that are alike.
    #[repr(C)]
    struct Region {
        base: usize,
        _allocation: usize,
        _first_protection: u32,
        _partition: u16,
        size: usize,
        _state: u32,
        _protection: u32,
        kind: u32,
    }

    /// `MEM_IMAGE`.
    const IMAGE: u32 = 0x0100_0000;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn VirtualQuery(address: *const c_void, region: *mut Region, size: usize) -> usize;
    }

    /// Returns the end of the region of `address`, if it belongs to an image.
    pub(super) fn image_region(address: usize) -> Option<usize> {
        let mut region = MaybeUninit::<Region>::uninit();
        let at = std::ptr::without_provenance(address);
        // SAFETY: the region has the size that is passed; any address may be queried.
        let written = unsafe { VirtualQuery(at, region.as_mut_ptr(), size_of::<Region>()) };
        if written < size_of::<Region>() {
            return None;
        }
        // SAFETY: all of it was written, and any bytes are a valid value.
        let region = unsafe { region.assume_init() };
        (region.kind == IMAGE).then(|| region.base.saturating_add(region.size))
    }
}
