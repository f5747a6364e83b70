//! The machine of the process, with its settings and outputs.

use std::ffi::{CString, c_char};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use windows_registry::LOCAL_MACHINE;
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN, GetModuleHandleExW,
};
use wsk_provider::Provider;
use wsk_provider::transport::live::Live;

use super::{executive, unloads};
use crate::host::Process;
use crate::journal::{Journal, Output};
use crate::machine::Machine;
use crate::settings::Settings;

/// The registry key of the settings, below `HKEY_LOCAL_MACHINE`.
const PARAMETERS: &str = r"System\CurrentControlSet\Services\netio\Parameters";

/// The time after which the journal reports what a deregistration waits for.
const REPORT_AFTER: Duration = Duration::from_secs(5);

unsafe extern "C" {
    fn DbgPrint(format: *const c_char, ...) -> u32;
}

/// The machine of the process.
pub(super) fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        pin();
        let (settings, complaints) = Settings::read(find);
        let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(Debugger)];
        let mut problems = complaints;
        if let Some(path) = &settings.log {
            match LogFile::open(path) {
                Ok(file) => outputs.push(Box::new(file)),
                Err(error) => problems.push(format!("the log {} cannot be written: {error}", path.display())),
            }
        }
        let journal = Arc::new(Journal::new(outputs));
        log_panics(&journal);
        for problem in problems {
            journal.line(&format!("error {problem}"));
        }
        journal.line(&format!("loaded: {settings}"));
        if !unloads::watch() {
            journal.line("error the loader does not report unloaded images");
        }
        wsk_provider::set_provider_lookup(|| machine().running());
        let host = Arc::new(Process::new(Arc::clone(&journal)));
        let lines = Arc::clone(&journal);
        Machine::new(journal, REPORT_AFTER, move || {
            if let Some(line) = executive::prepare()? {
                lines.line(&line);
            }
            Ok(Provider::new(settings.config(), Arc::new(Live::with(settings.network())?), host.clone()))
        })
    })
}

/// The value of a setting.
fn find(name: &str) -> Option<String> {
    LOCAL_MACHINE.open(PARAMETERS).ok()?.get_string(name).ok()
}

/// Keeps the image loaded. Its threads end only after the last client has deregistered, and need its code
/// until then.
fn pin() {
    let mut module = ptr::null_mut();
    let inside: *const u16 = (pin as fn() as *const ()).cast();
    let flags = GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    // SAFETY: with these flags the name is an address inside a module, here this one.
    unsafe { GetModuleHandleExW(flags, inside, &raw mut module) };
}

/// Makes a panic end the process, as a bug check ends a machine, after a line in the journal.
fn log_panics(journal: &Arc<Journal>) {
    let journal = Arc::clone(journal);
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        journal.line(&format!("panic {panic}"));
        former(panic);
        // Unwinding the thread only would leave locks held and drivers waiting.
        std::process::abort();
    }));
}

/// The kernel's debugger output.
struct Debugger;

impl Output for Debugger {
    fn line(&self, line: &str) {
        let Ok(line) = CString::new(format!("{line}\n")) else { return };
        // SAFETY: the format takes one string, which ends with a null.
        unsafe { DbgPrint(c"%s".as_ptr(), line.as_ptr()) };
    }
}

/// A file that lines are appended to.
struct LogFile(File);

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }
}

impl Output for LogFile {
    fn line(&self, line: &str) {
        // One write, so that lines of several threads do not mix. A full disk must not stop a driver.
        let _ = (&self.0).write_all(format!("{line}\r\n").as_bytes());
    }
}
