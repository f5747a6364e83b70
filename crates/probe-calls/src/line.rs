//! A line of text in a buffer of fixed size. Text that does not fit is dropped.

use wsk_sys::nt::NTSTATUS;
use wsk_sys::status::status_name;

const SIZE: usize = 320;

/// A buffer for a line.
pub(crate) struct Line {
    bytes: [u8; SIZE],
    length: usize,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; SIZE], length: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        self
    }

    pub(crate) fn tab(&mut self) -> &mut Self {
        self.text("\t")
    }

    pub(crate) fn number(&mut self, number: usize) -> &mut Self {
        if number >= 10 {
            self.number(number / 10);
        }
        self.digit(number % 10)
    }

    /// Appends the header's name of a status, or its number.
    pub(crate) fn status(&mut self, status: NTSTATUS) -> &mut Self {
        if let Some(name) = status_name(status) {
            return self.text(name);
        }
        self.text("0x");
        for shift in (0..8).rev() {
            self.digit((status as u32 >> (shift * 4)) as usize % 16);
        }
        self
    }

    fn digit(&mut self, digit: usize) -> &mut Self {
        const DIGITS: &str = "0123456789ABCDEF";
        self.text(DIGITS.get(digit..=digit).unwrap_or("?"))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_line_is_written_without_the_formatter() {
        let mut line = Line::new();
        line.text("a").tab().number(0).tab().number(40_960).tab().status(0x103).tab().status(-1);
        assert_eq!(line.bytes(), b"a\t0\t40960\tSTATUS_PENDING\t0xFFFFFFFF");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut line = Line::new();
        for _ in 0..SIZE {
            line.text("ab");
        }
        assert_eq!(line.bytes().len(), SIZE);
    }
}
