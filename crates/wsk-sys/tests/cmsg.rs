//! Control messages: arithmetic, reading, writing.
#![allow(missing_docs)]

use wsk_sys::*;

/// The number for the target's pointer width.
const fn at(wide: usize, narrow: usize) -> usize {
    if cfg!(target_pointer_width = "64") { wide } else { narrow }
}

/// Shows: LAY-23
#[test]
fn arithmetic() {
    assert_eq!(align_of::<CMSGHDR>(), at(8, 4));
    assert_eq!(MAX_NATURAL_ALIGNMENT, at(8, 4));
    assert_eq!(CMSG_DATA_OFFSET, at(16, 12));
    for length in 0..64 {
        let word = at(8, 4);
        let header = at(16, 12);
        assert_eq!(CMSG_LEN(length), header + length);
        assert_eq!(CMSG_SPACE(length), header + length.div_ceil(word) * word);
    }
}

/// Shows: LAY-23
#[test]
fn data_follows_the_header() {
    let mut buffer = [0_usize; 8];
    let message = buffer.as_mut_ptr().cast::<CMSGHDR>();
    // SAFETY: the message lies at the start of the buffer.
    let data = unsafe { CMSG_DATA(message) };
    assert_eq!(data as usize - message as usize, at(16, 12));
}

fn two_messages() -> Vec<u8> {
    let mut buffer = vec![0xEE; CMSG_SPACE(5) + CMSG_SPACE(4)];
    let first = write_control_message(&mut buffer, 17, 3, &[1, 2, 3, 4, 5]).expect("room for the first");
    assert_eq!(first, CMSG_SPACE(5));
    let second = write_control_message(&mut buffer[first..], 41, 50, &[9; 4]).expect("room for the second");
    assert_eq!(first + second, buffer.len());
    buffer
}

/// Shows: LAY-23
#[test]
fn messages_written_are_messages_read() {
    let buffer = two_messages();
    let messages: Vec<_> = ControlMessages::new(&buffer).collect();
    assert_eq!(
        messages,
        [
            ControlMessage { level: 17, kind: 3, data: &[1, 2, 3, 4, 5] },
            ControlMessage { level: 41, kind: 50, data: &[9; 4] },
        ]
    );
}

/// Shows: LAY-23
#[test]
fn a_header_that_does_not_fit_whole_is_not_read() {
    let buffer = two_messages();
    let cut = CMSG_SPACE(5) + size_of::<CMSGHDR>() - 1;
    assert_eq!(ControlMessages::new(&buffer[..cut]).count(), 1);
    assert_eq!(ControlMessages::new(&buffer[..size_of::<CMSGHDR>() - 1]).count(), 0);
    assert_eq!(ControlMessages::new(&[]).count(), 0);
}

/// Shows: LAY-23
#[test]
fn hostile_lengths_end_the_walk() {
    for length in [0, 1, CMSG_DATA_OFFSET - 1, usize::MAX, usize::MAX - 7, CMSG_SPACE(5) + CMSG_SPACE(4) + 1]
    {
        let mut buffer = two_messages();
        buffer[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(ControlMessages::new(&buffer).count(), 0, "cmsg_len {length}");
    }
}

#[test]
fn a_message_that_does_not_fit_is_not_written() {
    let mut buffer = vec![0; CMSG_SPACE(4) - 1];
    assert_eq!(write_control_message(&mut buffer, 0, 0, &[0; 4]), None);
    assert!(buffer.iter().all(|byte| *byte == 0));
}
