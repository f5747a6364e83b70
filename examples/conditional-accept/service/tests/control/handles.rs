//! The share of a handle, independent of others; and file objects that are closed without a cleanup, as those
//! of a driver that Wine unloads.

use std::mem::forget;
use std::time::Duration;

use gate_service::control::MAX_HANDLES;
use gate_service::wire::{IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS};
use nt_user::Kernel;
use wsk_sys::{STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_INSUFFICIENT_RESOURCES};

use crate::io::{File, control, run};

/// The harness looks for what is left of them.
#[test]
fn handles_that_nobody_closes_are_closed_at_the_unload() {
    run(|passive| {
        let control = control(Duration::from_mins(1));
        let (first, second, third) = (File::open(&control), File::open(&control), File::open(&control));
        let waits = first.send(IOCTL_NEXT_RECORDS, &[], 4096);
        assert_eq!(control.status().counters.handles, 3);
        // One in the midst is closed in order.
        drop(second);
        assert_eq!(control.status().counters.handles, 2);
        control.shut_down(passive);
        assert_eq!(waits.wait(), Err(STATUS_CANCELLED));
        forget((first, third));
        // SAFETY: the two are forgotten, and with them their pointers.
        unsafe { control.close_handles() };
        assert_eq!(control.status().counters.handles, 0);
    });
}

/// There are so many handles and no more; one that cannot be made counts for none.
#[test]
fn handles_have_an_end() {
    run(|passive| {
        let control = control(Duration::from_mins(1));
        let mut files: Vec<_> = (0..MAX_HANDLES).map(|_| File::open(&control)).collect();
        assert_eq!(control.open().map(drop), Err(STATUS_INSUFFICIENT_RESOURCES));
        assert_eq!(control.status().counters.handles, MAX_HANDLES);
        drop(files.pop());
        let kernel = Kernel::current().expect("the test runs in a kernel");
        kernel.faults().fail_from(1);
        assert_eq!(control.open().map(drop), Err(STATUS_INSUFFICIENT_RESOURCES));
        kernel.faults().clear();
        files.push(File::open(&control));
        assert_eq!(control.open().map(drop), Err(STATUS_INSUFFICIENT_RESOURCES));
        drop(files);
        assert_eq!(control.status().counters.handles, 0);
        control.shut_down(passive);
    });
}

/// However many calls other handles leave, each has its own places.
#[test]
fn handles_do_not_take_each_others_places() {
    run(|passive| {
        let control = control(Duration::from_mins(1));
        for code in [IOCTL_NEXT_RECORDS, IOCTL_NEXT_QUESTION] {
            let greedy: Vec<_> = (0..40).map(|_| File::open(&control)).collect();
            let calls: Vec<_> =
                greedy.iter().flat_map(|file| (0..8).map(|_| file.send(code, &[], 4096))).collect();
            for file in &greedy {
                assert_eq!(file.call(code, &[], 4096), Err(STATUS_DEVICE_BUSY));
            }
            assert!(calls.iter().all(|call| !call.has_ended()), "{code:#X}: each handle has eight places");
            // One place more for each that is given back, in whatever order.
            for (at, call) in calls.iter().enumerate().step_by(3) {
                call.cancel();
                assert_eq!(call.wait(), Err(STATUS_CANCELLED));
                let again = greedy[at / 8].send(code, &[], 4096);
                assert!(!again.has_ended());
                again.cancel();
            }
            drop(greedy);
            for call in &calls {
                assert_eq!(call.wait(), Err(STATUS_CANCELLED));
            }
        }
        control.shut_down(passive);
    });
}
