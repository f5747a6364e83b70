//! Value of `Information` while a request that creates a socket is pending: an object that only looks like a
//! socket.
//!
//! A client that mistakes the pending status for success uses it, and is detected by the call (IRP-12).

use std::ptr;

use wsk_sys::{PWSK_SOCKET, WSK_SOCKET};

use super::{BASIC, CONNECTION, DATAGRAM, LISTEN, STREAM};
use crate::socket::Category;

/// The public head of a socket, without further state.
struct Decoy(WSK_SOCKET);

// SAFETY: the pointer inside points to a static table; both are immutable.
unsafe impl Sync for Decoy {}

static DECOYS: [Decoy; 5] = [
    Decoy(WSK_SOCKET { Dispatch: (&raw const BASIC).cast() }),
    Decoy(WSK_SOCKET { Dispatch: (&raw const LISTEN).cast() }),
    Decoy(WSK_SOCKET { Dispatch: (&raw const CONNECTION).cast() }),
    Decoy(WSK_SOCKET { Dispatch: (&raw const DATAGRAM).cast() }),
    Decoy(WSK_SOCKET { Dispatch: (&raw const STREAM).cast() }),
];

/// The decoy of a category, as `Information`.
pub(crate) fn of(category: Category) -> usize {
    ptr::from_ref(&DECOYS[category as usize].0) as usize
}

/// Returns whether this is a decoy.
pub(crate) fn is_one(socket: PWSK_SOCKET) -> bool {
    DECOYS.as_ptr_range().contains(&socket.cast::<Decoy>().cast_const())
}
