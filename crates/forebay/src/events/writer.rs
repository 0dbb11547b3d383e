//! The thread that brings events to the disk, in groups and in order. What fails is tried again
//! after a wait, with the events still in the queue; what the queue could not keep becomes one
//! record that says how many are missing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::clock::BOOT_BYTES_MAX;
use super::disk::Disk;
use super::format::{HEADER_BYTES, boot_tag, put_boot, put_event};
use super::kind::EventKind;
use super::queue::Queue;
use super::record::{Event, EventId};

/// Most events that are written at once: one wait for the disk covers them.
const GROUP_EVENTS_MAX: usize = 256;

/// The writer of one log.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) disk: Disk,
    /// Says that there is something to do; its end says that there will be nothing more.
    pub(super) wake: Receiver<()>,
    pub(super) retry: Duration,
    /// The number that the next record on disk must have.
    pub(super) next: u64,
    /// The last attempt failed.
    pub(super) is_failing: bool,
}

impl Writer {
    /// Writes until the log is closed and nothing is left, or the disk fails then.
    pub(super) fn run(mut self) {
        loop {
            let group = self.queue.take_in_hand(GROUP_EVENTS_MAX);
            if group.is_empty() {
                if self.queue.is_closing() || self.wake.recv().is_err() {
                    break;
                }
                continue;
            }
            match self.write(&group) {
                Ok(events) => {
                    if std::mem::take(&mut self.is_failing) {
                        let folder = self.disk.folder().display();
                        tracing::info!("the event log in {folder} can be written again");
                    }
                    self.queue.written(events, self.next);
                }
                Err(error) => {
                    self.queue.not_written();
                    if !std::mem::replace(&mut self.is_failing, true) {
                        let folder = self.disk.folder().display();
                        tracing::warn!(
                            "the event log in {folder} cannot be written, events wait in memory: \
                             {error}"
                        );
                    }
                    if self.queue.is_closing() || !self.wait() {
                        break;
                    }
                }
            }
        }
        // The folder is free before anyone hears of the end.
        let Self { queue, disk, .. } = self;
        drop(disk);
        queue.ended();
    }

    /// Waits for the next attempt; false if the log is closed while another attempt has no sense.
    fn wait(&self) -> bool {
        let until = Instant::now() + self.retry;
        loop {
            match self.wake.recv_deadline(until) {
                // One more attempt: the disk may have room again.
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(()) if self.queue.is_closing() => return true,
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Writes as many events of a group as the current file takes, at least one; returns how many.
    fn write(&mut self, group: &[Arc<Event>]) -> io::Result<usize> {
        let Some((first, rest)) = group.split_first() else { return Ok(0) };
        let tag = boot_tag(&first.boot);
        let mut next = self.next;
        let mut records = Vec::new();
        next = put(&mut records, next, first, tag);
        self.disk.prepare(self.next, records.len() + HEADER_BYTES + BOOT_BYTES_MAX)?;
        let mut bytes = Vec::new();
        if self.disk.boot_tag() != Some(tag) {
            put_boot(&mut bytes, &first.boot, first);
        }
        bytes.append(&mut records);
        let mut events = 1;
        for event in rest {
            let (fitting, next_before) = (bytes.len(), next);
            next = put(&mut bytes, next, event, tag);
            if bytes.len() > self.disk.left() {
                bytes.truncate(fitting);
                next = next_before;
                break;
            }
            events += 1;
        }
        self.disk.append(&bytes, tag)?;
        self.next = next;
        Ok(events)
    }
}

/// Appends an event, and before it what is missing between number `next` and it; returns the number
/// after it.
fn put(bytes: &mut Vec<u8>, next: u64, event: &Event, tag: u32) -> u64 {
    if event.id.0 > next {
        let kind = EventKind::Lost { events: event.id.0 - next };
        let lost = Event { id: EventId(next), cause: None, kind, ..event.clone() };
        put_event(bytes, &lost, tag);
    }
    put_event(bytes, event, tag);
    event.end()
}
