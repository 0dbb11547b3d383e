//! The settings of the batcher, and the moments in time that follow from them. Plain values: the
//! ranges are checked where the configuration is read, and what could stall the queue is corrected
//! here once more.

use std::time::{Duration, Instant};

use crate::priority::Priority;

/// The limits and times that a [`Batcher`](super::Batcher) works by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most tokens in a batch. A single longer entry is still sealed, alone.
    pub tokens_max: usize,
    /// Most rows in a batch; 0 is taken as 1.
    pub rows_max: usize,
    /// Longest time for which an entry waits for company while every worker is busy.
    pub max_wait: Duration,
    /// Wait after which an `Interactive` entry has a share of the batches that `Control` fills.
    pub interactive_ageing: Duration,
    /// The same for `Bulk`. It is also `Bulk`'s handicap against `Interactive`, which goes first
    /// as long as it was queued less than the difference of the two ageing times later.
    pub bulk_ageing: Duration,
    /// Most entries held; beyond it `push` refuses.
    pub entries_max: usize,
    /// Longest expected service time of a batch while `Control` or `Interactive` entries wait.
    pub duration_target: Duration,
    /// The same while only `Bulk` waits: how long an urgent text that comes late may find the
    /// worker busy.
    pub bulk_duration_target: Duration,
    /// The token target never shrinks below this, however slow the worker is: tiny batches would
    /// lose more to fixed cost than they win in latency. Taken as at most `tokens_max`.
    pub tokens_min: usize,
}

impl BatchPolicy {
    /// The same policy without the values that would stop the queue for good.
    pub(super) fn corrected(mut self) -> Self {
        self.rows_max = self.rows_max.max(1);
        self.tokens_max = self.tokens_max.max(1);
        self.tokens_min = self.tokens_min.clamp(1, self.tokens_max);
        self
    }

    /// The moment at which an entry of a class that was queued at `queued_at` counts as aged;
    /// `None` for never. `Control` needs no ageing: nothing goes before it.
    pub(super) fn aged_at(&self, priority: Priority, queued_at: Instant) -> Option<Instant> {
        match priority {
            Priority::Control => None,
            Priority::Interactive => queued_at.checked_add(self.interactive_ageing),
            Priority::Bulk => queued_at.checked_add(self.bulk_ageing),
        }
    }
}
