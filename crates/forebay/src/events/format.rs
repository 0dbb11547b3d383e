//! The bytes of a record and of a file of records. Pure; no file is touched here.
//!
//! A record is a header of 48 bytes and a payload of JSON, numbers in little-endian order:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic; its first byte never occurs in UTF-8, so no payload holds it |
//! | 4 | 2 | sort: 1 event, 2 boot |
//! | 6 | 2 | bytes of the payload |
//! | 8 | 8 | number of the event; in a boot record, of the event that follows |
//! | 16 | 8 | nanoseconds since boot |
//! | 24 | 8 | nanoseconds since 1970 |
//! | 32 | 8 | number of the cause, 0 for none |
//! | 40 | 4 | tag of the boot: CRC-32 of its id |
//! | 44 | 4 | CRC-32 of the 44 bytes before and of the payload |
//!
//! A boot record holds the id of the boot that its tag stands for. Each file begins with one, and
//! another follows where the boot changes.

use std::path::{Path, PathBuf};

use super::clock::BOOT_BYTES_MAX;
use super::record::{Event, EventId, from_unix_ns, to_unix_ns};
use crate::events::EventKind;

/// How every record begins; the last byte is the version of the format.
const MAGIC: [u8; 4] = [0xfb, b'E', b'V', 1];

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 48;

/// Where the header's CRC stands; it covers what is before.
const CRC_AT: usize = 44;

/// Longest payload. `EventKind::bounded` keeps below it.
pub(super) const PAYLOAD_BYTES_MAX: usize = 8_192;

/// Highest number of an event; what is above can only be damage.
pub(super) const SEQUENCE_MAX: u64 = i64::MAX as u64;

/// How the name of a file ends; the rest is the number of its first event.
const ENDING: &str = ".events";

/// Digits of that number.
const DIGITS: usize = 20;

/// The name of the file that begins with this number.
pub(super) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:0DIGITS$}{ENDING}"))
}

/// The number in the name of a file of the log.
pub(super) fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let first = digits.parse().ok().filter(|_| is_number)?;
    (first <= SEQUENCE_MAX).then_some(first)
}

/// What stands for a boot in the records.
pub(super) fn boot_tag(boot: &str) -> u32 {
    crc32fast::hash(boot.as_bytes())
}

/// A record that was found intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) sort: Sort,
    pub(super) sequence: u64,
    pub(super) mono_ns: u64,
    pub(super) wall_ns: u64,
    pub(super) cause: u64,
    pub(super) boot_tag: u32,
    pub(super) payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Event = 1,
    Boot = 2,
}

/// The tag of a boot record with the id that it stands for.
pub(super) fn boot_of(record: &Record<'_>) -> (u32, String) {
    let id = String::from_utf8_lossy(record.payload);
    let id = if id.len() <= BOOT_BYTES_MAX { id.into_owned() } else { String::new() };
    (record.boot_tag, id)
}

/// The event of a record. What happened in the boot `boot`; a payload that this release does not
/// know is kept as it is.
pub(super) fn event_of(record: &Record<'_>, boot: String) -> Event {
    let kind = serde_json::from_slice(record.payload).unwrap_or_else(|_| EventKind::Unknown {
        payload: String::from_utf8_lossy(record.payload).into_owned(),
    });
    Event {
        id: EventId(record.sequence),
        cause: (record.cause > 0).then_some(EventId(record.cause)),
        boot,
        mono_ns: record.mono_ns,
        wall: from_unix_ns(record.wall_ns),
        kind,
    }
}

/// Appends the record of an event. A payload that is too long, which bounded events never have,
/// leaves its text out.
pub(super) fn put_event(bytes: &mut Vec<u8>, event: &Event, boot_tag: u32) {
    let json = serde_json::to_vec(&event.kind).unwrap_or_default();
    let payload = if json.len() <= PAYLOAD_BYTES_MAX { json.as_slice() } else { b"{}" };
    put_payload(bytes, event, boot_tag, payload);
}

/// The same with a payload of its own.
pub(super) fn put_payload(bytes: &mut Vec<u8>, event: &Event, boot_tag: u32, payload: &[u8]) {
    let wall_ns = to_unix_ns(event.wall);
    let (sequence, mono_ns) = (event.id.0, event.mono_ns);
    let cause = event.cause.map_or(0, |cause| cause.0);
    let sort = Sort::Event;
    put(bytes, &Record { sort, sequence, mono_ns, wall_ns, cause, boot_tag, payload });
}

/// Appends the record that says which boot the tag of `boot` stands for.
pub(super) fn put_boot(bytes: &mut Vec<u8>, boot: &str, next: &Event) {
    let record = Record {
        sort: Sort::Boot,
        sequence: next.id.0,
        mono_ns: next.mono_ns,
        wall_ns: to_unix_ns(next.wall),
        cause: 0,
        boot_tag: boot_tag(boot),
        payload: boot.as_bytes(),
    };
    put(bytes, &record);
}

fn put(bytes: &mut Vec<u8>, record: &Record<'_>) {
    let start = bytes.len();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(record.sort as u16).to_le_bytes());
    let length = u16::try_from(record.payload.len()).unwrap_or_default();
    bytes.extend_from_slice(&length.to_le_bytes());
    for number in [record.sequence, record.mono_ns, record.wall_ns, record.cause] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&record.boot_tag.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(start..).unwrap_or_default());
    crc.update(record.payload);
    bytes.extend_from_slice(&crc.finalize().to_le_bytes());
    bytes.extend_from_slice(record.payload);
}

/// The record at the start of `bytes` with its length, if a whole and undamaged one is there.
fn take(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (magic, fields) = header.split_first_chunk::<4>()?;
    if *magic != MAGIC {
        return None;
    }
    let (sort, fields) = fields.split_first_chunk::<2>()?;
    let sort = match u16::from_le_bytes(*sort) {
        1 => Sort::Event,
        2 => Sort::Boot,
        _ => return None,
    };
    let (length, fields) = fields.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    if length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..length)?;
    let (sequence, fields) = fields.split_first_chunk()?;
    let (mono_ns, fields) = fields.split_first_chunk()?;
    let (wall_ns, fields) = fields.split_first_chunk()?;
    let (cause, fields) = fields.split_first_chunk()?;
    let (boot_tag, fields) = fields.split_first_chunk()?;
    let (crc, _) = fields.split_first_chunk()?;
    let mut computed = crc32fast::Hasher::new();
    computed.update(bytes.get(..CRC_AT)?);
    computed.update(payload);
    let sequence = u64::from_le_bytes(*sequence);
    if computed.finalize() != u32::from_le_bytes(*crc) || !(1..=SEQUENCE_MAX).contains(&sequence) {
        return None;
    }
    let record = Record {
        sort,
        sequence,
        mono_ns: u64::from_le_bytes(*mono_ns),
        wall_ns: u64::from_le_bytes(*wall_ns),
        cause: u64::from_le_bytes(*cause),
        boot_tag: u32::from_le_bytes(*boot_tag),
        payload,
    };
    Some((record, HEADER_BYTES + length))
}

/// What is in a file, piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// An undamaged record.
    Record(Record<'a>),
    /// Bytes that are none, up to the next record or to the end.
    Damage {
        /// The file ends here.
        is_tail: bool,
    },
}

/// Every piece of `bytes` with its offset and length: together they are all of it.
pub(super) fn pieces(bytes: &[u8]) -> impl Iterator<Item = (usize, usize, Piece<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let (start, piece, length) = match take(rest) {
            Some((record, length)) => (at, Piece::Record(record), length),
            None => {
                let next = next_record(rest);
                let piece = Piece::Damage { is_tail: next.is_none() };
                (at, piece, next.unwrap_or(rest.len()))
            }
        };
        at += length;
        Some((start, length, piece))
    })
}

/// Where the next record begins behind the start of `bytes`.
fn next_record(bytes: &[u8]) -> Option<usize> {
    let candidates = bytes.windows(MAGIC.len()).enumerate().skip(1);
    candidates
        .filter(|(_, window)| **window == MAGIC)
        .map(|(at, _)| at)
        .find(|at| bytes.get(*at..).and_then(take).is_some())
}
