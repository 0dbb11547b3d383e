//! Batches that take much longer than their like: another worker computes their texts too, long
//! before the worker that has them counts as hung.

use std::time::Instant;

use super::Core;
use super::ends::EXECUTIONS_MAX;
use crate::dispatch::port::{LateBatch, Standing, WorkerId, WorkerNews, WorkerPort};

impl<W: WorkerPort> Core<W> {
    /// Finds the workers that have become late and those that have caught up.
    pub(super) fn look_for_late(&mut self, now: Instant) {
        let members = self.workers.members();
        let caught_up = members.iter().filter(|m| m.late && m.worker.load().batches == 0);
        let caught_up: Vec<WorkerId> = caught_up.map(|member| member.worker.id()).collect();
        for id in caught_up {
            if let Some(member) = self.workers.find_mut(id) {
                member.late = false;
            }
            self.news.push(WorkerNews::CaughtUp { id });
        }
        // One at a time: with each one the others may become the last that can compute anything.
        while let Some((id, batch)) = self.newly_late(now) {
            self.hedge(id, batch, now);
        }
    }

    /// When the next worker may become late.
    pub(super) fn next_late(&self, now: Instant) -> Option<Instant> {
        let well = self.workers.members().iter().filter(|member| !member.late);
        let next = well.filter_map(|member| member.worker.next_late());
        next.map(|batch| batch.at).filter(|at| *at > now).min()
    }

    fn newly_late(&self, now: Instant) -> Option<(WorkerId, LateBatch)> {
        let well = self.workers.members().iter().filter(|member| !member.late);
        let late = well.filter_map(|member| {
            let batch = member.worker.next_late().filter(|batch| batch.at <= now)?;
            Some((member.worker.id(), batch))
        });
        late.into_iter().find(|(id, _)| self.settings.hedge.enabled && self.workers.has_other(*id))
    }

    /// Takes a late worker out of use and lets others compute its texts too.
    fn hedge(&mut self, id: WorkerId, batch: LateBatch, now: Instant) {
        let Some(member) = self.workers.find_mut(id) else { return };
        member.late = true;
        member.standing = Standing::Suspect;
        let mut twins = member.worker.twins(EXECUTIONS_MAX, usize::MAX);
        self.follow_level(now);
        // Of these only the answer that is nearly there is of use.
        twins.retain(|twin| !twin.spec.expired(now));
        let found = twins.len();
        let allowed = self.reruns.take(found, now);
        // The rest stays with the late worker alone: it is not lost yet.
        for twin in twins.into_iter().take(allowed) {
            self.suspect(twin);
        }
        if allowed > 0 {
            self.metrics.hedged(allowed);
            self.metrics.batch_rerun(allowed);
        }
        if found > allowed {
            self.refused_reruns(found - allowed);
        }
        let reason = format!(
            "a batch of {} tokens has taken longer than {:.1} ms; {allowed} texts run elsewhere too",
            batch.tokens,
            batch.allowance.as_secs_f64() * 1e3,
        );
        self.news.push(WorkerNews::Late { id, reason, texts: allowed });
    }
}
