//! One class's queue: first in, first out, with its token sum, its earliest deadline and its
//! oldest `queued_at` always at hand. It knows no policy and decides nothing.

use std::collections::VecDeque;
use std::time::Instant;

use super::Entry;

/// A first-in-first-out queue of entries with running totals.
#[derive(Clone, Debug)]
pub(super) struct ClassQueue<T> {
    entries: VecDeque<Entry<T>>,
    tokens: usize,
    /// Number of the front entry; the others follow without gaps.
    front: u64,
    deadlines: SlidingMin,
    /// Needed because entries come from several tokenizer threads, or back from a dead worker, and
    /// the front entry is then not the oldest.
    queued_ats: SlidingMin,
}

impl<T> ClassQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            tokens: 0,
            front: 0,
            deadlines: SlidingMin::default(),
            queued_ats: SlidingMin::default(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry<T>) {
        let number = self.front + self.entries.len() as u64;
        if let Some(deadline) = entry.deadline {
            self.deadlines.push(number, deadline);
        }
        self.queued_ats.push(number, entry.queued_at);
        self.tokens += entry.tokens;
        self.entries.push_back(entry);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.deadlines.leave(self.front);
        self.queued_ats.leave(self.front);
        self.front += 1;
        self.tokens -= entry.tokens;
        Some(entry)
    }

    pub(super) fn front_tokens(&self) -> Option<usize> {
        self.entries.front().map(|entry| entry.tokens)
    }

    /// Whether the first entry's deadline is before `at`.
    pub(super) fn front_is_due_before(&self, at: Instant) -> bool {
        self.entries.front().and_then(|entry| entry.deadline).is_some_and(|due| due < at)
    }

    pub(super) fn rows(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn oldest_queued_at(&self) -> Option<Instant> {
        self.queued_ats.min()
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.deadlines.min()
    }

    /// Moves the entries that `leaves` names into `out`; the others keep their order.
    pub(super) fn remove_if(
        &mut self,
        mut leaves: impl FnMut(&Entry<T>) -> bool,
        out: &mut Vec<Entry<T>>,
    ) {
        // One turn of the queue through its own ends keeps the totals right without a rebuild.
        for _ in 0..self.entries.len() {
            let Some(entry) = self.pop() else { break };
            if leaves(&entry) {
                out.push(entry);
            } else {
                self.push(entry);
            }
        }
    }
}

/// The smallest of the values of a first-in-first-out queue, exact after each step at O(1)
/// amortised: a value is forgotten as soon as a later one is not larger, since it can then never
/// again be the smallest (the ascending-minima, or monotonic queue, method).
#[derive(Clone, Debug, Default)]
struct SlidingMin {
    /// Numbers and values, both ascending; the front is the smallest.
    ascending: VecDeque<(u64, Instant)>,
}

impl SlidingMin {
    fn push(&mut self, number: u64, value: Instant) {
        while self.ascending.back().is_some_and(|&(_, last)| last >= value) {
            self.ascending.pop_back();
        }
        self.ascending.push_back((number, value));
    }

    /// Takes in that the entry `number`, the oldest of the queue, has left.
    fn leave(&mut self, number: u64) {
        if self.ascending.front().is_some_and(|&(first, _)| first == number) {
            self.ascending.pop_front();
        }
    }

    fn min(&self) -> Option<Instant> {
        self.ascending.front().map(|&(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::priority::Priority;

    #[test]
    fn totals_equal_a_recount_after_any_steps() {
        let start = Instant::now();
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut queue = ClassQueue::new();
            let mut expected: Vec<Entry<()>> = Vec::new();
            for id in 0..200 {
                match rng.random_range(0..10) {
                    0..5 => {
                        let entry = Entry {
                            id,
                            priority: Priority::Bulk,
                            tokens: rng.random_range(0..100),
                            queued_at: start + Duration::from_millis(rng.random_range(0..50)),
                            deadline: rng
                                .random_bool(0.6)
                                .then(|| start + Duration::from_millis(rng.random_range(0..50))),
                            payload: (),
                        };
                        expected.push(entry.clone());
                        queue.push(entry);
                    }
                    5..9 => {
                        let popped = (!expected.is_empty()).then(|| expected.remove(0));
                        assert_eq!(queue.pop(), popped);
                    }
                    _ => {
                        let (modulus, mut out) = (rng.random_range(2..5), Vec::new());
                        queue.remove_if(|entry| entry.id % modulus == 0, &mut out);
                        let (left, kept) =
                            expected.into_iter().partition(|entry| entry.id % modulus == 0);
                        assert_eq!(out, left);
                        expected = kept;
                    }
                }
                assert_eq!(queue.rows(), expected.len());
                assert_eq!(queue.tokens(), expected.iter().map(|e| e.tokens).sum::<usize>());
                assert_eq!(queue.front_tokens(), expected.first().map(|e| e.tokens));
                assert_eq!(
                    queue.earliest_deadline(),
                    expected.iter().filter_map(|e| e.deadline).min()
                );
                assert_eq!(queue.oldest_queued_at(), expected.iter().map(|e| e.queued_at).min());
            }
        }
    }
}
