//! Value of `Information` while a request that will make a socket is pending: something that looks like a
//! socket and is none.
//!
//! A client that takes the pending status for success finds it there, and shows by calling it (IRP-12).

use std::ptr;

use wsk_sys::{PWSK_SOCKET, WSK_SOCKET};

use super::{BASIC, CONNECTION, DATAGRAM, LISTEN, STREAM};
use crate::socket::Category;

/// The public head of a socket, with nothing behind it.
struct Decoy(WSK_SOCKET);

// SAFETY: the pointer inside leads to a static table, and nobody changes either.
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
