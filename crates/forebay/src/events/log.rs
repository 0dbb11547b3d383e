//! The handle of a log: numbers events, keeps the newest in memory and queues them for the writer.
//! Recording takes one short lock and never touches a disk.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use super::clock;
use super::disk::{Disk, ROOM_UNLIMITED};
use super::history::{EventHistory, EventReadError};
use super::kind::EventKind;
use super::queue::Queue;
use super::record::{Event, EventId};
use super::writer::Writer;
use crate::config::EventsConfig;
use crate::metrics::Metrics;

/// Why a log cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// Another process, or another runtime of this one, writes there.
    #[error(
        "the event log in {} is being written by another runtime; give each runtime its own \
         `events.folder`", folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be made or not be written to.
    #[error(
        "cannot keep an event log in {}: {source}; name a folder in `events.folder` that this user \
         may write to", folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder cannot be read.
    #[error(transparent)]
    Read(#[from] EventReadError),
    /// The thread that writes cannot be started.
    #[error("cannot start the thread of the event log: {0}; raise the limit on threads")]
    Thread(#[source] io::Error),
}

/// An event log. Clones are the same log; the last one to go closes it, which waits at most
/// `events.flush_ms` for what has not been written.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    boot: String,
    before: Vec<Event>,
    room: Arc<AtomicU64>,
    flush: Duration,
    writer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl EventLog {
    /// Opens the log in `events.folder`, made if it is not there, and reads what earlier runs left.
    /// Without a folder events are kept in memory only, and there is no history.
    ///
    /// What a crash left at the end of the log is cut off before the first event is written. A disk
    /// that is full or read-only is no error as long as the folder can be made and locked: events
    /// wait for it.
    ///
    /// # Errors
    /// The folder is in use, or it cannot be made, locked or read. The caller may fall back to
    /// [`EventLog::in_memory`].
    pub fn open(
        config: &EventsConfig,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, EventHistory), EventLogError> {
        if config.folder.as_os_str().is_empty() {
            return Ok((Self::in_memory(config, metrics), EventHistory::default()));
        }
        let room = Arc::new(AtomicU64::new(ROOM_UNLIMITED));
        let (disk, history, next) = Disk::open(config, Arc::clone(&room))?;
        let queue = Arc::new(Queue::new(config, metrics, next));
        let (waker, wake) = bounded(1);
        let writer = Writer {
            queue: Arc::clone(&queue),
            disk,
            wake,
            retry: Duration::from_millis(config.retry_ms.into()),
            next,
            is_failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("fb-events".to_owned())
            .spawn(|| writer.run())
            .map_err(EventLogError::Thread)?;
        let kept = history.events.len().saturating_sub(config.recent_events_max as usize);
        let before = history.events.get(kept..).unwrap_or_default().to_vec();
        let mut inner = Inner::of(queue, config);
        inner.before = before;
        inner.room = room;
        inner.writer = Some((waker, thread));
        Ok((Self { inner: Arc::new(inner) }, history))
    }

    /// A log that keeps its newest events in memory and touches no disk.
    #[must_use]
    pub fn in_memory(config: &EventsConfig, metrics: Arc<Metrics>) -> Self {
        let queue = Arc::new(Queue::new(config, metrics, 1));
        Self { inner: Arc::new(Inner::of(queue, config)) }
    }

    /// Records an event that `cause` led to. Returns at once, whatever the disk does.
    pub fn record(&self, cause: Option<EventId>, kind: EventKind) -> EventId {
        let inner = &self.inner;
        let id = inner.queue.record(cause, kind, &inner.boot, inner.writer.is_some());
        if let Some((wake, _)) = &inner.writer {
            // Full means that the writer has been told already.
            wake.try_send(()).ok();
        }
        id
    }

    /// The newest events of this run, at most `events_max` and at most `events.recent_events_max`,
    /// by rising number. They are in memory, also those that could not be written.
    #[must_use]
    pub fn recent(&self, events_max: usize) -> Vec<Event> {
        let state = self.inner.queue.lock();
        let skipped = state.recent.len().saturating_sub(events_max);
        state.recent.iter().skip(skipped).map(|event| Event::clone(event)).collect()
    }

    /// The newest events of earlier runs, at most `events.recent_events_max`, by rising number.
    #[must_use]
    pub fn last_of_before_start(&self) -> &[Event] {
        &self.inner.before
    }

    /// The id of this boot of the system, as the events of this run have it.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.inner.boot
    }

    /// Waits until everything that has been recorded so far is on disk, at most this long. True if
    /// it is; always true without a folder.
    #[must_use]
    pub fn flush(&self, at_most: Duration) -> bool {
        let queue = &self.inner.queue;
        let target = queue.lock().next;
        self.inner.writer.is_none() || queue.wait(at_most, |state| state.written_next >= target)
    }

    /// For injecting faults: from now on the disk is full, or it no longer is.
    pub fn fail_writes(&self, fail: bool) {
        self.leave_room(if fail { 0 } else { ROOM_UNLIMITED });
    }

    /// Lets so many more bytes be written before the disk is full.
    pub(super) fn leave_room(&self, bytes: u64) {
        self.inner.room.store(bytes, Relaxed);
    }

    /// Whether the room that was left is used up.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.inner.room.load(Relaxed) == 0
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.queue.lock();
        let (next, waiting) = (state.next, state.waiting.len());
        f.debug_struct("EventLog").field("next", &next).field("waiting", &waiting).finish()
    }
}

impl Inner {
    fn of(queue: Arc<Queue>, config: &EventsConfig) -> Self {
        Self {
            queue,
            boot: clock::boot_id(),
            before: Vec::new(),
            room: Arc::new(AtomicU64::new(ROOM_UNLIMITED)),
            flush: Duration::from_millis(config.flush_ms.into()),
            writer: None,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some((wake, thread)) = self.writer.take() else { return };
        self.queue.close();
        wake.try_send(()).ok();
        // A disk that hangs must not keep the program; its thread ends with it.
        if self.queue.wait(self.flush, |state| state.is_ended) {
            thread.join().ok();
        }
    }
}
