//! What the batcher promises, checked over many seeded runs: random steps against a plain model
//! (`steps`), hostile arrivals (`fairness`), and the size under load (`sizing`). The rules are
//! written here a second time, in the slowest and plainest way, and nothing of the batcher's inside
//! is used.

mod fairness;
mod model;
mod sizing;
mod steps;

use std::time::{Duration, Instant};

use super::{BatchPolicy, Entry, Offer};
use crate::priority::Priority;

fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn policy() -> BatchPolicy {
    BatchPolicy {
        tokens_max: 400,
        rows_max: 8,
        max_wait: millis(5),
        interactive_ageing: millis(20),
        bulk_ageing: millis(60),
        entries_max: 40,
        duration_target: millis(4),
        bulk_duration_target: millis(16),
        tokens_min: 50,
    }
}

fn entry(id: u64, priority: Priority, tokens: usize, queued_at: Instant) -> Entry<u64> {
    Entry { id, priority, tokens, queued_at, deadline: None, payload: id }
}

/// An offer that the policy's own limits decide.
fn offer(worker_idle: bool) -> Offer {
    beside(worker_idle, 1)
}

/// The same for a batch that is one of so many side by side.
fn beside(worker_idle: bool, side_by_side: usize) -> Offer {
    Offer { worker_idle, side_by_side, tokens_max: usize::MAX, rows_max: usize::MAX }
}
