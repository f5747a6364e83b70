//! Unwind tables of x86-64: the number of functions, the stack that each takes, and those with exception
//! handlers.

use super::*;

/// Handlers: for exceptions, for termination.
const HANDLERS: u8 = 0x1 | 0x2;
/// The entry continues that of another function.
const CHAINED: u8 = 0x4;

/// Figures about functions and their stack frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Functions with an entry, which are all but leaves without a frame.
    pub functions: usize,
    /// The largest frame in bytes, the saved registers included.
    pub largest: u32,
    /// Address of the function with the largest frame, relative to the image.
    pub largest_at: u32,
    /// Functions with handlers.
    pub handlers: usize,
}

/// Reads the tables. Images for other machines have none that are read here.
pub(super) fn frames(file: &PeFile64<'_>, bytes: &[u8]) -> Result<Frames> {
    let mut frames = Frames::default();
    if file.nt_headers().file_header().machine.get(LE) != pe::IMAGE_FILE_MACHINE_AMD64 {
        return Ok(frames);
    }
    let Some(directory) = file.data_directory(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION) else { return Ok(frames) };
    if directory.size.get(LE) == 0 {
        return Ok(frames);
    }
    let sections = file.section_table();
    for entry in directory.data(bytes, &sections)?.chunks_exact(12) {
        let (Some(begin), Some(information)) = (word(entry, 0), word(entry, 8)) else { continue };
        if begin == 0 {
            continue;
        }
        let Some(data) = sections.pe_data_at(bytes, information) else {
            bail!("the unwind information of the function at {begin:#x} is outside of the image");
        };
        let (frame, flags) =
            frame(data).with_context(|| format!("bad unwind information of the function at {begin:#x}"))?;
        if flags & CHAINED == 0 {
            frames.functions += 1;
        }
        frames.handlers += usize::from(flags & HANDLERS != 0);
        if frame > frames.largest {
            (frames.largest, frames.largest_at) = (frame, begin);
        }
    }
    Ok(frames)
}

/// The size of a function's frame and the flags of its entry.
fn frame(data: &[u8]) -> Option<(u32, u8)> {
    let flags = data.first()? >> 3;
    let codes = data.get(4..4 + 2 * usize::from(*data.get(2)?))?;
    let slot = |index: usize| {
        Some(u32::from(u16::from_le_bytes(codes.get(2 * index..2 * index + 2)?.try_into().ok()?)))
    };
    let mut frame = 0_u32;
    let mut index = 0;
    while 2 * index < codes.len() {
        let code = slot(index)?;
        let (operation, argument) = (code >> 8 & 0xF, code >> 12);
        index += 1;
        match (operation, argument) {
            // A register is pushed.
            (0, _) => frame = frame.saturating_add(8),
            // A large allocation, in units of eight or in bytes.
            (1, 0) => {
                frame = frame.saturating_add(slot(index)?.saturating_mul(8));
                index += 1;
            }
            (1, _) => {
                frame = frame.saturating_add(slot(index)? | slot(index + 1)? << 16);
                index += 2;
            }
            // A small one.
            (2, _) => frame = frame.saturating_add(argument * 8 + 8),
            // A register is saved, near or far.
            (4 | 8, _) => index += 1,
            (5 | 9, _) => index += 2,
            _ => {}
        }
    }
    Some((frame, flags))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_added_up() {
        // Two pushes, 0x28 small, 0x1000 large by eights, 0x1_0000 large by bytes; a saved register between.
        let data = [
            0x01, 0, 10, 0, /* push */ 0, 0x30, 0, 0x50, /* small */ 0, 0x42, /* large */ 0,
            0x01, 0x00, 0x02, /* save */ 0, 0x64, 9, 0, /* larger */ 0, 0x11, 0, 0, 1, 0,
        ];
        assert_eq!(frame(&data), Some((16 + 0x28 + 0x1000 + 0x1_0000, 0)));
    }

    #[test]
    fn handlers_are_seen_and_short_tables_are_none() {
        assert_eq!(frame(&[0x09, 0, 0, 0]), Some((0, 1)));
        assert_eq!(frame(&[0x01, 0, 2, 0, 0, 0x01]), None);
        assert_eq!(frame(&[0x01, 0, 1, 0, 0, 0x01]), None);
        assert_eq!(frame(&[]), None);
    }
}
