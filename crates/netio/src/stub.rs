//! Functions that a kernel exports only as stubs.
//!
//! Wine's build tool generates a stub for each such export. It passes the function's name to a routine that
//! ends the process (x86-64, 24 bytes):
//!
//! ```text
//!   sub  rsp, 40
//!   lea  rcx, "ntoskrnl.exe"
//!   lea  rdx, "IoSetCompletionRoutineEx"      by its distance from the next instruction
//!   call __wine_spec_unimplemented_stub
//! ```
//! Only exactly this code, with the expected function name, counts as a stub: a kernel that has the function
//! is not changed.

/// The length of a stub, with the padding to the next one.
pub const LENGTH: usize = 24;

/// Returns the offset of the function name from the start of a stub; `None` if these are not the bytes of a
/// stub.
pub fn name_of_stub(code: &[u8; LENGTH]) -> Option<isize> {
    let is_stub = code.starts_with(&[0x48, 0x83, 0xEC, 0x28])
        && code[4..].starts_with(&[0x48, 0x8D, 0x0D])
        && code[11..].starts_with(&[0x48, 0x8D, 0x15])
        && code[18] == 0xE8;
    let distance = i32::from_le_bytes([code[14], code[15], code[16], code[17]]);
    is_stub.then_some(18 + distance as isize)
}

/// Returns the instruction that jumps to `address`: `jmp [rip]`, followed by the address.
pub fn jump_to(address: u64) -> [u8; 14] {
    let mut jump = [0xFF, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    jump[6..].copy_from_slice(&address.to_le_bytes());
    jump
}

const _: () = assert!(size_of::<[u8; 14]>() <= LENGTH);

#[cfg(test)]
mod tests {
    use super::*;

    /// The stub of Wine 8.0, as Debian's package has it.
    const STUB: [u8; LENGTH] = [
        0x48, 0x83, 0xEC, 0x28, 0x48, 0x8D, 0x0D, 0x3D, 0x42, 0x02, 0x00, 0x48, 0x8D, 0x15, 0x0C, 0x5F, 0x02,
        0x00, 0xE8, 0x01, 0x03, 0x02, 0x00, 0x90,
    ];

    #[test]
    fn a_stub_names_itself() {
        assert_eq!(name_of_stub(&STUB), Some(0x2_5F0C + 18));
    }

    #[test]
    fn a_name_may_lie_before_its_stub() {
        let mut stub = STUB;
        stub[14..18].copy_from_slice(&(-100_i32).to_le_bytes());
        assert_eq!(name_of_stub(&stub), Some(-82));
    }

    #[test]
    fn a_function_is_not_taken_for_a_stub() {
        for place in [0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 18] {
            let mut code = STUB;
            code[place] ^= 1;
            assert_eq!(name_of_stub(&code), None, "{place}");
        }
        // The beginning of IofCompleteRequest in the same image.
        let function = [
            0x56, 0x53, 0x48, 0x83, 0xEC, 0x38, 0x48, 0x89, 0xCB, 0x0F, 0xB6, 0xF2, 0xF6, 0x05, 0xAD, 0x27,
            0x01, 0x00, 0x08, 0x75, 0x13, 0x89, 0xF2, 0x48,
        ];
        assert_eq!(name_of_stub(&function), None);
    }

    #[test]
    fn a_jump_carries_its_address() {
        assert_eq!(
            jump_to(0x1122_3344_5566_7788),
            [0xFF, 0x25, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
        );
    }
}
