//! When what had piled up while a fault lasted is worked off. Pure.
//!
//! After the level is back, requests wait behind those that had to wait. They belong to the fault, too.
//! The requests that were under way at the healing are the first generation; those that came until it
//! was over are the second, and so on. Each wait is the share of the last one that the load is of the
//! capacity, so a few generations are enough.

use std::collections::BTreeSet;

/// Generations after which the rest does not matter: a load of 80 % leaves 17 % of the wait.
const GENERATIONS: u32 = 8;

/// Requests under way, by their numbers, which rise.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    under_way: BTreeSet<u64>,
    next: u64,
}

/// How far the working off has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    generation: u32,
    /// Requests below this number belong to the generation.
    boundary: u64,
}

impl Backlog {
    pub(super) fn begins(&mut self, number: u64) {
        self.under_way.insert(number);
        self.next = self.next.max(number + 1);
    }

    pub(super) fn ends(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    pub(super) fn under_way(&self) -> u64 {
        self.under_way.len() as u64
    }

    /// The working off begins.
    pub(super) fn start(&self) -> Progress {
        Progress { generation: 0, boundary: self.next }
    }

    /// Goes on as far as it can; whether it is over.
    pub(super) fn is_over(&self, progress: &mut Progress) -> bool {
        while progress.generation < GENERATIONS {
            if self.under_way.first().is_some_and(|first| *first < progress.boundary) {
                return false;
            }
            if self.under_way.is_empty() {
                return true;
            }
            *progress = Progress { generation: progress.generation + 1, boundary: self.next };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_nothing_is_under_way_or_after_some_generations() {
        let mut backlog = Backlog::default();
        (0..10).for_each(|number| backlog.begins(number));
        let mut progress = backlog.start();
        assert!(!backlog.is_over(&mut progress));
        (0..10).for_each(|number| backlog.ends(number));
        assert!(backlog.is_over(&mut progress));

        // Ten under way all the time, one in and one out.
        (10..20).for_each(|number| backlog.begins(number));
        let mut progress = backlog.start();
        let mut steps = 0;
        for number in 20..1000 {
            backlog.begins(number);
            backlog.ends(number - 10);
            steps += 1;
            if backlog.is_over(&mut progress) {
                break;
            }
        }
        assert!((70..=90).contains(&steps), "{steps}");
    }
}
