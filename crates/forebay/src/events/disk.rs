//! The files of a log that is being written: one open at its end, the oldest removed before a new
//! one is made. After anything that fails, the next attempt opens the file again and first cuts off
//! what may have been written of the failed one. It waits for the disk; only the writer's thread
//! calls it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{FlockOperation, flock};

use super::format::segment_path;
use super::history::EventHistory;
use super::log::EventLogError;
use super::read::{Layout, SegmentEnd, read_from};
use crate::config::{EventSync, EventsConfig};

/// The file whose lock the one writer of a folder holds.
const LOCK: &str = "lock";

/// The system's number for a full disk.
const NO_SPACE: i32 = rustix::io::Errno::NOSPC.raw_os_error();

/// Bytes that may still be written, to try out full disks: all.
pub(super) const ROOM_UNLIMITED: u64 = u64::MAX;

/// The files of one log, held by its one writer.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    segment_bytes: u64,
    segments_max: usize,
    sync: EventSync,
    segments: BTreeSet<u64>,
    /// Where the newest file ends.
    end: Option<SegmentEnd>,
    /// The newest file, if it is open and nothing is behind its end.
    file: Option<File>,
    /// The folder's entry of the newest file is on disk.
    is_listed: bool,
    room: Arc<AtomicU64>,
    _lock: File,
}

impl Disk {
    /// Takes the folder for this process and reads what is there. Nothing is written but the lock.
    /// Also returns the number of the first event to come.
    pub(super) fn open(
        config: &EventsConfig,
        room: Arc<AtomicU64>,
    ) -> Result<(Self, EventHistory, u64), EventLogError> {
        let folder = config.folder.clone();
        let failed = |source| EventLogError::Folder { folder: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(LOCK))
            .map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => EventLogError::InUse { folder: folder.clone() },
            error => failed(error.into()),
        })?;
        let (history, Layout { segments, end, next }) = read_from(&folder, 0)?;
        // A file that cannot be read keeps its name.
        let next = match &end {
            Some(end) if !end.is_readable => next.max(end.first.saturating_add(1)),
            _ => next,
        };
        let disk = Self {
            folder,
            segment_bytes: config.segment_bytes.into(),
            segments_max: config.segments_max as usize,
            sync: config.sync,
            segments,
            end,
            file: None,
            is_listed: true,
            room,
            _lock: lock,
        };
        Ok((disk, history, next))
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The tag of the boot record that holds where the next record will stand.
    pub(super) fn boot_tag(&self) -> Option<u32> {
        self.end.as_ref().and_then(|end| end.boot_tag)
    }

    /// Bytes that may be appended before a new file is due.
    pub(super) fn left(&self) -> usize {
        let good_bytes = self.end.as_ref().map_or(0, |end| end.good_bytes);
        usize::try_from(self.segment_bytes.saturating_sub(good_bytes)).unwrap_or(usize::MAX)
    }

    /// Opens a place for records that begin with number `next`, the first `bytes` long.
    pub(super) fn prepare(&mut self, next: u64, bytes: usize) -> io::Result<()> {
        let is_done = match &self.end {
            Some(end) => !end.is_readable || end.has_events && bytes > self.left(),
            None => true,
        };
        if is_done {
            return self.begin(next);
        }
        let Some(end) = self.end.as_ref().filter(|_| self.file.is_none()) else { return Ok(()) };
        match OpenOptions::new().write(true).open(segment_path(&self.folder, end.first)) {
            Ok(file) => {
                file.set_len(end.good_bytes)?;
                self.file = Some(file);
                Ok(())
            }
            // Somebody tidied up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(next),
            Err(error) => Err(error),
        }
    }

    /// Begins a new file.
    fn begin(&mut self, first: u64) -> io::Result<()> {
        self.file = None;
        std::fs::create_dir_all(&self.folder)?;
        // First, as the disk may be full.
        while self.segments.len() >= self.segments_max {
            let Some(oldest) = self.segments.first().copied() else { break };
            match std::fs::remove_file(segment_path(&self.folder, oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.segments.remove(&oldest),
            };
        }
        let path = segment_path(&self.folder, first);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        self.segments.insert(first);
        self.end = Some(SegmentEnd {
            first,
            good_bytes: 0,
            has_events: false,
            boot_tag: None,
            is_readable: true,
        });
        self.file = Some(file);
        self.is_listed = false;
        Ok(())
    }

    /// Appends whole records, events among them, after which the boot record with `boot_tag` holds.
    pub(super) fn append(&mut self, bytes: &[u8], boot_tag: u32) -> io::Result<()> {
        let done = self.write(bytes);
        match (&done, &mut self.end) {
            (Ok(()), Some(end)) => {
                end.good_bytes += bytes.len() as u64;
                end.has_events = true;
                end.boot_tag = Some(boot_tag);
            }
            _ => self.file = None,
        }
        done
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (Some(file), Some(end)) = (&self.file, &self.end) else {
            return Err(io::Error::other("no file of the log is open"));
        };
        let room = self.room.load(Relaxed);
        let fitting = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let (fitting, beyond) = bytes.split_at_checked(fitting).unwrap_or((bytes, &[]));
        if room != ROOM_UNLIMITED {
            self.room.fetch_sub(fitting.len() as u64, Relaxed);
        }
        file.write_all_at(fitting, end.good_bytes)?;
        if !beyond.is_empty() {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        if self.sync == EventSync::Each {
            file.sync_data()?;
            if !self.is_listed {
                File::open(&self.folder)?.sync_all()?;
                self.is_listed = true;
            }
        }
        Ok(())
    }
}
