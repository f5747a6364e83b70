//! Strings as the kernel counts them (`UNICODE_STRING`).

use wdk_sys::UNICODE_STRING;

/// ASCII text as UTF-16, made at compile time.
pub(crate) const fn utf16<const N: usize>(text: &str) -> [u16; N] {
    let bytes = text.as_bytes();
    assert!(bytes.len() == N);
    let mut units = [0; N];
    let mut at = 0;
    while at < N {
        assert!(bytes[at].is_ascii());
        units[at] = bytes[at] as u16;
        at += 1;
    }
    units
}

/// A constant as a `&'static [u16]`.
macro_rules! wide {
    ($text:expr) => {{
        static UNITS: [u16; $text.len()] = $crate::text::utf16($text);
        &UNITS
    }};
}
pub(crate) use wide;

/// A counted string over `units`, for functions that only read it, and only while `units` are there.
pub(crate) fn counted(units: &[u16]) -> UNICODE_STRING {
    // The names that this driver uses are short.
    let bytes = size_of_val(units) as u16;
    UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_ptr().cast_mut() }
}

/// An ASCII text as a counted string over `units`, which are for it; as much of it as they have room for.
pub(crate) fn ascii(text: &str, units: &mut [u16]) -> UNICODE_STRING {
    let count = text.bytes().zip(&mut *units).map(|(byte, unit)| *unit = byte.into()).count();
    UNICODE_STRING { Length: (count * size_of::<u16>()) as u16, ..counted(units) }
}
