//! What a stage has done so far, readable from any thread without disturbing it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters of one stage. Completed items are the evidence that a stage is alive: a stage that
/// hangs in a call keeps its thread but stops counting.
#[derive(Debug, Default)]
pub struct StageClock {
    items: AtomicU64,
    busy_ns: AtomicU64,
}

impl StageClock {
    /// Runs one piece of work and counts it with its time.
    pub fn measure<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed());
        result
    }

    /// Counts one completed item that took `busy`.
    pub fn add(&self, busy: Duration) {
        let busy_ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(busy_ns, Ordering::Relaxed);
        self.items.fetch_add(1, Ordering::Relaxed);
    }

    /// Items completed.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// Time spent on completed items.
    #[must_use]
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }
}
