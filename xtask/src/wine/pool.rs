//! Account of the blocks of non-paged pool, from the log of the kernel's calls.
//!
//! ```text
//!  0024:0108:trace:ntoskrnl:ExAllocatePoolWithTag 64 pool 512 -> 00000000014A0370
//!  0024:0110:trace:ntoskrnl:ExFreePoolWithTag 00000000014A0370
//!  ─┬──           what the kernel was asked for ─┘                ─┬──────────────
//!   └ process                                                      └ address of the block in the process
//! ```
//!
//! The kernel writes the line of an allocation before a caller has the block, and that of a release before
//! the block is allocated again; so for each block the lines are in the order of the events.

use std::collections::HashMap;
use std::fmt;

/// `NonPagedPoolNx`. Drivers of ours take their memory from there, and none of Wine's own does.
const NON_PAGED_NX: &str = "512";

/// The blocks of non-paged pool that drivers had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Number of allocations.
    pub(crate) allocated: usize,
    /// The bytes of those that were not given back.
    pub(crate) left: Vec<usize>,
    /// Peak number of bytes.
    pub(crate) peak: usize,
}

impl Pool {
    /// Reads a log.
    pub(crate) fn in_log(log: &str) -> Self {
        let (mut pool, mut live, mut bytes) = (Self::default(), HashMap::new(), 0);
        for line in log.lines() {
            let Some((process, call)) = call(line) else { continue };
            if let Some((address, size)) = allocated(call) {
                pool.allocated += 1;
                bytes += size;
                pool.peak = pool.peak.max(bytes);
                live.insert((process, address), size);
            } else if let Some(address) = call.strip_prefix("ExFreePoolWithTag ")
                && let Some(size) = live.remove(&(process, address.trim_end()))
            {
                bytes -= size;
            }
        }
        pool.left = live.into_values().collect();
        pool.left.sort_unstable();
        pool
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocated, left, peak } = self;
        match left.len() {
            0 => write!(f, "{allocated} blocks, at most {peak} bytes at once"),
            count => write!(f, "{count} of {allocated} blocks are left, of {left:?} bytes"),
        }
    }
}

/// The process and the call of a line of the log.
fn call(line: &str) -> Option<(&str, &str)> {
    let (place, call) = line.split_once(":trace:ntoskrnl:")?;
    // Process and thread; a line without the process tells of no call that counts.
    Some((place.split_once(':')?.0, call))
}

/// The block and its size, if the call allocated one that counts.
fn allocated(call: &str) -> Option<(&str, usize)> {
    let (size, rest) = call.strip_prefix("ExAllocatePoolWithTag ")?.split_once(" pool ")?;
    let address = rest.strip_prefix(NON_PAGED_NX)?.strip_prefix(" -> ")?;
    Some((address.trim_end(), size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "\
        0024:0108:trace:ntoskrnl:ExAllocatePoolWithTag 64 pool 512 -> 00000000014A0370\n\
        0024:0108:warn:debugstr:vDbgPrintExWithPrefix 00000000:00000001: gate: ExFreePoolWithTag \
        00000000014A0370\n\
        0024:0110:trace:ntoskrnl:ExAllocatePoolWithTag 100 pool 512 -> 00000000014A0400\n\
        0024:0110:trace:ntoskrnl:ExFreePoolWithTag 00000000014A0370\r\n";

    #[test]
    fn a_block_that_is_not_given_back_is_left() {
        let pool = Pool::in_log(BOTH);
        assert_eq!(pool, Pool { allocated: 2, left: vec![100], peak: 164 });
        assert_eq!(pool.to_string(), "1 of 2 blocks are left, of [100] bytes");
        let given_back = format!("{BOTH}0024:0200:trace:ntoskrnl:ExFreePoolWithTag 00000000014A0400\n");
        let pool = Pool::in_log(&given_back);
        assert_eq!(pool.to_string(), "2 blocks, at most 164 bytes at once");
    }

    #[test]
    fn the_same_address_is_another_block_in_another_process_or_later() {
        let log = format!("{BOTH}0030:0200:trace:ntoskrnl:ExFreePoolWithTag 00000000014A0400\n");
        assert_eq!(Pool::in_log(&log).left, [100]);
        let again = format!("{BOTH}0024:0200:trace:ntoskrnl:ExFreePoolWithTag 00000000014A0400\n{BOTH}");
        assert_eq!(Pool::in_log(&again), Pool { allocated: 4, left: vec![100], peak: 164 });
    }

    #[test]
    fn other_pools_and_other_lines_do_not_count() {
        let log = "0024:0108:trace:ntoskrnl:ExAllocatePoolWithTag 64 pool 1 -> 00000000014A0370\n\
                   0108:trace:ntoskrnl:ExAllocatePoolWithTag 64 pool 512\n\
                   nonsense\n0024:trace:ntoskrnl:ExAllocatePoolWithTag x pool 512 -> 1\n";
        assert_eq!(Pool::in_log(log), Pool::default());
    }
}
