//! Contents of a finished image, and the checks whether a kernel accepts it.
//!
//! ```text
//!   file ── inspect ──► Image ──┬── Display ──► one screen
//!                               ├── json ─────► one object
//!                               └── check(Expected) ──► findings: errors and warnings
//! ```
//!
//! The image is read, never run. Every number in it is untrusted: a damaged file is an error, whatever the
//! damage.

mod check;
mod checksum;
mod unwind;

use std::collections::BTreeMap;
use std::path::{MAIN_SEPARATOR, Path};

use anyhow::{Context as _, Result, bail, ensure};
use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{ImageNtHeaders as _, ImageOptionalHeader as _, ImageThunkData as _, PeFile64};

pub(crate) use check::{DRIVER, Expected, Finding, NETIO};
use checksum::Checksum;
pub(crate) use checksum::write as write_checksum;
use unwind::Frames;

/// Length of text shown before and after what makes it a path.
const BEFORE: usize = 80;
const AFTER: usize = 160;

/// An image, as far as the checks and the report need it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The file's name, for reports.
    pub name: String,
    /// The file's size.
    pub size: u64,
    /// `IMAGE_FILE_MACHINE_…`.
    pub machine: u16,
    /// `IMAGE_SUBSYSTEM_…`.
    pub subsystem: u16,
    /// `IMAGE_FILE_…`.
    pub characteristics: u16,
    /// `IMAGE_DLLCHARACTERISTICS_…`.
    pub dll_characteristics: u16,
    /// The address of the entry point, relative to the image.
    pub entry: u32,
    /// The checksum that the header states, and the right one.
    pub checksum: Checksum,
    /// The sections in the order of the file.
    pub sections: Vec<Section>,
    /// Imported names by module.
    pub imports: BTreeMap<String, Vec<String>>,
    /// True if there are delay-loaded imports.
    pub delayed: bool,
    /// Exported names.
    pub exports: Vec<String>,
    /// Number of addresses that are adjusted when the image is loaded elsewhere.
    pub relocations: usize,
    /// Summary of the unwind tables.
    pub frames: Frames,
    /// Paths of the machine it was built on.
    pub paths: Vec<String>,
}

/// A section of an image.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// Its name.
    pub name: String,
    /// Load address, relative to the image.
    pub address: u32,
    /// Its size in memory.
    pub size: u32,
    /// Its size in the file.
    pub raw: u32,
    /// `IMAGE_SCN_…`.
    pub flags: u32,
}

impl Section {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn contains(&self, address: u32) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.size.max(self.raw))
    }
}

/// Reads an image.
pub(crate) fn inspect(path: &Path) -> Result<Image> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    parse(name, &bytes, &places()).with_context(|| format!("{} is not a valid image", path.display()))
}

/// Reads an image from memory. What is in one of `places` is a file of the building machine.
fn parse(name: String, bytes: &[u8], places: &[String]) -> Result<Image> {
    let file = PeFile64::parse(bytes)?;
    let headers = file.nt_headers();
    let optional = headers.optional_header();
    let sections = sections(&file, bytes)?;
    let directories = file.data_directories();
    let delayed = directories
        .get(pe::IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT)
        .is_some_and(|directory| directory.virtual_address.get(LE) != 0);
    let mut exports = Vec::new();
    if let Some(table) = file.export_table()? {
        for export in table.exports()? {
            exports.push(match export.name {
                Some(name) => text(name),
                None => format!("#{}", export.ordinal.0),
            });
        }
    }
    Ok(Image {
        name,
        size: bytes.len() as u64,
        machine: headers.file_header().machine.get(LE).0,
        subsystem: optional.subsystem().0,
        characteristics: headers.file_header().characteristics.get(LE).0,
        dll_characteristics: optional.dll_characteristics().0,
        entry: optional.address_of_entry_point(),
        checksum: Checksum::of(&file, bytes)?,
        imports: imports(&file)?,
        delayed,
        exports,
        relocations: relocations(&file, bytes)?,
        frames: unwind::frames(&file, bytes)?,
        paths: paths(bytes, places),
        sections,
    })
}

fn sections(file: &PeFile64<'_>, bytes: &[u8]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for header in file.section_table().iter() {
        let (start, size) = (header.pointer_to_raw_data.get(LE), header.size_of_raw_data.get(LE));
        let end = u64::from(start) + u64::from(size);
        let name = text(header.raw_name());
        ensure!(end <= bytes.len() as u64, "section {name} ends at {end}, the file at {}", bytes.len());
        sections.push(Section {
            name,
            address: header.virtual_address.get(LE),
            size: header.virtual_size.get(LE),
            raw: size,
            flags: header.characteristics.get(LE).0,
        });
    }
    Ok(sections)
}

fn imports(file: &PeFile64<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let mut imports: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(table) = file.import_table()? else { return Ok(imports) };
    let mut descriptors = table.descriptors()?;
    while let Some(descriptor) = descriptors.next()? {
        let names = imports.entry(text(table.name(descriptor.name.get(LE))?)).or_default();
        // Linkers that bind early leave the names in the first of the two only.
        let by_name = match descriptor.original_first_thunk.get(LE) {
            0 => descriptor.first_thunk.get(LE),
            thunks => thunks,
        };
        let mut thunks = table.thunks(by_name)?;
        while let Some(thunk) = thunks.next::<pe::ImageNtHeaders64>()? {
            names.push(if thunk.is_ordinal() {
                format!("#{}", thunk.ordinal())
            } else {
                text(table.hint_name(thunk.address())?.1)
            });
        }
    }
    Ok(imports)
}

fn relocations(file: &PeFile64<'_>, bytes: &[u8]) -> Result<usize> {
    let mut count = 0;
    let Some(mut blocks) = file.data_directories().relocation_blocks(bytes, &file.section_table())? else {
        return Ok(0);
    };
    while let Some(block) = blocks.next()? {
        count += block.filter(|relocation| relocation.typ != pe::IMAGE_REL_BASED_ABSOLUTE).count();
    }
    Ok(count)
}

/// Returns the directories of this machine's files: the workspace, and the user's home.
fn places() -> Vec<String> {
    // A home that is the root of all would be found in every text with a slash.
    let home = std::env::home_dir().filter(|home| home.parent().is_some());
    let places = [Some(crate::workspace_root()), home].into_iter().flatten();
    places.map(|place| format!("{}{MAIN_SEPARATOR}", place.display())).collect()
}

/// Text that names files of the building machine: where panics come from, if they are not told to keep it to
/// themselves.
fn paths(bytes: &[u8], places: &[String]) -> Vec<String> {
    const MARKS: [&str; 4] =
        ["/.cargo/registry/", "/rustlib/src/", "\\.cargo\\registry\\", "\\rustlib\\src\\"];
    let marks: Vec<&[u8]> =
        MARKS.into_iter().chain(places.iter().map(String::as_str)).map(str::as_bytes).collect();
    let mut paths = Vec::new();
    for run in bytes.split(|byte| !(b' '..=b'~').contains(byte)) {
        let found = |mark: &&[u8]| run.windows(mark.len()).position(|window| window == *mark);
        if let Some(at) = marks.iter().find_map(found) {
            // Texts may be in an image without anything between them.
            let around = at.saturating_sub(BEFORE)..run.len().min(at + AFTER);
            paths.push(text(&run[around]));
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Image {
    /// The image as one JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "image": self.name,
            "size": self.size,
            "imports": self.imports,
            "exports": self.exports.len(),
            "nx": self.has(pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT.0),
            "aslr": self.has(pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE.0),
            "high_entropy": self.has(pe::IMAGE_DLLCHARACTERISTICS_HIGH_ENTROPY_VA.0),
            "checksum": self.checksum.stated,
            "relocations": self.relocations,
            "functions": self.frames.functions,
            "largest_frame": self.frames.largest,
            "sections": self.sections.iter().map(|section| serde_json::json!({
                "name": section.name, "size": section.size, "raw": section.raw, "access": section.access(),
            })).collect::<Vec<_>>(),
        })
    }

    fn has(&self, characteristic: u16) -> bool {
        self.dll_characteristics & characteristic != 0
    }
}

#[cfg(test)]
mod tests;
