//! Which workers there are for the dispatcher's core: those that may be given something, sorted by
//! tier and each with its standing, and those on their way out. It decides nothing about batches.

use std::time::Instant;

use super::port::{EndedBatch, Standing, WorkerId, WorkerPort};
use crate::config::Tier;

/// A worker that is not on its way out.
pub(super) struct Member<W> {
    pub(super) worker: W,
    pub(super) standing: Standing,
    /// It has been found late and has not caught up.
    pub(super) late: bool,
    /// It is to run a canary batch.
    pub(super) canary_due: bool,
    /// Canary batches in a row that it has not computed.
    pub(super) canaries_failed: u32,
    /// Batches that it may have while on probation.
    pub(super) credit: f64,
    /// Time spent on suspects less time spent on ordinary batches, in microseconds and bounded:
    /// whose turn it is.
    pub(super) suspect_lead_us: i64,
    /// When it was last given a suspect.
    pub(super) alone_since: Option<Instant>,
}

impl<W: WorkerPort> Member<W> {
    fn new(worker: W) -> Self {
        Self {
            worker,
            standing: Standing::Warming,
            late: false,
            canary_due: false,
            canaries_failed: 0,
            credit: 0.0,
            suspect_lead_us: 0,
            alone_since: None,
        }
    }

    /// Whether it holds nothing and could be given something.
    pub(super) fn is_free(&self) -> bool {
        let load = self.worker.load();
        load.batches == 0 && load.free > 0
    }
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
        self.members.insert(place, Member::new(worker));
    }

    /// A worker takes no more batches.
    pub(super) fn leave(&mut self, id: WorkerId) {
        let gone = self.members.extract_if(.., |member| member.worker.id() == id);
        self.leaving.extend(gone.map(|member| member.worker));
    }

    /// A worker is gone, and what it still had.
    pub(super) fn gone(&mut self, id: WorkerId) -> Vec<EndedBatch> {
        self.leave(id);
        let gone = self.leaving.extract_if(.., |worker| worker.id() == id);
        gone.flat_map(|worker| worker.abandon()).collect()
    }

    /// The workers that are not on their way out, the slower tiers first.
    pub(super) fn members(&self) -> &[Member<W>] {
        &self.members
    }

    pub(super) fn members_mut(&mut self) -> &mut [Member<W>] {
        &mut self.members
    }

    /// The worker of this name, unless it is on its way out.
    pub(super) fn find_mut(&mut self, id: WorkerId) -> Option<&mut Member<W>> {
        self.members.iter_mut().find(|member| member.worker.id() == id)
    }

    /// All workers, also those on their way out.
    pub(super) fn all(&self) -> impl Iterator<Item = &W> {
        self.members.iter().map(|member| &member.worker).chain(&self.leaving)
    }

    /// The workers on their way out.
    pub(super) fn leaving(&self) -> impl Iterator<Item = &W> {
        self.leaving.iter()
    }

    /// What a worker must be to get whatever comes: serving, or on probation while nothing serves.
    /// `None` if there is neither.
    pub(super) fn trusted(&self) -> Option<Standing> {
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
        self.trusted_members()
            .filter(move |(_, member)| wanted.is_some_and(|(_, best)| member.worker.tier() == best))
    }

    /// Those of a slower tier that ordinary batches would go to if there were no better one.
    pub(super) fn slower(&self) -> impl Iterator<Item = (usize, &Member<W>)> {
        let best = self.best();
        self.trusted_members().filter(move |(_, member)| Some(member.worker.tier()) < best)
    }

    fn trusted_members(&self) -> impl Iterator<Item = (usize, &Member<W>)> {
        let trusted = self.trusted();
        let members = self.members.iter().enumerate();
        members.filter(move |(_, member)| Some(member.standing) == trusted)
    }

    /// Whether another worker than this one could compute its texts.
    pub(super) fn has_other(&self, id: WorkerId) -> bool {
        let could = |member: &Member<W>| member.standing >= Standing::Probation && !member.late;
        self.members.iter().any(|member| member.worker.id() != id && could(member))
    }
}
