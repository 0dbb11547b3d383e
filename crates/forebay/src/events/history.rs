//! What reading a log gives: events, and where the log is damaged or has a hole.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::record::{Event, EventId};

/// What could be read from the folder of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventHistory {
    /// The events, by rising number; the newest 262,144 of them.
    pub events: Vec<Event>,
    /// Older events that were read and left out because there were more than that.
    pub events_left_out: u64,
    /// Places where something was no record, in the order of the files; the first 1,024 of them.
    pub damage: Vec<Damage>,
    /// Damaged places that were left out because there were more than that.
    pub damage_left_out: u64,
    /// Numbers that are missing between others and that no [`Lost`](super::EventKind::Lost) event
    /// accounts for; the first 1,024 of them. What the ring has overwritten is not missing.
    pub gaps: Vec<Gap>,
    /// Files of the log that were found.
    pub segments: usize,
}

/// A place of a log that holds no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub segment: PathBuf,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What is there.
    pub kind: DamageKind,
}

/// What is in a damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// Bytes that are no record, followed by records.
    NotARecord,
    /// Bytes that are no record, up to the end of the file: a record that was being written when
    /// the power failed, the program was killed or the file was read.
    TornTail,
    /// A record whose number is not above those before it.
    OutOfOrder {
        /// The number.
        id: EventId,
    },
    /// The file is longer than any that is written; the rest was not read.
    TooLong,
    /// The file could not be read.
    Unreadable {
        /// What the system says.
        reason: String,
    },
}

/// Events that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first that is missing.
    pub first: EventId,
    /// How many are missing in a row.
    pub events: u64,
}

/// Why nothing of a log could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventReadError {
    /// There is no such folder.
    #[error("there is no folder {}; name the one that `events.folder` names", folder.display())]
    NotThere {
        /// The folder.
        folder: PathBuf,
    },
    /// It is not a folder, or may not be read.
    #[error("cannot read the folder {}: {source}; name the log's folder and run as a user who may \
             read it", folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, bytes, kind } = self;
        write!(f, "{}: ", segment.display())?;
        match kind {
            DamageKind::NotARecord => {
                write!(f, "{bytes} bytes from byte {offset} are no record")
            }
            DamageKind::TornTail => {
                write!(f, "the last {bytes} bytes, from byte {offset}, are no complete record")
            }
            DamageKind::OutOfOrder { id } => {
                write!(f, "the record at byte {offset} has the number {id}, which is too low")
            }
            DamageKind::TooLong => {
                write!(f, "{bytes} bytes from byte {offset} were not read: the file is too long")
            }
            DamageKind::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = EventId(self.first.0.saturating_add(self.events.saturating_sub(1)));
        match self.events {
            1 => write!(f, "event {last} is missing"),
            events => write!(f, "{events} events, {} to {last}, are missing", self.first),
        }
    }
}
