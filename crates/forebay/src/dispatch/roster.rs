//! Which workers there are for the dispatcher's core: those that may be given something, sorted by
//! tier and each with its standing, and those on their way out. It decides nothing about batches.

use super::port::{Standing, WorkerId, WorkerPort};
use crate::config::Tier;

/// A worker that is not on its way out.
pub(super) struct Member<W> {
    pub(super) worker: W,
    pub(super) standing: Standing,
}

/// The workers of one runtime that are not known to be gone.
pub(super) struct Roster<W> {
    /// The slower tiers first; within a tier in the order in which they came.
    members: Vec<Member<W>>,
    /// Workers that take no more batches and have not been reported as ended.
    leaving: Vec<W>,
}

impl<W: WorkerPort> Roster<W> {
    pub(super) fn new() -> Self {
        Self { members: Vec::new(), leaving: Vec::new() }
    }

    /// A worker has greeted. It is [`Standing::Warming`].
    pub(super) fn up(&mut self, worker: W) {
        let place = self.members.partition_point(|other| other.worker.tier() <= worker.tier());
        self.members.insert(place, Member { worker, standing: Standing::Warming });
    }

    /// A worker takes no more batches.
    pub(super) fn leave(&mut self, id: WorkerId) {
        let gone = self.members.extract_if(.., |member| member.worker.id() == id);
        self.leaving.extend(gone.map(|member| member.worker));
    }

    /// A worker is gone.
    pub(super) fn gone(&mut self, id: WorkerId) {
        self.leave(id);
        self.leaving.retain(|worker| worker.id() != id);
    }

    /// The workers that are not on their way out, the slower tiers first.
    pub(super) fn members(&self) -> &[Member<W>] {
        &self.members
    }

    /// The worker of this name, unless it is on its way out.
    pub(super) fn find_mut(&mut self, id: WorkerId) -> Option<&mut Member<W>> {
        self.members.iter_mut().find(|member| member.worker.id() == id)
    }

    /// All workers, also those on their way out.
    pub(super) fn all(&self) -> impl Iterator<Item = &W> {
        self.members.iter().map(|member| &member.worker).chain(&self.leaving)
    }

    /// What a worker must be to get whatever comes: serving, or on probation while nothing serves.
    /// `None` if there is neither.
    fn trusted(&self) -> Option<Standing> {
        let best = self.members.iter().map(|member| member.standing).max()?;
        (best >= Standing::Probation).then_some(best)
    }

    /// The best tier that ordinary batches go to.
    pub(super) fn best(&self) -> Option<Tier> {
        let trusted = self.trusted()?;
        let of_trusted = self.members.iter().filter(|member| member.standing == trusted);
        of_trusted.map(|member| member.worker.tier()).max()
    }

    /// The workers that ordinary batches go to, with their places among the members: those of the
    /// best tier.
    pub(super) fn takers(&self) -> impl Iterator<Item = (usize, &Member<W>)> {
        let wanted = self.trusted().zip(self.best());
        let workers = self.members.iter().enumerate();
        workers.filter(move |(_, member)| wanted == Some((member.standing, member.worker.tier())))
    }

    /// How many workers ordinary batches go to, and the tokens in flight in all of them.
    pub(super) fn busy(&self) -> (usize, usize) {
        self.takers().fold((0, 0), |(workers, tokens), (_, member)| {
            (workers + 1, tokens + member.worker.load().tokens)
        })
    }
}
