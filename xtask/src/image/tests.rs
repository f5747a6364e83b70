//! Tests with a generated image, valid and then damaged in every way.

use super::*;

const SECTION_ALIGNMENT: u32 = 0x1000;
const FILE_ALIGNMENT: u32 = 0x200;
const CODE: u32 = 0x1000;
const DATA: u32 = 0x2000;
const RELOCATIONS: u32 = 0x3000;

/// Contents of a test image.
struct Recipe {
    machine: u16,
    subsystem: u16,
    dll_characteristics: u16,
    entry: u32,
    module: &'static str,
    code_name: &'static str,
    code_flags: u32,
    unwind_flags: u8,
    sealed: bool,
    /// The frame of its function, if it is a large one.
    frame: Option<u16>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            machine: 0x8664,
            subsystem: 1,
            dll_characteristics: 0x0160,
            entry: CODE,
            module: "ntoskrnl.exe",
            code_name: ".text",
            code_flags: 0x6000_0020,
            unwind_flags: 0,
            sealed: true,
            frame: None,
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

impl Recipe {
    /// The image: headers, then one page each of code, data (imports and unwind tables) and relocations.
    fn build(&self) -> Vec<u8> {
        let mut bytes = vec![0_u8; 0x200 * 4];
        put(&mut bytes, 0, b"MZ");
        put32(&mut bytes, 0x3C, 0x40);
        put(&mut bytes, 0x40, b"PE\0\0");
        let file = 0x44;
        put(&mut bytes, file, &self.machine.to_le_bytes());
        put(&mut bytes, file + 2, &3_u16.to_le_bytes());
        put(&mut bytes, file + 16, &240_u16.to_le_bytes());
        put(&mut bytes, file + 18, &0x2022_u16.to_le_bytes());
        let optional = file + 20;
        put(&mut bytes, optional, &0x20B_u16.to_le_bytes());
        put32(&mut bytes, optional + 16, self.entry);
        put(&mut bytes, optional + 24, &0x1_4000_0000_u64.to_le_bytes());
        put32(&mut bytes, optional + 32, SECTION_ALIGNMENT);
        put32(&mut bytes, optional + 36, FILE_ALIGNMENT);
        put32(&mut bytes, optional + 56, 0x4000);
        put32(&mut bytes, optional + 60, 0x200);
        put(&mut bytes, optional + 68, &self.subsystem.to_le_bytes());
        put(&mut bytes, optional + 70, &self.dll_characteristics.to_le_bytes());
        put32(&mut bytes, optional + 108, 16);
        let directories = optional + 112;
        for (index, address, size) in [(1, DATA, 40), (3, DATA + 0x100, 12), (5, RELOCATIONS, 12)] {
            put32(&mut bytes, directories + 8 * index, address);
            put32(&mut bytes, directories + 8 * index + 4, size);
        }
        let headers = optional + 240;
        let parts = [
            (self.code_name, CODE, 0x200, self.code_flags),
            (".rdata", DATA, 0x400, 0x4000_0040),
            (".reloc", RELOCATIONS, 0x600, 0x4200_0040),
        ];
        for (index, (name, address, raw, flags)) in parts.into_iter().enumerate() {
            let header = headers + 40 * index;
            put(&mut bytes, header, name.as_bytes());
            for (at, value) in [(8, 0x200), (12, address), (16, 0x200), (20, raw), (36, flags)] {
                put32(&mut bytes, header + at, value);
            }
        }
        // One descriptor, one name.
        let data = 0x400;
        put32(&mut bytes, data, DATA + 0x40);
        put32(&mut bytes, data + 12, DATA + 0x60);
        put32(&mut bytes, data + 16, DATA + 0x40);
        put32(&mut bytes, data + 0x40, DATA + 0x80);
        put(&mut bytes, data + 0x60, self.module.as_bytes());
        put(&mut bytes, data + 0x82, b"IoCancelIrp");
        // One function with a frame of 0x28 bytes.
        put32(&mut bytes, data + 0x100, CODE);
        put32(&mut bytes, data + 0x104, CODE + 16);
        put32(&mut bytes, data + 0x108, DATA + 0x120);
        put(&mut bytes, data + 0x120, &[1 | self.unwind_flags << 3, 4, 1, 0, 4, 0x42]);
        if let Some(frame) = self.frame {
            let [low, high] = (frame / 8).to_le_bytes();
            put(&mut bytes, data + 0x122, &[2, 0, 4, 0x01, low, high]);
        }
        // One address to adjust.
        put32(&mut bytes, 0x600, DATA);
        put32(&mut bytes, 0x604, 12);
        put(&mut bytes, 0x608, &0xA008_u16.to_le_bytes());
        if self.sealed {
            write_checksum(&mut bytes).unwrap();
        }
        bytes
    }

    fn image(&self) -> Image {
        parse("test.sys".into(), &self.build(), &[]).unwrap()
    }

    /// The one finding of an image that differs in one thing.
    fn finding(&self) -> String {
        let findings = self.image().check(&DRIVER);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].to_string()
    }
}

#[test]
fn a_sound_image_is_read_and_passes() {
    let image = Recipe::default().image();
    assert_eq!((image.size, image.relocations, image.subsystem), (0x800, 1, 1));
    assert_eq!(image.imports["ntoskrnl.exe"], ["IoCancelIrp"]);
    assert_eq!((image.frames.functions, image.frames.largest, image.frames.handlers), (1, 0x28, 0));
    assert_eq!(image.check(&DRIVER), []);
    let shown = image.to_string();
    for part in ["2048 bytes", "native yes", ".text", "r-x-", "1 from ntoskrnl.exe", "IoCancelIrp"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.lines().count() < 20);
    let json = image.json();
    assert_eq!((&json["nx"], &json["largest_frame"]), (&true.into(), &0x28.into()));
}

#[test]
fn each_fault_is_found() {
    let faults: [(Recipe, &str); 13] = [
        (Recipe { machine: 0xAA64, ..Recipe::default() }, "error: it is for 64-bit ARM"),
        (Recipe { machine: 0x0200, ..Recipe::default() }, "error: it is for another processor"),
        (Recipe { subsystem: 3, ..Recipe::default() }, "error: subsystem 3"),
        (Recipe { dll_characteristics: 0x0060, ..Recipe::default() }, "error: not marked NX_COMPAT"),
        (Recipe { dll_characteristics: 0x0120, ..Recipe::default() }, "error: not marked DYNAMIC_BASE"),
        (Recipe { dll_characteristics: 0x0140, ..Recipe::default() }, "warning: not marked HIGH_ENTROPY_VA"),
        (Recipe { module: "user32.dll", ..Recipe::default() }, "error: imports IoCancelIrp from user32.dll"),
        (Recipe { code_flags: 0xE000_0020, ..Recipe::default() }, "writable and executable"),
        (Recipe { code_name: "PAGE", ..Recipe::default() }, "can be paged out"),
        (Recipe { entry: DATA, ..Recipe::default() }, "in no section with code"),
        (Recipe { unwind_flags: 1, ..Recipe::default() }, "exception handlers"),
        (Recipe { frame: Some(4104), ..Recipe::default() }, "takes 4104 bytes of stack, more than 4096"),
        (Recipe { sealed: false, ..Recipe::default() }, "error: checksum 0x0 should be 0x"),
    ];
    for (recipe, expected) in faults {
        let finding = recipe.finding();
        assert!(finding.contains(expected), "{finding}");
    }
    assert_eq!(Recipe { frame: Some(4096), ..Recipe::default() }.image().check(&DRIVER), []);
    let discardable = Recipe { code_flags: 0x6200_0020, ..Recipe::default() };
    assert!(discardable.finding().contains("can be paged out"));
}

#[test]
fn a_changed_byte_changes_the_checksum() {
    let mut bytes = Recipe::default().build();
    bytes[0x201] ^= 1;
    let findings = parse("test.sys".into(), &bytes, &[]).unwrap().check(&DRIVER);
    assert!(
        matches!(&findings[..], [Finding::Error(text)] if text.starts_with("checksum 0x")),
        "{findings:?}"
    );
    write_checksum(&mut bytes).unwrap();
    assert_eq!(parse("test.sys".into(), &bytes, &[]).unwrap().check(&DRIVER), []);
}

#[test]
fn a_library_for_programs_may_be_what_a_driver_may_not() {
    let library = Recipe { subsystem: 3, unwind_flags: 2, module: "KERNEL32.dll", ..Recipe::default() };
    assert_eq!(library.image().check(&NETIO), []);
}

#[test]
fn paths_of_the_building_machine_are_found() {
    let places = ["/build/here/".to_owned(), "/home/user/".to_owned()];
    let others = "x".repeat(200);
    for (path, found) in [
        ("/home/other/.cargo/registry/src/one/lib.rs", true),
        ("/usr/lib/rustlib/src/rust/library/core/src/cell.rs", true),
        ("/build/here/src/lib.rs", true),
        ("/home/user/driver/src/lib.rs", true),
        ("wsk/src/lib.rs", false),
        ("/build/hereabouts", false),
    ] {
        let mut bytes = Recipe::default().build();
        // The code's page is free, and texts stand there without anything between them.
        put(&mut bytes, 0x220, format!("{others}{path}\0").as_bytes());
        let image = parse("test.sys".into(), &bytes, &places).unwrap();
        assert_eq!(image.paths.iter().any(|shown| shown.contains(path)), found, "{path}: {:?}", image.paths);
        let said: Vec<String> = image.check(&DRIVER).iter().map(ToString::to_string).collect();
        assert_eq!(said.iter().any(|text| text.starts_with("error: contains 1 paths")), found, "{said:?}");
        assert!(
            !image
                .check(&NETIO)
                .iter()
                .any(|finding| finding.to_string().starts_with("error: contains 1 paths"))
        );
    }
}

#[test]
fn a_long_text_hides_no_path() {
    let text = [&[b'x'; 1000][..], b"/build/here/src/lib.rs", &[b'y'; 1000]].concat();
    let paths = paths(&text, &["/build/here/".to_owned()]);
    assert!(paths[0].contains("x/build/here/src/lib.rsy") && paths[0].len() < 300, "{paths:?}");
}

#[test]
fn the_workspace_is_a_place_of_this_machine() {
    let places = places();
    let workspace = crate::workspace_root().join("src").display().to_string();
    assert!(places.iter().any(|place| workspace.starts_with(place)), "{places:?}");
    assert!(places.iter().all(|place| place.len() > 1), "{places:?}");
}

#[test]
fn a_file_of_any_shorter_length_is_an_error() {
    let bytes = Recipe::default().build();
    for length in 0..bytes.len() {
        assert!(parse("test.sys".into(), &bytes[..length], &[]).is_err(), "{length}");
    }
}

#[test]
fn a_file_with_any_damaged_byte_is_read_or_refused() {
    let sound = Recipe::default().build();
    for at in 0..sound.len() {
        for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            if let Ok(image) = parse("test.sys".into(), &bytes, &[]) {
                // What is read can be checked and shown.
                let _ = (image.check(&DRIVER), image.to_string(), image.json());
            }
        }
    }
}

#[test]
fn what_is_no_file_is_a_clear_error() {
    let error = inspect(Path::new("/no/such/image.sys")).unwrap_err();
    assert!(error.to_string().contains("/no/such/image.sys"));
}
