//! Settings of the event log: what happened to workers, devices and the level, kept on disk.

use std::path::PathBuf;

use super::declare::Allowed::{Choice, Integer, Path};
use super::declare::group;
use super::value::EventSync;

group! {
    /// The event log: what happened to workers, devices and the service level.
    EventsConfig as "events" {
        /// Folder of the log, which one runtime at a time writes. A program that embeds the library
        /// has none unless it names one; the daemon names one that survives a restart.
        #[serde(with = "super::value::path_text")]
        folder: PathBuf = PathBuf::new(), "", Path("keeping events in memory only");
        /// Size at which a new file of the log is begun.
        segment_bytes: u32 = 1_048_576, "bytes", Integer(16_384, 16_777_216);
        /// Files that are kept; the oldest goes before a new one is made.
        segments_max: u32 = 8, "files", Integer(2, 64);
        /// "each" waits for the disk after each group of events, so that they survive a loss of
        /// power; "none" leaves it to the system.
        sync: EventSync = EventSync::Each, "", Choice(EventSync::WORDS);
        /// Events that may wait for the disk. Beyond it the oldest of them are not written; the log
        /// says how many.
        queue_events_max: u32 = 4_096, "events", Integer(16, 1_048_576);
        /// Newest events that are also kept in memory.
        recent_events_max: u32 = 1_024, "events", Integer(1, 1_048_576);
        /// Wait before a log that could not be written is tried again.
        retry_ms: u32 = 1_000, "ms", Integer(10, 3_600_000);
        /// How long the end of the runtime waits for its last events to be written.
        flush_ms: u32 = 1_000, "ms", Integer(0, 60_000);
    }
}
