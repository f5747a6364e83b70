//! The fields of an IRP that a client leaves alone (IRP-05).
//!
//! An IRP of the client's own is all zero when it is handed over, apart from what `IoInitializeIrp` writes
//! and from the completion routine in its next stack location. One from above has been filled by the I/O
//! manager, and only its cancel routine is the client's to take back.
//!
//! What drivers that work on Windows are known to leave there, because WSK overwrites or ignores it, is
//! advice.

use std::mem::offset_of;

use wsk_sys::nt::{self, IO_STACK_LOCATION, IRP};

use crate::host::Severity;
use crate::provider::Inner;

/// A field that is to be zero: where it is, how many bytes it has, its name, and how bad it is if it is not
/// zero.
type Field = (usize, usize, &'static str, Severity);

/// Of an IRP that the client owns. The offsets are those of 64-bit targets (contract 2.5).
const FIELDS: [Field; 15] = [
    (0x08, 8, "MdlAddress", Severity::Advice),
    (0x10, 4, "Flags", Severity::Violation),
    (0x18, 8, "AssociatedIrp", Severity::Violation),
    (0x40, 1, "RequestorMode", Severity::Violation),
    (0x44, 1, "Cancel", Severity::Advice),
    (0x48, 8, "UserIosb", Severity::Violation),
    (0x50, 8, "UserEvent", Severity::Violation),
    (0x58, 16, "Overlay", Severity::Violation),
    (0x70, 8, "UserBuffer", Severity::Violation),
    (0x78, 32, "Tail.Overlay.DriverContext", Severity::Advice),
    (0x98, 8, "Tail.Overlay.Thread", Severity::Violation),
    (0xA0, 8, "Tail.Overlay.AuxiliaryBuffer", Severity::Violation),
    (LIST_ENTRY, 16, "Tail.Overlay.ListEntry", Severity::Advice),
    (0xC0, 8, "Tail.Overlay.OriginalFileObject", Severity::Violation),
    (0x68, 8, CANCEL_ROUTINE, Severity::Violation),
];

const CANCEL_ROUTINE: &str = "CancelRoutine";
const LIST_ENTRY: usize = 0xA8;

/// Of the next stack location of such an IRP: all but `Control`, the completion routine and its context.
const LOCATION: [Field; 4] = [
    (0, 3, "the function codes and flags", Severity::Advice),
    (8, 32, "Parameters", Severity::Advice),
    (0x28, 8, "DeviceObject", Severity::Advice),
    (0x30, 8, "FileObject", Severity::Advice),
];

const _: () = assert!(offset_of!(IRP, MdlAddress) == 0x08 && offset_of!(IRP, CancelRoutine) == 0x68);
const _: () = assert!(offset_of!(IRP, Tail.Overlay.Thread) == 0x98 && size_of::<IRP>() == 0xD0);
const _: () = assert!(offset_of!(IO_STACK_LOCATION, CompletionRoutine) == 0x38);

/// # Safety
/// The bytes of the field can be read.
unsafe fn is_zero(object: *const u8, (offset, bytes, ..): Field) -> bool {
    (offset..offset + bytes).all(|at| {
        // SAFETY: the caller guarantees that the bytes of the field can be read.
        unsafe { object.wrapping_add(at).read() == 0 }
    })
}

/// Returns whether the list entry of an IRP is in a list: its neighbours say so.
///
/// # Safety
/// The IRP is alive.
unsafe fn is_listed(provider: &Inner, irp: *mut IRP) -> bool {
    let entry = irp.wrapping_byte_add(LIST_ENTRY);
    // SAFETY: the caller guarantees a live IRP; whatever is in the field is a pair of pointers.
    let [next, previous] = unsafe { entry.cast::<[*mut IRP; 2]>().read() };
    // They may be anything, and going: another thread of the client's may be taking the IRP's neighbors out
    // and freeing them.
    let points_back = |neighbour: *mut IRP, index: usize| {
        let link = neighbour.cast::<*mut IRP>().wrapping_add(index);
        provider.host.word_at(link.cast()) == Some(entry.addr())
    };
    provider.live_config.watches_memory() && points_back(next, 1) && points_back(previous, 0)
}

/// Reports fields that a client must not set in an IRP that it passes to `call`.
///
/// # Safety
/// `irp` points to a live IRP that is handed over and has a free stack location.
pub(super) unsafe fn check(provider: &Inner, call: &'static str, irp: *mut IRP) {
    // SAFETY: the caller guarantees that `irp` points to a live IRP that is handed over and has a free stack
    // location; the same holds for every line below.
    let location = unsafe { nt::irp_current_location(irp) };
    // SAFETY: see above.
    let count = unsafe { nt::irp_stack_count(irp) };
    let own = location == count + 1;
    for field in FIELDS {
        let (offset, _, name, mut severity) = field;
        // SAFETY: see above; the field lies inside the IRP.
        if !own && name != CANCEL_ROUTINE || unsafe { is_zero(irp.cast(), field) } {
            continue;
        }
        let mut what = "is set";
        // SAFETY: see above.
        if offset == LIST_ENTRY && unsafe { is_listed(provider, irp) } {
            severity = Severity::Violation;
            what = "is in a list";
        }
        report_field(provider, severity, call, &format!("{name} of the IRP {what}"));
    }
    // From here on only the provider sets a cancel routine, as on Windows.
    // SAFETY: see above.
    unsafe { nt::io_set_cancel_routine(irp, None) };
    if own {
        // SAFETY: see above.
        let next = unsafe { nt::io_get_next_irp_stack_location(irp) };
        for field in LOCATION {
            // SAFETY: there is a free location, and the field lies inside of it.
            if !unsafe { is_zero(next.cast(), field) } {
                let detail =
                    format!("{} is set in the next stack location of the IRP, which is WSK's", field.2);
                report_field(provider, field.3, call, &detail);
            }
        }
    }
}

fn report_field(provider: &Inner, severity: Severity, call: &'static str, detail: &str) {
    match severity {
        Severity::Violation => provider.violation("IRP-05", call, detail),
        Severity::Advice => provider.advice("IRP-05", call, detail),
    }
}
