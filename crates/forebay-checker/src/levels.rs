//! Which tolerance a reply is held to: the level says which devices can have computed it.
//!
//! The level was looked at from time to time. So the tighter tolerance of a level holds for a request
//! that left when the level was known and was answered well before another one was seen; whether that
//! is so shows later, and until then a break waits.

use std::collections::HashMap;

use crate::doubts::{Doubt, Doubts};

/// Levels at which nothing computes.
const NOTHING: [&str; 2] = ["down", "unreachable"];

/// The level so far.
#[derive(Default)]
pub(crate) struct Levels {
    tolerances: HashMap<String, f64>,
    /// The last level at which anything computes, and since when nothing else has.
    last: Option<(String, u64)>,
    /// Replies that are wrong unless another level computed them.
    doubts: Doubts<()>,
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
        self.doubts.dispel(at_us);
    }

    /// The tolerance of the level that a request was sent at, if that has one.
    pub(crate) fn tolerance(&self, sent_us: u64) -> Option<f64> {
        let (level, since_us) = self.last.as_ref()?;
        self.tolerances.get(level).copied().filter(|_| sent_us >= *since_us)
    }

    pub(crate) fn doubt(&mut self, doubt: Doubt) {
        self.doubts.push(doubt, ());
    }

    /// The next doubt that no change of the level before `now_us` can dispel.
    pub(crate) fn certain(&mut self, now_us: u64) -> Option<Doubt> {
        self.doubts.settled(now_us).map(|(doubt, ())| doubt)
    }

    /// The next doubt when nothing more comes.
    pub(crate) fn last(&mut self) -> Option<Doubt> {
        self.doubts.last().map(|(doubt, ())| doubt)
    }
}
