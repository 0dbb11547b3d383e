//! Batches that take much longer than their like: another worker computes their texts too, long
//! before the worker that has them counts as hung.
//!
//! Nobody is judged right after the dispatcher itself was held up, by a busy machine, a debugger or
//! a virtual machine that stood still: what it would take for late may have been answered long ago
//! and only wait to be read. And the worker may have stood still as well, so the time does not count.

use std::time::{Duration, Instant};

use super::Core;
use super::ends::EXECUTIONS_MAX;
use crate::dispatch::port::{LateBatch, Standing, View, WorkerId, WorkerNews, WorkerPort};
use crate::dispatch::roster::Member;
use crate::supervisor::EndCause;

/// Part of `hedge.floor_ms` by which the dispatcher may be held up and still judge.
const HELD_UP_PART: u32 = 4;
/// Whoever calls it must do so at least this often.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// While anything is in flight the dispatcher looks around at least this often: so much of the time
/// that a worker has may be lost when the dispatcher was held up and cannot see it.
pub(super) const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Whether the dispatcher comes in time to judge anybody.
#[derive(Default)]
pub(super) struct Punctuality {
    /// When it last did its work, and when it is to do it again at the latest.
    planned: Option<(Instant, Instant)>,
    /// Nobody is judged before.
    judges_from: Option<Instant>,
}

impl Punctuality {
    pub(super) fn plan(&mut self, now: Instant, wakeup: Option<Instant>) {
        let idle = now + IDLE;
        self.planned = Some((now, wakeup.map_or(idle, |wakeup| wakeup.min(idle))));
    }

    /// Whether workers may be judged now, or else how much of the time does not count. After a delay
    /// of more than `tolerance` they have as long again to be heard; then they are judged, also by one
    /// that is always held up. As nobody knows when the delay began, all the time since the last call
    /// is taken for it.
    fn judges(&mut self, now: Instant, tolerance: Duration) -> Result<(), Duration> {
        let held_up = self.planned.filter(|(_, wakeup)| now > *wakeup + tolerance);
        match (self.judges_from, held_up) {
            (Some(from), _) if now < from => Err(Duration::ZERO),
            (None, Some((last, _))) if !mutated!(JudgesAfterStalls) => {
                self.judges_from = Some(now + tolerance);
                Err(now.saturating_duration_since(last))
            }
            _ => {
                self.judges_from = None;
                Ok(())
            }
        }
    }

    /// The moment at which somebody can be judged for what happens at `at`.
    pub(super) fn judged_at(&self, at: Instant) -> Instant {
        self.judges_from.map_or(at, |from| at.max(from))
    }
}

/// Whether a worker hangs, is late, or has caught up.
fn is_to_judge<W: WorkerPort>(member: &Member<W>, now: Instant) -> bool {
    let view = member.worker.view();
    view.next_hung.is_some_and(|at| at <= now)
        || match member.late {
            true => view.load.batches == 0,
            false => view.next_late.is_some_and(|batch| batch.at <= now),
        }
}

impl<W: WorkerPort> Core<W> {
    /// Time in which the dispatcher was held up does not count for anybody: not for workers, and not
    /// as time without any, as the news of one may only wait to be read.
    fn discount(&mut self, by: Duration) {
        self.workers.members().iter().for_each(|member| member.worker.postpone(by));
        self.down_since = self.down_since.map(|since| since + by);
    }

    /// Judges the workers: ends those that hang, takes those that are late out of use.
    pub(super) fn judge(&mut self, now: Instant) {
        // Nearly always there is nobody to judge: one look at each worker says so.
        if self.workers.members().iter().any(|member| is_to_judge(member, now)) {
            self.end_hung(now);
            self.look_for_late(now);
        }
    }

    /// Whether workers may be judged. Comes before anything that depends on the time.
    pub(super) fn look_at_clock(&mut self, now: Instant) -> bool {
        let tolerance = self.lateness.floor() / HELD_UP_PART;
        let judges = self.punctuality.judges(now, tolerance);
        if let Err(lost) = judges {
            self.discount(lost);
        }
        judges.is_ok()
    }

    fn end_hung(&mut self, now: Instant) {
        let members = self.workers.members().iter().map(|member| &member.worker);
        let hung = members.filter(|worker| worker.next_hung().is_some_and(|at| at <= now));
        let hung: Vec<WorkerId> = hung.inspect(|w| w.end(EndCause::BatchLate)).map(W::id).collect();
        for id in hung {
            self.worker_leaving(id, now);
        }
    }

    /// Finds the workers that have become late and those that have caught up.
    fn look_for_late(&mut self, now: Instant) {
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

    /// When the worker that is seen so may become late or counts as hung.
    pub(super) fn next_judgement(
        &self,
        member: &Member<W>,
        view: &View,
        now: Instant,
    ) -> Option<Instant> {
        let hung = view.next_hung.map(|at| self.punctuality.judged_at(at));
        let late = view.next_late.filter(|_| !member.late);
        let late = late.map(|batch| self.punctuality.judged_at(batch.at)).filter(|at| *at > now);
        hung.into_iter().chain(late).min()
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
