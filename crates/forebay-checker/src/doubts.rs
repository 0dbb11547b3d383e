//! Breaks that what comes later may still explain, in the order in which they were found.

use std::collections::VecDeque;

/// What explains a reply is written this long after it at most, in microseconds: a look at the level
/// takes as long, and who stood still writes that down at once.
pub(crate) const LATER_US: u64 = 6_000_000;
/// Breaks that wait at most. The oldest beyond is judged by what was written so far.
const WAITING_MAX: usize = 100_000;

/// A reply that breaks a promise unless something explains it.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) line: u64,
    pub(crate) request: u64,
    pub(crate) text: u64,
    pub(crate) at_us: u64,
    pub(crate) what: String,
}

/// Doubts, each with what it takes to dispel it.
#[derive(Debug)]
pub(crate) struct Doubts<T> {
    waiting: VecDeque<(Doubt, T)>,
}

impl<T> Default for Doubts<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Doubts<T> {
    pub(crate) fn push(&mut self, doubt: Doubt, with: T) {
        self.waiting.push_back((doubt, with));
    }

    /// Drops those that came so shortly before that something explains them.
    pub(crate) fn dispel(&mut self, at_us: u64) {
        self.waiting.retain(|(doubt, _)| is_settled(doubt, at_us));
    }

    /// The next one that nothing written from `now_us` on can explain.
    pub(crate) fn settled(&mut self, now_us: u64) -> Option<(Doubt, T)> {
        let is_full = self.waiting.len() > WAITING_MAX;
        let front = self.waiting.front();
        let is_next = front.is_some_and(|(doubt, _)| is_full || is_settled(doubt, now_us));
        is_next.then(|| self.waiting.pop_front()).flatten()
    }

    /// The next one, at the end.
    pub(crate) fn last(&mut self) -> Option<(Doubt, T)> {
        self.waiting.pop_front()
    }
}

fn is_settled(doubt: &Doubt, now_us: u64) -> bool {
    doubt.at_us.saturating_add(LATER_US) < now_us
}
