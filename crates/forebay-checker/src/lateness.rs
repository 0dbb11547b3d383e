//! Replies after their time, against the moments in which who took them stood still.

use std::collections::VecDeque;

use crate::doubts::{Doubt, Doubts};

/// Stalls that are kept at most: some thousand seconds of one after the other, and a reply is waited for
/// less long. What lies before the oldest excuses nothing.
const STALLS_MAX: usize = 1 << 16;

/// By what a reply was late.
#[derive(Debug)]
pub(crate) struct Late {
    /// Since when it was waited for.
    pub(crate) from_us: u64,
    /// By how much it was late.
    pub(crate) over_us: u64,
}

/// A time in which nobody could have taken a reply.
#[derive(Debug)]
struct Stall {
    from_us: u64,
    to_us: u64,
    /// The length of all before it.
    before_us: u64,
}

/// What was late so far, and when nobody could have taken a reply.
#[derive(Default)]
pub(crate) struct Lateness {
    late: Doubts<Late>,
    /// By rising time; none begins before the last has ended.
    stalls: VecDeque<Stall>,
}

impl Lateness {
    /// Takes a stall.
    ///
    /// # Errors
    /// In words what is wrong with it, if it does not follow the last.
    pub(crate) fn stall(&mut self, from_us: u64, to_us: u64) -> Result<(), String> {
        let last = self.stalls.back();
        let (last_us, before_us) = last.map_or((0, 0), |last| {
            (last.to_us, last.before_us.saturating_add(last.to_us - last.from_us))
        });
        if from_us < last_us {
            return Err(format!("a stall from {from_us} us on, and the last ended at {last_us}"));
        }
        if self.stalls.len() >= STALLS_MAX {
            self.stalls.pop_front();
        }
        self.stalls.push_back(Stall { from_us, to_us, before_us });
        Ok(())
    }

    pub(crate) fn late(&mut self, doubt: Doubt, late: Late) {
        self.late.push(doubt, late);
    }

    /// The next reply that was late by more than nobody could have taken it, and that no stall written
    /// from `now_us` on can excuse.
    pub(crate) fn certain(&mut self, now_us: u64) -> Option<Doubt> {
        loop {
            let (doubt, late) = self.late.settled(now_us)?;
            if self.is_late(&doubt, &late) {
                return Some(doubt);
            }
        }
    }

    /// The same when nothing more comes.
    pub(crate) fn last(&mut self) -> Option<Doubt> {
        loop {
            let (doubt, late) = self.late.last()?;
            if self.is_late(&doubt, &late) {
                return Some(doubt);
            }
        }
    }

    fn is_late(&self, doubt: &Doubt, late: &Late) -> bool {
        let stalled_us = self.until(doubt.at_us).saturating_sub(self.until(late.from_us));
        stalled_us < late.over_us
    }

    /// The length of all stalls until then.
    fn until(&self, at_us: u64) -> u64 {
        let begun = self.stalls.partition_point(|stall| stall.from_us <= at_us);
        match begun.checked_sub(1).and_then(|last| self.stalls.get(last)) {
            Some(stall) => stall.before_us.saturating_add(stall.to_us.min(at_us) - stall.from_us),
            None => self.stalls.front().map_or(0, |first| first.before_us),
        }
    }
}
