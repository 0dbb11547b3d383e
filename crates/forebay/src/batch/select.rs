//! Which entries make up a batch, once it is decided that there shall be one. Works on the heads
//! of the class queues only, so that its cost is that of the batch; it never decides when, and
//! never looks at deadlines (expired entries have left the queues before).

use std::time::Instant;

use super::policy::BatchPolicy;
use super::queue::ClassQueue;
use super::{Entry, Priority};

/// One part in this many of a batch is kept for aged entries: enough that a backlog of them
/// drains, little enough that `Control` hardly notices.
const AGED_SHARE: usize = 8;

/// A batch while it is being filled.
pub(super) struct Selection<'a, T> {
    queues: &'a mut [ClassQueue<T>; 3],
    policy: &'a BatchPolicy,
    now: Instant,
    rows_max: usize,
    tokens_max: usize,
    /// Entries with an earlier deadline stay where they are.
    deadline_min: Option<Instant>,
    entries: Vec<Entry<T>>,
    tokens: usize,
}

/// What [`Selection::fill`] chose.
pub(super) struct Selected<T> {
    pub(super) entries: Vec<Entry<T>>,
    pub(super) tokens: usize,
    /// An aged entry was due and found no room beside `Control`: it opens the next batch.
    pub(super) aged_owed: bool,
}

impl<'a, T> Selection<'a, T> {
    pub(super) fn new(
        queues: &'a mut [ClassQueue<T>; 3],
        policy: &'a BatchPolicy,
        now: Instant,
        rows_max: usize,
        tokens_max: usize,
    ) -> Self {
        let waiting = queues.iter().map(ClassQueue::rows).sum::<usize>();
        let entries = Vec::with_capacity(waiting.min(rows_max));
        Self { queues, policy, now, rows_max, tokens_max, deadline_min: None, entries, tokens: 0 }
    }

    /// The same without entries whose deadline is before `deadline_min`; a class stops at its first
    /// one, as at one that does not fit.
    pub(super) fn with_deadline_min(self, deadline_min: Option<Instant>) -> Self {
        Self { deadline_min, ..self }
    }

    /// Fills the batch. `aged_owed` is what the last batch left owing.
    ///
    /// The most overdue aged entry and the first `Control` entry may not fit into one batch (two
    /// long texts, or a slot of one row). They then take turns in opening a batch, and whoever
    /// opens it is in it whatever its length: neither is put off twice running.
    pub(super) fn fill(mut self, aged_owed: bool) -> Selected<T> {
        if !aged_owed {
            self.take(Priority::Control);
        }
        let share_rows = (self.rows_max / AGED_SHARE).max(1);
        let share_tokens = (self.tokens_max / AGED_SHARE).max(1);
        let aged_owed = self.take_by_age(true, share_rows, share_tokens);
        while self.take(Priority::Control).is_some() {}
        self.take_by_age(false, usize::MAX, usize::MAX);
        Selected { entries: self.entries, tokens: self.tokens, aged_owed }
    }

    /// Takes `Interactive` and `Bulk` entries, most overdue class first, until `share_rows` rows
    /// or `share_tokens` tokens are reached or nothing more fits. Whether the very first choice
    /// found no room.
    fn take_by_age(&mut self, aged_only: bool, share_rows: usize, share_tokens: usize) -> bool {
        let (mut rows, mut tokens) = (0, 0_usize);
        let mut blocked = Vec::new();
        let mut first_refused = false;
        while rows < share_rows && tokens < share_tokens {
            let Some(class) = self.next_by_age(aged_only, &blocked) else {
                break;
            };
            if let Some(taken) = self.take(class) {
                rows += 1;
                tokens = tokens.saturating_add(taken);
            } else {
                first_refused |= rows == 0 && blocked.is_empty();
                blocked.push(class);
            }
        }
        first_refused
    }

    /// The class below `Control`, not `blocked`, whose oldest entry ages first.
    fn next_by_age(&self, aged_only: bool, blocked: &[Priority]) -> Option<Priority> {
        [Priority::Interactive, Priority::Bulk]
            .into_iter()
            .filter(|class| !blocked.contains(class))
            .filter_map(|class| {
                let queued_at = self.queues[class.index()].oldest_queued_at()?;
                let aged_at = self.policy.aged_at(class, queued_at);
                let aged = aged_at.is_some_and(|at| at <= self.now);
                // "Never" sorts behind every moment.
                (aged || !aged_only).then_some(((aged_at.is_none(), aged_at, queued_at), class))
            })
            .min_by_key(|&(key, _)| key)
            .map(|(_, class)| class)
    }

    /// Moves the head of a class into the batch if it fits, or if it opens the batch. Its tokens.
    #[inline]
    fn take(&mut self, class: Priority) -> Option<usize> {
        let queue = &mut self.queues[class.index()];
        if self.deadline_min.is_some_and(|at| queue.front_is_due_before(at)) {
            return None;
        }
        let tokens = self.tokens.saturating_add(queue.front_tokens()?);
        let fits = self.entries.len() < self.rows_max && tokens <= self.tokens_max;
        if !fits && !self.entries.is_empty() {
            return None;
        }
        let entry = queue.pop()?;
        let taken = entry.tokens;
        self.tokens = tokens;
        self.entries.push(entry);
        Some(taken)
    }
}
