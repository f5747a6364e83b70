//! Records as bytes.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    AddressBytes, Malformed, decode_accept_by, decode_answer, decode_reason, encode_accept_by, encode_answer,
    encode_reason, exactly, numbers, prefix,
};
use crate::record::{DisconnectKind, Inspection, Problem, Record, RequestId, Setting};

numbers!(encode_inspection, decode_inspection, Inspection, "detail": Accept = 1, Reject = 2, Pend = 3);
numbers!(encode_disconnect, decode_disconnect, DisconnectKind, "detail": Graceful = 1, Abortive = 2);
numbers!(encode_setting, decode_setting, Setting, "detail":
    Listen = 1, Accept = 2, Reject = 3, Ask = 4, Default = 5, VerdictTimeout = 6, AcceptBy = 7,
    MaxClients = 8, MaxPerSource = 9, IdleTimeout = 10);
numbers!(encode_problem, decode_problem, Problem, "first":
    WrongType = 1, TooLong = 2, NotText = 3, NotAnAddress = 4, NotANetwork = 5, UnknownWord = 6,
    OutOfRange = 7, Contradiction = 8, Unreadable = 9);

/// A record and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedRecord {
    /// Time since the driver was loaded, in units of 100 ns.
    pub time: Duration,
    /// The record.
    pub record: Record,
}

/// Header of the output of [`IOCTL_NEXT_RECORDS`](super::IOCTL_NEXT_RECORDS): 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordsHeader {
    /// Number of records that this handle has missed, because it did not fetch them in time.
    pub lost: U64,
    /// Number of records that follow.
    pub count: U32,
    /// Zero.
    pub reserved: U32,
}

/// A record: 72 bytes. `kind` says what the other fields hold; those that are not named are zero.
///
/// | kind | record | `detail` | others |
/// |---:|---|---|---|
/// | 1 | loaded | | `address`: where it listens |
/// | 2 | inspect | 1 accepted, 2 rejected, 3 pended | `key`, `serial`, `address`; `first`: reason or 0 |
/// | 3 | verdict | 1 accept, 2 reject | `key`, `serial` |
/// | 4 | abort | | `key`, `serial` |
/// | 5 | accepted | 1 by `WskAccept`, 2 by `WskAcceptEvent` | `address`: the other side |
/// | 6 | disconnect | 1 graceful, 2 abortive | `address`: the other side |
/// | 7 | closed | | `address`: the other side; `first`: bytes received; `second`: bytes sent |
/// | 8 | unloaded | | `first`: violations; `second`: leaks |
/// | 9 | policy | | `first`: networks |
/// | 10 | bad setting | in [`Setting::ALL`], from 1 | `first`: in [`Problem::ALL`], from 1; `second`: entry |
/// | 11 | failed | | `first`: the `NTSTATUS` |
/// | 12 | died | | `address`: where it listened |
/// | 13 | dropped | 1 policy, 2 full, 3 source, 4 memory, 5 idle | `address`: the other side |
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordBytes {
    /// Time since the driver was loaded, in units of 100 ns.
    pub time: U64,
    /// The record.
    pub kind: U16,
    /// Details, by kind.
    pub detail: U16,
    /// `WSK_INSPECT_ID.SerialNumber`.
    pub serial: U32,
    /// `WSK_INSPECT_ID.Key`.
    pub key: U64,
    /// An address.
    pub address: AddressBytes,
    /// Zero.
    pub reserved: U32,
    /// A number.
    pub first: U64,
    /// Another.
    pub second: U64,
}

/// The nanoseconds of one unit of time.
const UNIT: u32 = 100;
/// The units of a second.
const SECOND: u64 = 10_000_000;

/// A time in units, rounded down; one that is too long is cut.
fn units(time: Duration) -> u64 {
    time.as_secs().saturating_mul(SECOND).saturating_add((time.subsec_nanos() / UNIT).into())
}

const NO_ADDRESS: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl From<&TimedRecord> for RecordBytes {
    fn from(timed: &TimedRecord) -> Self {
        let mut id = RequestId { key: 0, serial: 0 };
        let (mut address, mut numbers) = (&NO_ADDRESS, (0, 0));
        let (kind, detail) = match &timed.record {
            Record::Loaded { local } => {
                address = local;
                (1, 0)
            }
            Record::Inspect { id: request, remote, action, reason } => {
                (id, address) = (*request, remote);
                numbers.0 = reason.map_or(0, encode_reason).into();
                (2, encode_inspection(*action))
            }
            Record::Verdict { id: request, action } => {
                id = *request;
                (3, encode_answer(*action))
            }
            Record::Abort { id: request } => {
                id = *request;
                (4, 0)
            }
            Record::Accepted { remote, by } => {
                address = remote;
                (5, encode_accept_by(*by))
            }
            Record::Disconnect { remote, kind } => {
                address = remote;
                (6, encode_disconnect(*kind))
            }
            Record::Closed { remote, received, sent } => {
                (address, numbers) = (remote, (*received, *sent));
                (7, 0)
            }
            Record::Unloaded { violations, leaks } => {
                numbers = (*violations, *leaks);
                (8, 0)
            }
            Record::Policy { networks } => {
                numbers.0 = (*networks).into();
                (9, 0)
            }
            Record::BadSetting { setting, problem, entry } => {
                numbers = (encode_problem(*problem).into(), (*entry).into());
                (10, encode_setting(*setting))
            }
            Record::Failed { status } => {
                numbers.0 = (*status).into();
                (11, 0)
            }
            Record::Died { local } => {
                address = local;
                (12, 0)
            }
            Record::Dropped { remote, reason } => {
                address = remote;
                (13, encode_reason(*reason))
            }
        };
        Self {
            time: U64::new(units(timed.time)),
            kind: U16::new(kind),
            detail: U16::new(detail.into()),
            serial: U32::new(id.serial),
            key: U64::new(id.key),
            address: (*address).into(),
            reserved: U32::ZERO,
            first: U64::new(numbers.0),
            second: U64::new(numbers.1),
        }
    }
}

/// A number that has to fit into one byte, to stand for anything.
fn small(number: u64, field: &'static str) -> Result<u8, Malformed> {
    u8::try_from(number).map_err(|_| Malformed::Field(field))
}

impl TimedRecord {
    /// Reads a record that is all there is.
    ///
    /// # Errors
    ///
    /// When the bytes are no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = exactly::<RecordBytes>(bytes)?;
        let id = RequestId { key: bytes.key.get(), serial: bytes.serial.get() };
        let remote = SocketAddr::try_from(&bytes.address)?;
        let detail = small(bytes.detail.get().into(), "detail")?;
        let (first, second) = (bytes.first.get(), bytes.second.get());
        let number = |number: u64, field| u32::try_from(number).map_err(|_| Malformed::Field(field));
        let record = match bytes.kind.get() {
            1 => Record::Loaded { local: remote },
            2 => {
                let reason = match small(first, "first")? {
                    0 => None,
                    reason => Some(decode_reason(reason)?),
                };
                Record::Inspect { id, remote, action: decode_inspection(detail)?, reason }
            }
            3 => Record::Verdict { id, action: decode_answer(detail)? },
            4 => Record::Abort { id },
            5 => Record::Accepted { remote, by: decode_accept_by(detail)? },
            6 => Record::Disconnect { remote, kind: decode_disconnect(detail)? },
            7 => Record::Closed { remote, received: first, sent: second },
            8 => Record::Unloaded { violations: first, leaks: second },
            9 => Record::Policy { networks: number(first, "first")? },
            10 => Record::BadSetting {
                setting: decode_setting(detail)?,
                problem: decode_problem(small(first, "first")?)?,
                entry: number(second, "second")?,
            },
            11 => Record::Failed { status: number(first, "first")? },
            12 => Record::Died { local: remote },
            13 => Record::Dropped { remote, reason: decode_reason(detail)? },
            _ => return Err(Malformed::Field("kind")),
        };
        let time = bytes.time.get();
        // Both parts fit: a second is ten million units.
        let time = Duration::new(time / SECOND, (time % SECOND) as u32 * UNIT);
        Ok(Self { time, record })
    }
}

/// Reads the output of [`IOCTL_NEXT_RECORDS`](super::IOCTL_NEXT_RECORDS): how many records this handle has
/// missed, and those that came.
///
/// # Errors
///
/// When the bytes do not begin with a header, or are not as many as it says. Each record tells by itself
/// whether it is one.
pub fn decode_records(
    bytes: &[u8],
) -> Result<(u64, impl Iterator<Item = Result<TimedRecord, Malformed>> + '_), Malformed> {
    let (header, records) = prefix::<RecordsHeader>(bytes)?;
    let expected = (header.count.get() as usize)
        .saturating_mul(size_of::<RecordBytes>())
        .saturating_add(size_of::<RecordsHeader>());
    if bytes.len() != expected {
        return Err(Malformed::Length { expected, found: bytes.len() });
    }
    let records = records.chunks_exact(size_of::<RecordBytes>());
    Ok((header.lost.get(), records.map(TimedRecord::decode)))
}
