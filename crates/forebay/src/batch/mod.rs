//! The batcher: which waiting texts go into the next batch, and whether a batch should go now or
//! wait for more. It is a pure state machine: the caller passes the time in, and the module never
//! reads a clock, starts a thread, takes a lock or does I/O, so that production and a seeded
//! simulator run the same code.
//!
//! **Late joining.** Nothing is grouped before a worker offers a free slot: [`Batcher::seal`] is
//! the only place where a batch comes into being, so whatever was pushed before it may still join.
//!
//! **When.** A worker with nothing in flight gets work at once. The spare slot of a busy worker is
//! filled only when waiting cannot pay: the batch is full, a `Control` entry waits, the oldest
//! entry waited `max_wait`, a deadline is near, or the runtime drains.
//!
//! **Side by side.** A worker that computes several batches at a time, each with its share of the
//! cores, is offered for with [`Offer::side_by_side`]. While it computes another one, a batch is also
//! due when enough rows wait: an equal part of what was under way at once lately. Until then it waits
//! longer than `max_wait` if that is little beside the time that it will take, but no longer than
//! the target duration. Where none is computed, [`Batcher::seal_part`] shares out what waits.
//!
//! **Who.** First in, first out within a class. `Control` goes first, except that an eighth of
//! each batch is kept for entries of the other classes that waited longer than their ageing time,
//! so that nothing starves. Between `Interactive` and `Bulk`, the class with the smaller (oldest
//! `queued_at` + ageing time) goes next. A class stops at its first entry that does not fit; the
//! other classes may use what is left.
//!
//! **How much.** While `Control` or `Interactive` entries wait, the token target is what the
//! workers are measured to finish within `duration_target`; once only `Bulk` waits, within
//! `bulk_duration_target`. A running batch is not interrupted, so the second bound is what a late
//! urgent text may find in front of it.
//!
//! Each tier of workers has its own measured speed, so that a change of tier is known at once.
//!
//! **Cost.** `push` is O(1) amortised, `seal` O(batch) and `next_wakeup` O(1). `expire` (and
//! `seal`, which never hands out an expired entry) scans a class only when an entry of it has
//! expired; `remove_if` scans everything.

mod batcher;
mod company;
mod pace;
mod policy;
#[cfg(test)]
mod properties;
mod queue;
mod select;

pub use batcher::Batcher;
pub use policy::BatchPolicy;

use std::time::{Duration, Instant};

use crate::priority::Priority;

/// One tokenized text that waits for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// The caller's name for it. The batcher neither reads it nor needs it to be unique.
    pub id: u64,
    /// The class it queues in.
    pub priority: Priority,
    /// Its length after truncation, in tokens, special tokens included. More than
    /// [`BatchPolicy::tokens_max`] is a mistake of the caller: the entry is then sealed alone.
    pub tokens: usize,
    /// When the wait began: what ageing and `max_wait` count from. An entry that is put back after
    /// a worker died keeps its first `queued_at`, and so its age.
    pub queued_at: Instant,
    /// The moment from which an answer is worthless. From then on only [`Batcher::expire`],
    /// [`Batcher::remove_if`] and [`Batcher::drain_all`] hand the entry out.
    pub deadline: Option<Instant>,
    /// What the caller needs to run and answer it.
    pub payload: T,
}

/// A worker's free slot: how busy the worker is and what the slot can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Nothing is in flight on that worker, so each moment of waiting is lost.
    pub worker_idle: bool,
    /// Batches that the worker computes side by side, if this is to be one of them: it then has that
    /// part of the worker's speed. 1 for a batch that has the worker to itself, now or when those
    /// before it are done.
    pub side_by_side: usize,
    /// Tokens that the slot can hold. An entry above it is still sealed, alone: the caller sees
    /// `batch.tokens > offer.tokens_max` and must answer it with an error. 0 means no slot.
    pub tokens_max: usize,
    /// Rows that the slot can hold; 0 means no slot.
    pub rows_max: usize,
}

/// Why a batch was sealed when it was. If several reasons hold, the first in this order is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealReason {
    /// The worker had nothing else to do.
    Idle,
    /// As many rows or tokens waited as a batch may have now.
    Full,
    /// A `Control` entry waited.
    Control,
    /// Enough waited for a batch that runs beside others.
    Company,
    /// The oldest entry had waited `max_wait`, or as long as company is waited for.
    Waited,
    /// Waiting longer would have put a deadline at risk.
    Deadline,
    /// The runtime is shutting down: no company will come.
    Draining,
}

impl SealReason {
    /// Every reason, in order of precedence.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Full,
        Self::Control,
        Self::Company,
        Self::Waited,
        Self::Deadline,
        Self::Draining,
    ];

    /// The lowercase name used as a metrics label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Full => "full",
            Self::Control => "control",
            Self::Company => "company",
            Self::Waited => "waited",
            Self::Deadline => "deadline",
            Self::Draining => "draining",
        }
    }
}

/// A batch that has left the queue; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch<T> {
    /// The rows, in the order in which they were chosen.
    pub entries: Vec<Entry<T>>,
    /// The sum of the entries' tokens.
    pub tokens: usize,
    /// The tokens that this batch was allowed to have, if it had been given all that waited. `tokens`
    /// exceeds it only if the batch is a single entry; `tokens / tokens_target` is the batch's fill.
    pub tokens_target: usize,
    /// Why it was sealed now.
    pub reason: SealReason,
    /// How long its longest-waiting entry had waited.
    pub oldest_wait: Duration,
}

/// What waits in a [`Batcher`]. Arrays are indexed by [`Priority::index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Entries per class.
    pub rows: [usize; 3],
    /// Tokens per class.
    pub tokens: [usize; 3],
    /// The smallest `queued_at` of all.
    pub oldest_queued_at: Option<Instant>,
}

impl Depth {
    /// Entries of all classes.
    #[must_use]
    pub fn rows_total(&self) -> usize {
        self.rows.iter().sum()
    }

    /// Tokens of all classes.
    #[must_use]
    pub fn tokens_total(&self) -> usize {
        self.tokens.iter().sum()
    }
}
