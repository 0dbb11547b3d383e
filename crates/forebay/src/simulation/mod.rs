//! The simulator: one seed is one history of a runtime, with faults, in virtual time.
//!
//! It drives the very state machines that serve: the batcher, the dispatcher's core, the gate and
//! the ladder. What is simulated is everything around them: processes, devices, messages on their
//! way, callers, time. After every step the invariants of docs/reliability.md are checked; then the
//! faults stop, and the best level must come back.
//!
//! A history depends on its seed and this build alone. [`run`] is one history; a [`Violation`] says
//! how to see it again.

mod answers;
mod callers;
mod checks;
mod ends;
mod faults;
mod mutation;
mod parts;
mod process;
mod script;
mod stalls;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

pub use self::mutation::Mutation;
pub(crate) use self::mutation::mutated;

/// What one history went through.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Steps taken, each followed by a check of the invariants.
    pub steps: u64,
    /// Texts that were accepted.
    pub texts: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Rare places that it came to.
    pub reached: BTreeSet<&'static str>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The history.
    pub seed: u64,
    /// Which step of it.
    pub step: u64,
    /// Virtual time since its start.
    pub at: Duration,
    /// The invariant, as docs/reliability.md names it.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, step, at, invariant, found } = self;
        write!(
            f,
            "{invariant} broken at step {step}, {at:?}: {found}; see it again with: cargo xtask \
             simulate --start {seed} --seeds 1"
        )
    }
}

impl std::error::Error for Violation {}

/// Every rare place that histories must come to, taken together, for a clean run to mean anything.
pub const SOMETIMES: &[&str] = world::SOMETIMES;

/// Goes through the history of this seed, with a bug switched on if one is named.
///
/// # Errors
/// [`Violation`] of the first invariant that does not hold.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Result<Report, Violation> {
    mutation::switch(mutation);
    let outcome = world::World::new(seed).run();
    mutation::switch(None);
    outcome
}
