//! Requirements on an image, and the report.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::checksum::Checksum;
use super::*;

/// The largest stack frame a function may have, in bytes. A kernel stack has 24 KiB, and callers of WSK's
/// callbacks have used some of it already.
const LARGE_FRAME: u32 = 4096;

/// Requirements on an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// The modules it may import from, in any case of letters.
    pub modules: &'static [&'static str],
    /// True if it runs in a real kernel: native subsystem, no unwinding, frames that fit a kernel stack.
    pub kernel: bool,
    /// The size that is the goal, in bytes.
    pub goal: Option<u64>,
}

/// A driver without a goal for its size.
pub(crate) const DRIVER: Expected =
    Expected { modules: &["ntoskrnl.exe", "netio.sys", "hal.dll"], kernel: true, goal: None };

/// The provider as a DLL: a user-mode library in kernel's clothes, for Wine.
pub(crate) const NETIO: Expected = Expected {
    modules: &[
        "advapi32.dll",
        "api-ms-win-core-synch-l1-2-0.dll",
        "api-ms-win-core-winrt-error-l1-1-0.dll",
        "bcryptprimitives.dll",
        "iphlpapi.dll",
        "kernel32.dll",
        "ktmw32.dll",
        "msvcrt.dll",
        "ntdll.dll",
        "ntoskrnl.exe",
        "oleaut32.dll",
        "userenv.dll",
        "ws2_32.dll",
    ],
    kernel: false,
    goal: None,
};

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The image must not be used.
    Error(String),
    /// The image works, but could be better.
    Warning(String),
}

impl Finding {
    /// Returns whether the image must not be used.
    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(text) => write!(f, "error: {text}"),
            Self::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}

impl Section {
    /// Returns its access rights, as `rwx`.
    pub(crate) fn access(&self) -> String {
        [
            (pe::IMAGE_SCN_MEM_READ.0, 'r'),
            (pe::IMAGE_SCN_MEM_WRITE.0, 'w'),
            (pe::IMAGE_SCN_MEM_EXECUTE.0, 'x'),
            (pe::IMAGE_SCN_MEM_DISCARDABLE.0, 'd'),
        ]
        .into_iter()
        .map(|(flag, letter)| if self.is(flag) { letter } else { '-' })
        .collect()
    }

    /// Returns whether the kernel keeps it in memory. Sections with these names may be paged out, or are
    /// discarded after the start.
    fn is_resident(&self) -> bool {
        let name = self.name.to_ascii_uppercase();
        !(self.is(pe::IMAGE_SCN_MEM_DISCARDABLE.0) || name.starts_with("PAGE") || name.starts_with("INIT"))
    }
}

impl Image {
    /// The processor it is for.
    fn machine(&self) -> &'static str {
        match pe::Machine(self.machine) {
            pe::IMAGE_FILE_MACHINE_AMD64 => "for x86-64",
            pe::IMAGE_FILE_MACHINE_ARM64 => "for 64-bit ARM",
            _ => "for another processor",
        }
    }

    /// Compares the image with what is expected of it.
    pub(crate) fn check(&self, expected: &Expected) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut error = |text: String| findings.push(Finding::Error(text));

        if self.machine != pe::IMAGE_FILE_MACHINE_AMD64.0 {
            error(format!("it is {}, not for x86-64", self.machine()));
        }
        for (module, names) in &self.imports {
            if !expected.modules.iter().any(|allowed| module.eq_ignore_ascii_case(allowed)) {
                error(format!("imports {} from {module}, which is not allowed", names.join(", ")));
            }
        }
        if self.delayed {
            error("delay-loaded imports, which the kernel does not support".into());
        }
        if !self.has(pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT.0) {
            error("not marked NX_COMPAT: link with /NXCOMPAT".into());
        }
        if !self.has(pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE.0) {
            error("not marked DYNAMIC_BASE: link with /DYNAMICBASE".into());
        }
        if self.relocations == 0 || self.characteristics & pe::IMAGE_FILE_RELOCS_STRIPPED.0 != 0 {
            error("no relocations: it can be loaded at one address only".into());
        }
        for section in &self.sections {
            let executable = section.is(pe::IMAGE_SCN_MEM_EXECUTE.0);
            if executable && section.is(pe::IMAGE_SCN_MEM_WRITE.0) {
                error(format!("section {} is writable and executable", section.name));
            }
            if expected.kernel && executable && !section.is_resident() {
                error(format!(
                    "section {} holds code that can be paged out: callbacks run at DISPATCH_LEVEL",
                    section.name
                ));
            }
        }
        match self.sections.iter().find(|section| section.contains(self.entry)) {
            Some(section) if section.is(pe::IMAGE_SCN_MEM_EXECUTE.0) => {}
            _ => error(format!("the entry point {:#x} is in no section with code", self.entry)),
        }
        if expected.kernel {
            if self.subsystem != pe::IMAGE_SUBSYSTEM_NATIVE.0 {
                error(format!("subsystem {} is not native: link with /SUBSYSTEM:NATIVE", self.subsystem));
            }
            let Checksum { stated, computed } = self.checksum;
            if stated != computed {
                error(format!("checksum {stated:#x} should be {computed:#x}: link with /RELEASE"));
            }
            if self.frames.largest > LARGE_FRAME {
                error(format!(
                    "the function at {:#x} takes {} bytes of stack, more than {LARGE_FRAME}; a kernel stack \
                     has 24 KiB",
                    self.frames.largest_at, self.frames.largest
                ));
            }
            if self.frames.handlers != 0 {
                error(format!(
                    "{} functions have exception handlers: build with panic = \"abort\"",
                    self.frames.handlers
                ));
            }
        }
        if let Some(path) = self.paths.first() {
            let text = format!("contains {} paths of the build machine, such as {path}", self.paths.len());
            // A driver is given away; the others are for this machine's tests.
            findings.push(if expected.kernel { Finding::Error(text) } else { Finding::Warning(text) });
        }
        self.warn(expected, &mut findings);
        findings
    }

    fn warn(&self, expected: &Expected, findings: &mut Vec<Finding>) {
        let mut warning = |text: String| findings.push(Finding::Warning(text));
        if !self.has(pe::IMAGE_DLLCHARACTERISTICS_HIGH_ENTROPY_VA.0) {
            warning("not marked HIGH_ENTROPY_VA".into());
        }
        if let Some(goal) = expected.goal.filter(|goal| self.size > *goal) {
            warning(format!("{} bytes exceed the goal of {goal}", self.size));
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |yes: bool| if yes { "yes" } else { "no" };
        writeln!(f, "{}: {} bytes, {}", self.name, self.size, self.machine())?;
        writeln!(
            f,
            "  native {}   NX {}   ASLR {} (high entropy {}, {} relocations)",
            mark(self.subsystem == pe::IMAGE_SUBSYSTEM_NATIVE.0),
            mark(self.has(pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT.0)),
            mark(self.has(pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE.0)),
            mark(self.has(pe::IMAGE_DLLCHARACTERISTICS_HIGH_ENTROPY_VA.0)),
            self.relocations,
        )?;
        writeln!(
            f,
            "  {} functions, largest frame {} bytes, {} with exception handlers",
            self.frames.functions, self.frames.largest, self.frames.handlers
        )?;
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        for section in &self.sections {
            table.add_row([
                Cell::new(format!("  {}", section.name)),
                Cell::new(section.access()),
                Cell::new(section.size).set_alignment(CellAlignment::Right),
                Cell::new("bytes"),
            ]);
        }
        writeln!(f, "{table}")?;
        for (module, names) in &self.imports {
            writeln!(f, "  {} from {module}", names.len())?;
            for line in wrapped(names, 110) {
                writeln!(f, "      {line}")?;
            }
        }
        Ok(())
    }
}

/// Names in lines of about this width.
fn wrapped(names: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for name in names {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + name.len() <= width => {
                line.push(' ');
                line.push_str(name);
            }
            _ => lines.push(name.clone()),
        }
    }
    lines
}
