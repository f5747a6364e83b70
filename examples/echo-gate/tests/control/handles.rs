//! File objects that end without a word, as those of a driver that Wine unloads.

use std::mem::forget;
use std::time::Duration;

use echo_gate::wire::IOCTL_NEXT_RECORDS;
use wsk_sys::STATUS_CANCELLED;

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
