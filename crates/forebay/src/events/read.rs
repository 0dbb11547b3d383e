//! Reading the folder of a log, in whatever state it is, and following one that is being written.
//! Nothing is changed there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::format::{self, Piece, Sort, segment_first, segment_path};
use super::history::{Damage, DamageKind, EventHistory, EventReadError, Gap};
use super::record::{Event, EventId};

/// Most events that are returned.
const EVENTS_MAX: usize = 262_144;

/// Most damaged places and gaps that are returned.
const FAULTS_MAX: usize = 1_024;

/// Most files that are read: the newest.
const SEGMENTS_MAX: usize = 1_024;

/// Longest file that is read to its end; `events.segment_bytes` has a lower bound than this.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// Reads the log in `folder`. May be called while it is being written.
///
/// Damage is skipped and reported in the result. What is returned has bounds, which
/// [`EventHistory`] names; memory is bounded by them and by 32 MiB for a file.
///
/// # Errors
/// The folder is not there or cannot be listed. A file that cannot be read is [`Damage`].
pub fn read(folder: &Path) -> Result<EventHistory, EventReadError> {
    read_from(folder, 0).map(|(history, _)| history)
}

/// Follows a log while it is being written.
///
/// Each [`Follower::poll`] returns the events that came since the last one. Damage is not reported
/// here: an incomplete record at the end is the one that is being written.
#[derive(Debug)]
pub struct Follower {
    folder: PathBuf,
    /// Number after the last event that was returned.
    next: u64,
    /// The newest file with its length, at the last poll.
    seen: Option<(u64, u64)>,
}

impl Follower {
    /// Follows the log in `folder` from behind the events of `history`.
    #[must_use]
    pub fn after(folder: &Path, history: &EventHistory) -> Self {
        let next = history.events.last().map_or(1, Event::end);
        Self { folder: folder.to_owned(), next, seen: None }
    }

    /// The events since the last call, and the numbers that are missing among them.
    ///
    /// # Errors
    /// The folder is not there any more or cannot be listed.
    pub fn poll(&mut self) -> Result<(Vec<Event>, Vec<Gap>), EventReadError> {
        let newest = segments(&self.folder)?.last().copied();
        let seen = newest.map(|first| (first, file_bytes(&self.folder, first)));
        if seen == self.seen {
            return Ok((Vec::new(), Vec::new()));
        }
        self.seen = seen;
        let (history, _) = read_from(&self.folder, self.next)?;
        self.next = history.events.last().map_or(self.next, Event::end);
        Ok((history.events, history.gaps))
    }
}

/// Where the newest file of a log ends, for who goes on writing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentEnd {
    /// The number in its name.
    pub(super) first: u64,
    /// Bytes up to the end of the last undamaged record.
    pub(super) good_bytes: u64,
    /// Whether an event is among them.
    pub(super) has_events: bool,
    /// The tag of the last boot record among them.
    pub(super) boot_tag: Option<u32>,
    /// Whether the whole file could be read.
    pub(super) is_readable: bool,
}

/// What a log consists of: its files by name, and where the newest ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The numbers in the names.
    pub(super) segments: BTreeSet<u64>,
    /// The newest.
    pub(super) end: Option<SegmentEnd>,
    /// The number after every event of the log.
    pub(super) next: u64,
}

/// Reads the events from number `from` on, and what a writer needs to know. Files in which only
/// earlier ones can be are not opened.
pub(super) fn read_from(
    folder: &Path,
    from: u64,
) -> Result<(EventHistory, Layout), EventReadError> {
    let segments = segments(folder)?;
    let mut reader = Reader::new(folder, from);
    reader.history.segments = segments.len();
    let skipped = segments.range(..=from).next_back().copied().unwrap_or(0);
    for first in segments.range(skipped..) {
        reader.segment(*first);
    }
    let newest = segments.last().copied().unwrap_or(1);
    let next = reader.next.unwrap_or(newest);
    if next < newest {
        reader.missing(next, newest - next);
    }
    let layout = Layout { end: reader.end, next: next.max(newest), segments };
    Ok((reader.finish(), layout))
}

/// The numbers in the names of the files of a log: the newest, if there are too many.
fn segments(folder: &Path) -> Result<BTreeSet<u64>, EventReadError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => EventReadError::NotThere { folder: folder.to_owned() },
        _ => EventReadError::Unreadable { folder: folder.to_owned(), source },
    };
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        found.extend(name.to_str().and_then(segment_first));
        if found.len() > SEGMENTS_MAX {
            found.pop_first();
        }
    }
    Ok(found)
}

/// The length of a file of the log, 0 if there is none.
fn file_bytes(folder: &Path, first: u64) -> u64 {
    std::fs::metadata(segment_path(folder, first)).map_or(0, |file| file.len())
}

/// An event whose boot may only be known once all is read.
struct Waiting {
    event: Event,
    boot_tag: u32,
}

struct Reader<'a> {
    folder: &'a Path,
    from: u64,
    history: EventHistory,
    events: VecDeque<Waiting>,
    boots: BTreeMap<u32, String>,
    /// The number that must come next; `None` before the first file.
    next: Option<u64>,
    end: Option<SegmentEnd>,
}

impl<'a> Reader<'a> {
    fn new(folder: &'a Path, from: u64) -> Self {
        Self {
            folder,
            from,
            history: EventHistory::default(),
            events: VecDeque::new(),
            boots: BTreeMap::new(),
            next: None,
            end: None,
        }
    }

    fn segment(&mut self, first: u64) {
        let path = segment_path(self.folder, first);
        // The ring begins with the first number of its oldest file; whoever follows it has an idea
        // of its own of what comes next.
        self.next.get_or_insert(if self.from > 0 { self.from } else { first });
        let mut end = SegmentEnd {
            first,
            good_bytes: 0,
            has_events: false,
            boot_tag: None,
            is_readable: true,
        };
        match load(&path) {
            Ok(bytes) => {
                for (offset, length, piece) in format::pieces(&bytes) {
                    let damage = match piece {
                        Piece::Record(record) => {
                            end.good_bytes = (offset + length) as u64;
                            match record.sort {
                                Sort::Boot => end.boot_tag = Some(record.boot_tag),
                                Sort::Event => end.has_events = true,
                            }
                            self.record(&record)
                        }
                        Piece::Damage { is_tail: true } => Some(DamageKind::TornTail),
                        Piece::Damage { is_tail: false } => Some(DamageKind::NotARecord),
                    };
                    self.damaged(&path, offset as u64, length as u64, damage);
                }
                let read = bytes.len() as u64;
                let beyond = file_bytes(self.folder, first).saturating_sub(read);
                if read >= SEGMENT_BYTES_MAX && beyond > 0 {
                    end.is_readable = false;
                    self.damaged(&path, read, beyond, Some(DamageKind::TooLong));
                }
            }
            // The ring went on while it was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.next = None,
            Err(error) => {
                end.is_readable = false;
                let bytes = file_bytes(self.folder, first);
                let kind = DamageKind::Unreadable { reason: error.to_string() };
                self.damaged(&path, 0, bytes, Some(kind));
            }
        }
        self.end = Some(end);
    }

    /// Takes one record; says what is wrong with it.
    fn record(&mut self, record: &format::Record<'_>) -> Option<DamageKind> {
        if record.sort == Sort::Boot {
            let (tag, boot) = format::boot_of(record);
            self.boots.insert(tag, boot);
            return None;
        }
        let event = format::event_of(record, String::new());
        // A file of which the beginning has been returned already.
        if event.end() <= self.from {
            return None;
        }
        let expected = *self.next.get_or_insert(event.id.0);
        if event.id.0 < expected {
            return Some(DamageKind::OutOfOrder { id: event.id });
        }
        self.missing(expected, event.id.0 - expected);
        self.next = Some(event.end());
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
            self.history.events_left_out += 1;
        }
        self.events.push_back(Waiting { event, boot_tag: record.boot_tag });
        None
    }

    fn missing(&mut self, first: u64, events: u64) {
        if events > 0 && self.history.gaps.len() < FAULTS_MAX {
            self.history.gaps.push(Gap { first: EventId(first), events });
        }
    }

    fn damaged(&mut self, segment: &Path, offset: u64, bytes: u64, kind: Option<DamageKind>) {
        let Some(kind) = kind else { return };
        if self.history.damage.len() < FAULTS_MAX {
            let segment = segment.to_owned();
            self.history.damage.push(Damage { segment, offset, bytes, kind });
        } else {
            self.history.damage_left_out += 1;
        }
    }

    fn finish(self) -> EventHistory {
        let Self { mut history, events, boots, .. } = self;
        let known = |Waiting { mut event, boot_tag }: Waiting| {
            event.boot = boots.get(&boot_tag).cloned().unwrap_or_default();
            event
        };
        history.events = events.into_iter().map(known).collect();
        history
    }
}

/// The content of a file, up to the longest that is read.
fn load(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SEGMENT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
