//! `NTSTATUS` values that WSK calls and callbacks use.

use crate::nt::NTSTATUS;

/// Returns true if a status reports success (`NT_SUCCESS`).
///
/// Pending statuses count as success: test for [`STATUS_PENDING`] and [`STATUS_EVENT_PENDING`] by equality.
pub const fn nt_success(status: NTSTATUS) -> bool {
    status >= 0
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: NTSTATUS = $value as NTSTATUS;)*

        /// The header's name of a status of this module.
        pub const fn status_name(status: NTSTATUS) -> Option<&'static str> {
            match status {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

statuses! {
    /// Done.
    STATUS_SUCCESS = 0x0000_0000_u32;
    /// A wait timed out; a success code.
    STATUS_TIMEOUT = 0x0000_0102_u32;
    /// Under way: a success code, but not done.
    STATUS_PENDING = 0x0000_0103_u32;
    /// Part of a message was received; a success code.
    STATUS_RECEIVE_PARTIAL = 0x4000_000F_u32;
    /// The event is off as soon as the running callbacks have returned: a success code, but not done.
    STATUS_EVENT_PENDING = 0x4000_0013_u32;
    /// The output did not fit; a warning.
    STATUS_BUFFER_OVERFLOW = 0x8000_0005_u32;
    /// Another request of this kind is under way; a warning. Not used by WSK: a status of the library.
    STATUS_DEVICE_BUSY = 0x8000_0011_u32;
    /// The connection was already closed; a warning.
    STATUS_ALREADY_DISCONNECTED = 0x8000_0025_u32;
    /// The operation failed.
    STATUS_UNSUCCESSFUL = 0xC000_0001_u32;
    /// There is no such function.
    STATUS_NOT_IMPLEMENTED = 0xC000_0002_u32;
    /// The handle is not valid.
    STATUS_INVALID_HANDLE = 0xC000_0008_u32;
    /// A parameter is not valid.
    STATUS_INVALID_PARAMETER = 0xC000_000D_u32;
    /// The request does not suit this object.
    STATUS_INVALID_DEVICE_REQUEST = 0xC000_0010_u32;
    /// The stream ended before all bytes had come. Not used by WSK: a status of the library.
    STATUS_END_OF_FILE = 0xC000_0011_u32;
    /// Result of a completion routine: the IRP stays with its owner.
    STATUS_MORE_PROCESSING_REQUIRED = 0xC000_0016_u32;
    /// Memory ran out.
    STATUS_NO_MEMORY = 0xC000_0017_u32;
    /// Not permitted.
    STATUS_ACCESS_DENIED = 0xC000_0022_u32;
    /// The buffer is too small.
    STATUS_BUFFER_TOO_SMALL = 0xC000_0023_u32;
    /// In use by another user that does not share.
    STATUS_SHARING_VIOLATION = 0xC000_0043_u32;
    /// A number does not fit.
    STATUS_INTEGER_OVERFLOW = 0xC000_0095_u32;
    /// Memory or another resource ran out.
    STATUS_INSUFFICIENT_RESOURCES = 0xC000_009A_u32;
    /// The provider is not there (yet).
    STATUS_DEVICE_NOT_READY = 0xC000_00A3_u32;
    /// The peer did not answer in time.
    STATUS_IO_TIMEOUT = 0xC000_00B5_u32;
    /// The socket is dead and must be closed.
    STATUS_FILE_FORCED_CLOSED = 0xC000_00B6_u32;
    /// The request is not supported.
    STATUS_NOT_SUPPORTED = 0xC000_00BB_u32;
    /// There is no way to the peer.
    STATUS_BAD_NETWORK_PATH = 0xC000_00BE_u32;
    /// Callback result: not taken. Also: cannot be done without an IRP.
    STATUS_REQUEST_NOT_ACCEPTED = 0xC000_00D0_u32;
    /// The request was cancelled.
    STATUS_CANCELLED = 0xC000_0120_u32;
    /// Closed by this side.
    STATUS_LOCAL_DISCONNECT = 0xC000_013B_u32;
    /// Closed by the peer.
    STATUS_REMOTE_DISCONNECT = 0xC000_013C_u32;
    /// The connection is not valid.
    STATUS_INVALID_CONNECTION = 0xC000_0140_u32;
    /// The address is not valid.
    STATUS_INVALID_ADDRESS = 0xC000_0141_u32;
    /// The socket is in the wrong state.
    STATUS_INVALID_DEVICE_STATE = 0xC000_0184_u32;
    /// The size of a buffer is wrong.
    STATUS_INVALID_BUFFER_SIZE = 0xC000_0206_u32;
    /// Part of the address is not valid.
    STATUS_INVALID_ADDRESS_COMPONENT = 0xC000_0207_u32;
    /// Addresses ran out.
    STATUS_TOO_MANY_ADDRESSES = 0xC000_0209_u32;
    /// The local address is in use.
    STATUS_ADDRESS_ALREADY_EXISTS = 0xC000_020A_u32;
    /// The local address is gone.
    STATUS_ADDRESS_CLOSED = 0xC000_020B_u32;
    /// The connection was closed.
    STATUS_CONNECTION_DISCONNECTED = 0xC000_020C_u32;
    /// The peer reset the connection.
    STATUS_CONNECTION_RESET = 0xC000_020D_u32;
    /// Callback result: the indicated data stays with the provider.
    STATUS_DATA_NOT_ACCEPTED = 0xC000_021B_u32;
    /// The object was not found.
    STATUS_NOT_FOUND = 0xC000_0225_u32;
    /// The peer refused the connection.
    STATUS_CONNECTION_REFUSED = 0xC000_0236_u32;
    /// The connection is being closed gracefully.
    STATUS_GRACEFUL_DISCONNECT = 0xC000_0237_u32;
    /// The endpoint has an address already.
    STATUS_ADDRESS_ALREADY_ASSOCIATED = 0xC000_0238_u32;
    /// The endpoint has no address yet.
    STATUS_ADDRESS_NOT_ASSOCIATED = 0xC000_0239_u32;
    /// There is no such connection.
    STATUS_CONNECTION_INVALID = 0xC000_023A_u32;
    /// The connection exists already.
    STATUS_CONNECTION_ACTIVE = 0xC000_023B_u32;
    /// The network cannot be reached.
    STATUS_NETWORK_UNREACHABLE = 0xC000_023C_u32;
    /// The host cannot be reached.
    STATUS_HOST_UNREACHABLE = 0xC000_023D_u32;
    /// The peer does not speak the protocol.
    STATUS_PROTOCOL_UNREACHABLE = 0xC000_023E_u32;
    /// No socket listens on the port.
    STATUS_PORT_UNREACHABLE = 0xC000_023F_u32;
    /// The request was aborted.
    STATUS_REQUEST_ABORTED = 0xC000_0240_u32;
    /// The connection was aborted by this side.
    STATUS_CONNECTION_ABORTED = 0xC000_0241_u32;
    /// The name has no match.
    STATUS_NO_MATCH = 0xC000_0272_u32;
    /// The version asked for is not supported.
    STATUS_NOINTERFACE = 0xC000_02B9_u32;
    /// The hop limit ran out.
    STATUS_HOPLIMIT_EXCEEDED = 0xC000_A012_u32;
    /// The protocol is not supported.
    STATUS_PROTOCOL_NOT_SUPPORTED = 0xC000_A013_u32;
}
