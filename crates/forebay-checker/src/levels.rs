//! Which tolerance a reply is held to: the level says which devices can have computed it.
//!
//! The level was looked at from time to time. So the tighter tolerance of a level holds for a request
//! that left when the level was known and was answered well before another one was seen; whether that
//! is so shows later, and until then a break waits.

use std::collections::{HashMap, VecDeque};

/// A look at the level takes this long at most, in microseconds; until then the level may have been
/// another one unseen.
const LOOK_US: u64 = 6_000_000;
/// Levels at which nothing computes.
const NOTHING: [&str; 2] = ["down", "unreachable"];

/// A reply that is wrong unless another level computed it.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) line: u64,
    pub(crate) request: u64,
    pub(crate) text: u64,
    pub(crate) at_us: u64,
    pub(crate) what: String,
}

/// The level so far.
#[derive(Default)]
pub(crate) struct Levels {
    tolerances: HashMap<String, f64>,
    /// The last level at which anything computes, and since when nothing else has.
    last: Option<(String, u64)>,
    doubts: VecDeque<Doubt>,
}

impl Levels {
    pub(crate) fn allow(&mut self, level: &str, tolerance: f64) {
        self.tolerances.insert(level.to_owned(), tolerance);
    }

    /// The level from now on.
    pub(crate) fn change(&mut self, level: &str, at_us: u64) {
        if NOTHING.contains(&level) || self.last.as_ref().is_some_and(|(last, _)| last == level) {
            return;
        }
        self.last = Some((level.to_owned(), at_us));
        self.doubts.retain(|doubt| doubt.at_us.saturating_add(LOOK_US) < at_us);
    }

    /// The tolerance of the level that a request was sent at, if that has one.
    pub(crate) fn tolerance(&self, sent_us: u64) -> Option<f64> {
        let (level, since_us) = self.last.as_ref()?;
        self.tolerances.get(level).copied().filter(|_| sent_us >= *since_us)
    }

    pub(crate) fn doubt(&mut self, doubt: Doubt) {
        self.doubts.push_back(doubt);
    }

    /// The next doubt that no change of the level before `now_us` can dispel.
    pub(crate) fn certain(&mut self, now_us: u64) -> Option<Doubt> {
        let is_old = |doubt: &Doubt| doubt.at_us.saturating_add(LOOK_US) < now_us;
        self.doubts.front().is_some_and(is_old).then(|| self.doubts.pop_front()).flatten()
    }
}
