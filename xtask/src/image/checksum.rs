//! The checksum in an image's optional header, which the Windows loader verifies for every driver.
//!
//! The algorithm is that of `CheckSumMappedFile`: the 16-bit words of the file, added with the carry brought
//! back in, with the field itself counted as zero; plus the length of the file.

use anyhow::{Result, ensure};
use object::read::pe::{ImageNtHeaders as _, ImageOptionalHeader as _, PeFile64};

/// Offset of the field in the optional header, and its size.
const FIELD_IN_OPTIONAL_HEADER: usize = 64;
const FIELD: usize = 4;

/// The checksum that an image states, and the one that it should state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub stated: u32,
    pub computed: u32,
}

impl Checksum {
    /// Reads one and computes the other.
    pub(super) fn of(file: &PeFile64<'_>, bytes: &[u8]) -> Result<Self> {
        let stated = file.nt_headers().optional_header().check_sum();
        Ok(Self { stated, computed: compute(bytes, field(file, bytes)?) })
    }
}

/// Writes the right checksum into an image.
pub(crate) fn write(bytes: &mut [u8]) -> Result<()> {
    let at = field(&PeFile64::parse(&*bytes)?, bytes)?;
    let checksum = compute(bytes, at);
    bytes[at..at + FIELD].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// The offset of the field in the file.
fn field(file: &PeFile64<'_>, bytes: &[u8]) -> Result<usize> {
    let headers = file.dos_header().nt_headers_offset() as usize;
    let at = headers + size_of::<u32>() + size_of::<object::pe::ImageFileHeader>() + FIELD_IN_OPTIONAL_HEADER;
    ensure!(at + FIELD <= bytes.len(), "the file ends before its checksum");
    Ok(at)
}

fn compute(bytes: &[u8], field: usize) -> u32 {
    let counted = |at: usize| {
        if (field..field + FIELD).contains(&at) { 0 } else { bytes.get(at).copied().unwrap_or(0) }
    };
    let sum = (0..bytes.len()).step_by(2).fold(0_u32, |sum, at| {
        let sum = sum + u32::from(u16::from_le_bytes([counted(at), counted(at + 1)]));
        (sum & 0xFFFF) + (sum >> 16)
    });
    sum.wrapping_add(bytes.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::compute;

    #[test]
    fn the_sum_is_that_of_words_with_the_carry_brought_back() {
        assert_eq!(compute(&[1, 0, 2, 0], 100), 3 + 4);
        assert_eq!(compute(&[0xFF, 0xFF, 2, 0], 100), 2 + 4);
        // An odd byte at the end is a word with a zero.
        assert_eq!(compute(&[1, 0, 5], 100), 6 + 3);
        // The field itself does not count.
        assert_eq!(compute(&[1, 0, 9, 9, 9, 9, 4, 0], 2), 5 + 8);
    }
}
