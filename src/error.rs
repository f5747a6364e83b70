//! Errors: the operation that failed, and its status.

use core::fmt;

use wsk_sys::nt::NTSTATUS;

use crate::memory::OutOfMemory;

/// The result of an operation of this crate.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// A failed operation: which one, and the [`Status`] it failed with.
///
/// ```
/// use wsk::{Error, Operation, Status};
///
/// let error = Error::new(Operation::Bind, Status::ADDRESS_ALREADY_EXISTS);
/// assert_eq!(
///     error.to_string(),
///     "binding a socket (WskBind) failed with STATUS_ADDRESS_ALREADY_EXISTS (0xC000020A): \
///      another socket has this address and port; choose another, or close that socket first",
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    operation: Operation,
    status: Status,
}

impl Error {
    /// `operation` failed with `status`.
    pub fn new(operation: Operation, status: impl Into<Status>) -> Self {
        Self { operation, status: status.into() }
    }

    /// `operation` failed for lack of non-paged memory.
    pub fn out_of_memory(operation: Operation) -> Self {
        Self { operation, status: Status::INSUFFICIENT_RESOURCES }
    }

    /// Returns the operation that failed.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the status of the failure.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The same failure seen as one of a larger `operation`.
    #[must_use]
    pub fn during(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    /// Returns whether memory was out; the operation may be tried again later.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self.status, Status::INSUFFICIENT_RESOURCES | Status::NO_MEMORY)
    }

    /// Returns whether the cause may pass by itself, so that the same operation may succeed when it is tried
    /// again: resources were out, or the failure is that of one peer and says nothing about the next. That is
    /// a connection that was gone, or whose address is not usable, before it could be
    /// [accepted](Operation::Accept), and a datagram whose fate a [receive](Operation::ReceiveFrom) of
    /// another one reports.
    ///
    /// A loop goes on after such an error, but not at once: [`Listener::pause`](crate::Listener::pause) needs
    /// no memory.
    ///
    /// ```
    /// use wsk::{Error, Operation, Status};
    ///
    /// assert!(Error::new(Operation::Accept, Status::INSUFFICIENT_RESOURCES).is_transient());
    /// assert!(Error::new(Operation::Accept, Status::CONNECTION_RESET).is_transient());
    /// // The listener has died, or is closed.
    /// assert!(!Error::new(Operation::Accept, Status::FILE_FORCED_CLOSED).is_transient());
    /// assert!(!Error::new(Operation::Accept, Status::CANCELLED).is_transient());
    /// // This connection is gone for good.
    /// assert!(!Error::new(Operation::Receive, Status::CONNECTION_RESET).is_transient());
    /// ```
    pub fn is_transient(&self) -> bool {
        match self.status {
            Status::INSUFFICIENT_RESOURCES | Status::NO_MEMORY | Status::TOO_MANY_ADDRESSES => true,
            Status::CONNECTION_RESET
            | Status::CONNECTION_ABORTED
            | Status::CONNECTION_DISCONNECTED
            | Status::CONNECTION_REFUSED
            | Status::CONNECTION_INVALID
            | Status::INVALID_CONNECTION
            | Status::REMOTE_DISCONNECT
            | Status::LOCAL_DISCONNECT
            | Status::GRACEFUL_DISCONNECT
            | Status::REQUEST_ABORTED
            | Status::HOST_UNREACHABLE
            | Status::NETWORK_UNREACHABLE
            | Status::PORT_UNREACHABLE
            | Status::PROTOCOL_UNREACHABLE
            | Status::HOPLIMIT_EXCEEDED
            | Status::IO_TIMEOUT
            | Status::INVALID_ADDRESS => {
                matches!(self.operation, Operation::Accept | Operation::ReceiveFrom)
            }
            _ => false,
        }
    }

    /// Returns whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.status == Status::CANCELLED
    }

    /// Returns whether a time limit passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.status, Status::IO_TIMEOUT | Status::TIMEOUT)
    }

    /// Returns whether the socket is dead: nothing but closing it is possible (rule LIFE-14).
    pub fn is_socket_dead(&self) -> bool {
        self.status == Status::FILE_FORCED_CLOSED
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, status } = self;
        write!(f, "{}", operation.description())?;
        if let Some(function) = operation.function() {
            write!(f, " ({function})")?;
        }
        write!(f, " failed with {status}")?;
        match status.advice() {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {})", self.operation, self.status)
    }
}

impl core::error::Error for Error {}

impl From<OutOfMemory> for Error {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::out_of_memory(Operation::Allocate)
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident, $function:expr, $description:literal;)*) => {
        /// Operation of this crate, as the subject of an [`Error`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The function of WSK or of the kernel that the operation stands for, if it is one.
            pub const fn function(self) -> Option<&'static str> {
                match self { $(Self::$name => $function,)* }
            }

            /// The operation in words, as the subject of a sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

operations! {
    /// `WskRegister`.
    Register, Some("WskRegister"), "registering with WSK";
    /// `WskCaptureProviderNPI`.
    Capture, Some("WskCaptureProviderNPI"), "waiting for the WSK subsystem";
    /// `WskQueryProviderCharacteristics`.
    QueryCharacteristics, Some("WskQueryProviderCharacteristics"), "asking for the WSK versions";
    /// `WskControlClient`.
    ControlClient, Some("WskControlClient"), "controlling the WSK client";
    /// `WskSocket`.
    Socket, Some("WskSocket"), "creating a socket";
    /// `WskSocketConnect`.
    SocketConnect, Some("WskSocketConnect"), "creating a connected socket";
    /// `WskBind`.
    Bind, Some("WskBind"), "binding a socket";
    /// `WskAccept`.
    Accept, Some("WskAccept"), "accepting a connection";
    /// `WskInspectComplete`.
    InspectComplete, Some("WskInspectComplete"), "deciding a pended connection request";
    /// `SIO_WSK_QUERY_INSPECT_ID`.
    QueryInspectId, Some("SIO_WSK_QUERY_INSPECT_ID"), "asking which inspection a connection had";
    /// `WskSend`.
    Send, Some("WskSend"), "sending";
    /// `WskReceive`.
    Receive, Some("WskReceive"), "receiving";
    /// `WskSendTo`.
    SendTo, Some("WskSendTo"), "sending a datagram";
    /// `WskReceiveFrom`.
    ReceiveFrom, Some("WskReceiveFrom"), "receiving a datagram";
    /// `WskDisconnect`.
    Disconnect, Some("WskDisconnect"), "disconnecting";
    /// `WskControlSocket` with `WskSetOption`.
    SetOption, Some("WskControlSocket"), "setting a socket option";
    /// `WskControlSocket` with `WskGetOption`.
    GetOption, Some("WskControlSocket"), "reading a socket option";
    /// `WskControlSocket` with `WskIoctl`.
    Ioctl, Some("WskControlSocket"), "controlling a socket";
    /// `SO_WSK_EVENT_CALLBACK`.
    EventCallbacks, Some("SO_WSK_EVENT_CALLBACK"), "switching event callbacks";
    /// `WskGetLocalAddress`.
    LocalAddress, Some("WskGetLocalAddress"), "asking for the local address";
    /// Memory from non-paged pool.
    Allocate, Some("ExAllocatePoolWithTag"), "allocating memory";
    /// A data buffer and its memory descriptor list.
    Buffer, None, "using a buffer";
    /// A thread of the executor.
    Thread, Some("PsCreateSystemThread"), "creating a system thread";
    /// A new task on the executor.
    Spawn, None, "starting a task";
    /// Waiting for a future in passive code.
    Wait, Some("KeWaitForSingleObject"), "waiting";
    /// A timer.
    Timer, Some("KeSetTimer"), "setting a timer";
    /// A time limit around another operation.
    Timeout, None, "waiting for an operation with a time limit";
    /// Starting the network part of a driver.
    Network, None, "starting the network";
}

/// An `NTSTATUS`.
///
/// `STATUS_PENDING` and `STATUS_EVENT_PENDING` count as success by their number (rule LAY-39); this crate
/// never hands either out as the result of a finished operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(NTSTATUS);

impl Status {
    /// The status with this number.
    pub const fn from_raw(raw: NTSTATUS) -> Self {
        Self(raw)
    }

    /// The number.
    pub const fn raw(self) -> NTSTATUS {
        self.0
    }

    /// `NT_SUCCESS`: success and information, but neither warnings nor errors.
    pub const fn is_success(self) -> bool {
        self.0 >= 0
    }
}

impl From<NTSTATUS> for Status {
    fn from(raw: NTSTATUS) -> Self {
        Self(raw)
    }
}

/// The name of the header and the number, or the number alone.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:08X})", self.0),
            None => write!(f, "status 0x{:08X}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! statuses {
    ($($name:ident = $status:ident $(: $advice:literal)?;)*) => {
        impl Status {
            $(
                #[doc = concat!("`", stringify!($status), "`.")]
                pub const $name: Self = Self(wsk_sys::$status);
            )*

            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in `ntstatus.h`, for the statuses that WSK uses.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($status)),)*
                    _ => None,
                }
            }

            /// Returns what the status means for a user of WSK, and what to do, for the common ones.
            const fn advice(self) -> Option<&'static str> {
                match self {
                    $($(Self::$name => Some($advice),)?)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = STATUS_SUCCESS;
    TIMEOUT = STATUS_TIMEOUT: "the time limit passed";
    PENDING = STATUS_PENDING;
    RECEIVE_PARTIAL = STATUS_RECEIVE_PARTIAL;
    EVENT_PENDING = STATUS_EVENT_PENDING;
    BUFFER_OVERFLOW = STATUS_BUFFER_OVERFLOW: "the message is longer than the buffer; the rest is lost";
    ALREADY_DISCONNECTED = STATUS_ALREADY_DISCONNECTED: "the connection was disconnected before";
    UNSUCCESSFUL = STATUS_UNSUCCESSFUL;
    NOT_IMPLEMENTED = STATUS_NOT_IMPLEMENTED: "this version of WSK does not have the function";
    INVALID_HANDLE = STATUS_INVALID_HANDLE;
    INVALID_PARAMETER = STATUS_INVALID_PARAMETER: "WSK does not accept this value for this socket";
    INVALID_DEVICE_REQUEST = STATUS_INVALID_DEVICE_REQUEST: "this kind of socket does not have the operation";
    END_OF_FILE = STATUS_END_OF_FILE: "the peer ended its side before all bytes had come";
    MORE_PROCESSING_REQUIRED = STATUS_MORE_PROCESSING_REQUIRED;
    NO_MEMORY = STATUS_NO_MEMORY: "memory is exhausted; try again when load has fallen";
    ACCESS_DENIED = STATUS_ACCESS_DENIED: "the security descriptor or a filter forbids it";
    BUFFER_TOO_SMALL = STATUS_BUFFER_TOO_SMALL: "the buffer is too small for the answer";
    SHARING_VIOLATION = STATUS_SHARING_VIOLATION: "another socket uses this address exclusively";
    INTEGER_OVERFLOW = STATUS_INTEGER_OVERFLOW;
    INSUFFICIENT_RESOURCES = STATUS_INSUFFICIENT_RESOURCES: "memory is exhausted; try again later";
    DEVICE_NOT_READY = STATUS_DEVICE_NOT_READY: "the network stack is not ready yet; try again later";
    IO_TIMEOUT = STATUS_IO_TIMEOUT: "the time limit passed";
    FILE_FORCED_CLOSED = STATUS_FILE_FORCED_CLOSED: "the socket is dead; close it and open a new one";
    NOT_SUPPORTED = STATUS_NOT_SUPPORTED: "this transport does not support it";
    BAD_NETWORK_PATH = STATUS_BAD_NETWORK_PATH;
    REQUEST_NOT_ACCEPTED = STATUS_REQUEST_NOT_ACCEPTED: "the request cannot be carried out at once";
    CANCELLED = STATUS_CANCELLED: "the request was cancelled";
    LOCAL_DISCONNECT = STATUS_LOCAL_DISCONNECT: "this side has disconnected";
    REMOTE_DISCONNECT = STATUS_REMOTE_DISCONNECT: "the peer has disconnected";
    INVALID_CONNECTION = STATUS_INVALID_CONNECTION: "the socket is not connected";
    INVALID_ADDRESS = STATUS_INVALID_ADDRESS: "the address is not usable here";
    INVALID_DEVICE_STATE = STATUS_INVALID_DEVICE_STATE: "the socket is in the wrong state, such as not bound";
    INVALID_BUFFER_SIZE = STATUS_INVALID_BUFFER_SIZE: "the range or size does not fit the buffer";
    INVALID_ADDRESS_COMPONENT = STATUS_INVALID_ADDRESS_COMPONENT: "the address is not usable here";
    TOO_MANY_ADDRESSES = STATUS_TOO_MANY_ADDRESSES: "all dynamic ports are taken";
    ADDRESS_ALREADY_EXISTS = STATUS_ADDRESS_ALREADY_EXISTS:
        "another socket has this address and port; choose another, or close that socket first";
    ADDRESS_CLOSED = STATUS_ADDRESS_CLOSED;
    CONNECTION_DISCONNECTED = STATUS_CONNECTION_DISCONNECTED: "the connection is gone";
    CONNECTION_RESET = STATUS_CONNECTION_RESET: "the peer has reset the connection";
    DATA_NOT_ACCEPTED = STATUS_DATA_NOT_ACCEPTED;
    NOT_FOUND = STATUS_NOT_FOUND: "there is no such name or object";
    CONNECTION_REFUSED = STATUS_CONNECTION_REFUSED: "no socket listens at the remote address";
    GRACEFUL_DISCONNECT = STATUS_GRACEFUL_DISCONNECT: "the connection was disconnected in good order";
    ADDRESS_ALREADY_ASSOCIATED = STATUS_ADDRESS_ALREADY_ASSOCIATED: "the socket is bound already";
    ADDRESS_NOT_ASSOCIATED = STATUS_ADDRESS_NOT_ASSOCIATED: "the socket is not bound";
    CONNECTION_INVALID = STATUS_CONNECTION_INVALID: "the socket is not connected";
    CONNECTION_ACTIVE = STATUS_CONNECTION_ACTIVE: "the socket is connected already";
    NETWORK_UNREACHABLE = STATUS_NETWORK_UNREACHABLE: "there is no route to the remote network";
    HOST_UNREACHABLE = STATUS_HOST_UNREACHABLE: "there is no route to the remote host";
    PROTOCOL_UNREACHABLE = STATUS_PROTOCOL_UNREACHABLE;
    PORT_UNREACHABLE = STATUS_PORT_UNREACHABLE: "no socket is bound to the remote port";
    REQUEST_ABORTED = STATUS_REQUEST_ABORTED: "the request was aborted";
    CONNECTION_ABORTED = STATUS_CONNECTION_ABORTED: "this side has aborted the connection";
    NO_MATCH = STATUS_NO_MATCH: "the name is not known";
    DEVICE_BUSY = STATUS_DEVICE_BUSY: "another receive is under way on this connection; one at a time";
    NOINTERFACE = STATUS_NOINTERFACE: "this version of WSK is not offered; ask for 1.0";
    HOPLIMIT_EXCEEDED = STATUS_HOPLIMIT_EXCEEDED;
    PROTOCOL_NOT_SUPPORTED = STATUS_PROTOCOL_NOT_SUPPORTED: "this protocol is not installed";
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::fmt::Write as _;
    use std::string::String;
    use std::vec::Vec;

    use crate::error::{Error, Operation, Status};

    /// All pairs of an operation and a status that are transient; a status that is so for every operation
    /// has a star.
    #[test]
    fn the_errors_that_pass() {
        let mut table = String::new();
        for &status in Status::ALL {
            let passes = |operation: &&Operation| Error::new(**operation, status).is_transient();
            let operations: Vec<_> = Operation::ALL.iter().filter(passes).collect();
            if operations.is_empty() {
                continue;
            }
            let of = if operations.len() == Operation::ALL.len() {
                String::from("*")
            } else {
                std::format!("{operations:?}")
            };
            writeln!(table, "{}: {of}", status.name().unwrap_or("?")).expect("a string takes all");
        }
        assert_eq!(
            table,
            "STATUS_NO_MEMORY: *\n\
             STATUS_INSUFFICIENT_RESOURCES: *\n\
             STATUS_IO_TIMEOUT: [Accept, ReceiveFrom]\n\
             STATUS_LOCAL_DISCONNECT: [Accept, ReceiveFrom]\n\
             STATUS_REMOTE_DISCONNECT: [Accept, ReceiveFrom]\n\
             STATUS_INVALID_CONNECTION: [Accept, ReceiveFrom]\n\
             STATUS_INVALID_ADDRESS: [Accept, ReceiveFrom]\n\
             STATUS_TOO_MANY_ADDRESSES: *\n\
             STATUS_CONNECTION_DISCONNECTED: [Accept, ReceiveFrom]\n\
             STATUS_CONNECTION_RESET: [Accept, ReceiveFrom]\n\
             STATUS_CONNECTION_REFUSED: [Accept, ReceiveFrom]\n\
             STATUS_GRACEFUL_DISCONNECT: [Accept, ReceiveFrom]\n\
             STATUS_CONNECTION_INVALID: [Accept, ReceiveFrom]\n\
             STATUS_NETWORK_UNREACHABLE: [Accept, ReceiveFrom]\n\
             STATUS_HOST_UNREACHABLE: [Accept, ReceiveFrom]\n\
             STATUS_PROTOCOL_UNREACHABLE: [Accept, ReceiveFrom]\n\
             STATUS_PORT_UNREACHABLE: [Accept, ReceiveFrom]\n\
             STATUS_REQUEST_ABORTED: [Accept, ReceiveFrom]\n\
             STATUS_CONNECTION_ABORTED: [Accept, ReceiveFrom]\n\
             STATUS_HOPLIMIT_EXCEEDED: [Accept, ReceiveFrom]\n"
        );
        // A status without a name is an unknown cause.
        assert!(!Error::new(Operation::Accept, Status::from_raw(-1)).is_transient());
    }
}
