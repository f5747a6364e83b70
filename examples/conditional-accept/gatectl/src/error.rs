//! Errors, each one line that says what to do about it.

use std::io;
use std::time::Duration;

use gate_protocol::wire::{Malformed, PROTOCOL_VERSION};
use windows_sys::Win32::Foundation as win;

use crate::device::RequestError;

/// Error of a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such device here and cannot be.
    #[error("the driver can only be controlled on Windows: run gatectl.exe there or under Wine")]
    NotWindows,
    /// The device does not exist.
    #[error("the driver is not running: sc start conditional_accept")]
    NotRunning,
    /// The device may not be opened.
    #[error("access to the driver is denied: run this as an administrator")]
    Denied,
    /// The device was there, and is not any more.
    #[error("the driver was stopped: to restart it, run sc start conditional_accept")]
    Gone,
    /// The driver says that it speaks another version.
    #[error(
        "the driver uses protocol version {0}, this program version {PROTOCOL_VERSION}: \
         use the gatectl that was built with the driver"
    )]
    Version(u32),
    /// The driver does not know a request, or did not take its bytes.
    #[error("the driver rejected the request ({0}): use the gatectl that was built with the driver")]
    NotUnderstood(&'static str),
    /// Output of the driver does not follow this version of the protocol.
    #[error(
        "cannot decode the {what} from the driver ({malformed}): \
         use the gatectl that was built with the driver"
    )]
    Malformed {
        /// Expected kind of output.
        what: &'static str,
        /// The defect.
        malformed: Malformed,
    },
    /// A request that is answered at once was not.
    #[error("the driver has not responded for {} seconds: check it with gatectl watch", .0.as_secs())]
    NoAnswer(Duration),
    /// The driver has no memory, or too many are asking already.
    #[error("the driver is out of resources: close other gatectl instances and retry")]
    NoRoom,
    /// Anything else that Windows says.
    #[error("{doing}: {}", describe(*.code))]
    Windows {
        /// The operation.
        doing: &'static str,
        /// The error code.
        code: u32,
    },
    /// Writing the output failed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// Something that the program itself needs could not be had.
    #[error("cannot {doing}: {source}")]
    Local {
        /// The operation.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The time was up, or the input at its end, before as many came as were asked for.
    #[error("only {found} of {wanted} {what} before {end}")]
    Incomplete {
        /// Number that came.
        found: u64,
        /// Number that was requested.
        wanted: u64,
        /// Of what.
        what: &'static str,
        /// Reason for the end.
        end: End,
    },
}

/// Reason that a following command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The number that was asked for.
    Count,
    /// The time that was given.
    Time,
    /// Ctrl-C.
    Stopped,
    /// There are no more answers.
    Input,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Count => "the last of them",
            Self::Time => "the time limit",
            Self::Stopped => "the interruption",
            Self::Input => "the end of the input",
        })
    }
}

impl Error {
    /// Returns the error for a device that could not be opened.
    pub fn opening(code: u32) -> Self {
        match code {
            win::ERROR_FILE_NOT_FOUND | win::ERROR_PATH_NOT_FOUND | win::ERROR_NO_SUCH_DEVICE => {
                Self::NotRunning
            }
            win::ERROR_ACCESS_DENIED => Self::Denied,
            code => Self::Windows { doing: "cannot open the driver's device", code },
        }
    }

    /// Returns the error for a request that failed and was not cancelled here.
    pub(crate) fn request(error: RequestError, limit: Duration) -> Self {
        match error {
            RequestError::Ended => Self::NoAnswer(limit),
            RequestError::Code(win::ERROR_INVALID_FUNCTION | win::ERROR_NOT_SUPPORTED) => {
                Self::NotUnderstood("unknown request")
            }
            RequestError::Code(
                win::ERROR_BAD_LENGTH
                | win::ERROR_INVALID_USER_BUFFER
                | win::ERROR_INSUFFICIENT_BUFFER
                | win::ERROR_MORE_DATA,
            ) => Self::NotUnderstood("invalid length"),
            RequestError::Code(win::ERROR_INVALID_PARAMETER | win::ERROR_INVALID_DATA) => {
                Self::NotUnderstood("invalid parameter")
            }
            RequestError::Code(
                win::ERROR_NOT_ENOUGH_MEMORY | win::ERROR_NO_SYSTEM_RESOURCES | win::ERROR_BUSY,
            ) => Self::NoRoom,
            // A driver that is being unloaded gives requests back as cancelled. Later ones are refused, under
            // Wine with "access denied", which for the device itself was settled when it was opened.
            RequestError::Code(
                win::ERROR_OPERATION_ABORTED
                | win::ERROR_ACCESS_DENIED
                | win::ERROR_DELETE_PENDING
                | win::ERROR_NO_SUCH_DEVICE
                | win::ERROR_DEVICE_REMOVED
                | win::ERROR_DEV_NOT_EXIST
                | win::ERROR_FILE_NOT_FOUND
                | win::ERROR_INVALID_HANDLE
                | win::ERROR_SERVICE_NOT_ACTIVE,
            ) => Self::Gone,
            RequestError::Code(code) => Self::Windows { doing: "the driver refused the request", code },
        }
    }

    /// True if the reader of the output has gone away: nothing to complain about.
    pub fn is_closed_pipe(&self) -> bool {
        // Wine has a code for it that the library does not take for one.
        let wine = Some(win::ERROR_PIPE_NOT_CONNECTED as i32);
        match self {
            Self::Output(error) if cfg!(windows) && error.raw_os_error() == wine => true,
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

/// Returns the Windows description of an error.
fn describe(code: u32) -> String {
    if cfg!(windows) {
        io::Error::from_raw_os_error(code as i32).to_string()
    } else {
        format!("Windows error {code}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_one_line_and_says_what_to_do() {
        let limit = Duration::from_secs(10);
        for (error, line) in [
            (Error::opening(2), "the driver is not running: sc start conditional_accept"),
            (Error::opening(5), "access to the driver is denied: run this as an administrator"),
            (Error::opening(32), "cannot open the driver's device: Windows error 32"),
            (
                Error::Version(7),
                "the driver uses protocol version 7, this program version 2: use the gatectl that was built \
                 with the driver",
            ),
            (
                Error::request(RequestError::Code(1), limit),
                "the driver rejected the request (unknown request): use the gatectl that was built with \
                 the driver",
            ),
            (
                Error::request(RequestError::Code(995), limit),
                "the driver was stopped: to restart it, run sc start conditional_accept",
            ),
            (
                Error::request(RequestError::Ended, limit),
                "the driver has not responded for 10 seconds: check it with gatectl watch",
            ),
            (
                Error::Malformed { what: "status", malformed: Malformed::Field("phase") },
                "cannot decode the status from the driver (field `phase` has an invalid value): \
                 use the gatectl that was built with the driver",
            ),
            (
                Error::Incomplete { found: 1, wanted: 3, what: "records came", end: End::Time },
                "only 1 of 3 records came before the time limit",
            ),
        ] {
            let text = error.to_string();
            if cfg!(windows) && line.contains("Windows error") {
                assert!(!text.contains('\n'), "{text}");
            } else {
                assert_eq!(text, line);
            }
        }
    }
}
