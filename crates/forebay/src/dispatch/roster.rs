//! Which workers there are for the dispatcher's core: those that serve, sorted by tier, and those
//! on their way out. It decides nothing about batches.

use super::port::{WorkerId, WorkerPort};
use crate::config::Tier;

/// The workers of one runtime that are not known to be gone.
pub(super) struct Roster<W> {
    /// The slower tiers first; within a tier in the order in which they came.
    serving: Vec<W>,
    /// Workers that take no more batches and have not been reported as ended.
    leaving: Vec<W>,
}

impl<W: WorkerPort> Roster<W> {
    pub(super) fn new() -> Self {
        Self { serving: Vec::new(), leaving: Vec::new() }
    }

    /// A worker serves from now on.
    pub(super) fn up(&mut self, worker: W) {
        let place = self.serving.partition_point(|other| other.tier() <= worker.tier());
        self.serving.insert(place, worker);
    }

    /// A worker takes no more batches.
    pub(super) fn leave(&mut self, id: WorkerId) {
        self.leaving.extend(self.serving.extract_if(.., |worker| worker.id() == id));
    }

    /// A worker is gone.
    pub(super) fn gone(&mut self, id: WorkerId) {
        self.leave(id);
        self.leaving.retain(|worker| worker.id() != id);
    }

    /// The workers that serve, the slower tiers first.
    pub(super) fn serving(&self) -> &[W] {
        &self.serving
    }

    /// Those that serve and those on their way out.
    pub(super) fn all(&self) -> impl Iterator<Item = &W> {
        self.serving.iter().chain(&self.leaving)
    }

    /// The best tier that serves.
    pub(super) fn best(&self) -> Option<Tier> {
        self.serving.last().map(W::tier)
    }

    /// The workers that ordinary batches go to, with their places among those that serve: those of
    /// the best tier, without the first `skip` of all.
    pub(super) fn takers(&self, skip: usize) -> impl Iterator<Item = (usize, &W)> {
        let best = self.best();
        let workers = self.serving.iter().enumerate().skip(skip);
        workers.filter(move |(_, worker)| Some(worker.tier()) == best)
    }

    /// How many workers ordinary batches go to, and the tokens in flight in all of them.
    pub(super) fn busy(&self) -> (usize, usize) {
        self.takers(0).fold((0, 0), |(workers, tokens), (_, worker)| {
            (workers + 1, tokens + worker.load().tokens)
        })
    }
}
