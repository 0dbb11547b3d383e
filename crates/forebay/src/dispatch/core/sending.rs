//! Which worker gets the next ordinary batch, and handing batches over.
//!
//! The least loaded worker of the best tier goes first. A worker on probation has a credit of at
//! most one batch, to which each batch for the serving workers adds `hedge.probation_share`: it gets
//! texts whose deadline leaves time for a second run, one batch at a time. Credit does not matter while
//! only a slower tier serves and would not get to all that waits within `hedge.probation_wait_ms`:
//! what was let in at the speed of a GPU that has just been taken out of use would wait for seconds.

use std::time::{Duration, Instant};

use super::Core;
use crate::batch::{Offer, SealedBatch};
use crate::dispatch::port::{Batch, Load, Standing, WorkerPort};
use crate::metrics::{SealedShape, Stage};
use crate::request::Pending;

/// Batches that keep a worker busy: one computed, one waiting.
const BATCHES_AHEAD: usize = 2;
/// While nothing is known about lateness, a batch on probation is late after so many times what it
/// is expected to take, or so many times `hedge.floor_ms`.
const PROBATION_FACTOR: u32 = 10;

impl<W: WorkerPort> Core<W> {
    /// Sends one batch if a worker can take one; says whether it did.
    pub(super) fn send_one(&mut self, now: Instant) -> bool {
        self.send_suspect(now) || self.send_on_probation(now) || self.send_ordinary(now)
    }

    /// The places of the workers that ordinary batches go to now, in their order.
    pub(super) fn ordinary_takers(&self, now: Instant) -> impl Iterator<Item = usize> {
        let kept_clear = self.kept_clear(now);
        let takers = self.workers.takers().map(|(index, _)| index);
        takers.filter(move |index| !kept_clear.contains(index))
    }

    /// Whether a worker should be given an ordinary batch. One that is computed and one that waits
    /// keep it busy. More are of use only if both are over soon; otherwise what comes later and is
    /// more urgent would find them in front of it.
    pub(super) fn has_room(&self, load: &Load) -> bool {
        let busy_for_long = load.batches >= BATCHES_AHEAD
            && self.expected_duration(load.tokens) > self.settings.batch.duration_target;
        load.free > 0 && !load.exclusive && !busy_for_long
    }

    /// Seals a batch for the least loaded worker that has a free slot.
    fn send_ordinary(&mut self, now: Instant) -> bool {
        let mut offers: Vec<(usize, usize, usize)> = self
            .ordinary_takers(now)
            .map(|index| (index, self.workers.members()[index].worker.load()))
            .filter(|(_, load)| self.has_room(load))
            .map(|(index, load)| (load.tokens, load.batches, index))
            .collect();
        offers.sort_unstable();
        for (_, batches, index) in offers {
            let offer = self.offer(index, batches);
            let Some(sealed) = self.batcher.seal(&offer, now) else { continue };
            let share = self.settings.hedge.probation_share;
            let on_probation = self.workers.members_mut().iter_mut();
            for member in on_probation.filter(|member| member.standing == Standing::Probation) {
                member.credit = (member.credit + share).min(1.0);
            }
            self.send_sealed(index, sealed, now);
            return true;
        }
        false
    }

    /// Gives a worker on probation a batch of its share, while another serves.
    fn send_on_probation(&mut self, now: Instant) -> bool {
        let best = self.workers.best();
        if self.workers.trusted() != Some(Standing::Serving) {
            return false;
        }
        let place = self.workers.members().iter().position(|member| {
            let tier = Some(member.worker.tier());
            member.standing == Standing::Probation
                && tier >= best
                && member.is_free()
                && (member.credit >= 1.0 || (tier > best && self.is_behind()))
        });
        let Some(index) = place else { return false };
        let target = self.batcher.tokens_target();
        let margin = self.late_after_on_probation(index, target);
        let again = self.expected_duration(target).saturating_mul(2);
        let Some(deadline_min) = now.checked_add(margin + again) else { return false };
        let offer = self.offer(index, 0);
        let Some(sealed) = self.batcher.seal_unhurried(&offer, deadline_min, now) else {
            return false;
        };
        let credit = &mut self.workers.members_mut()[index].credit;
        *credit = (*credit - 1.0).max(0.0);
        self.send_sealed(index, sealed, now);
        true
    }

    /// Whether the workers that ordinary batches go to are far from getting to all that waits.
    fn is_behind(&self) -> bool {
        let Some(wait_max) = self.settings.hedge.probation_wait() else { return false };
        let workers = self.workers.takers().count().max(1);
        let each = self.batcher.depth().tokens_total().div_ceil(workers);
        self.expected_duration(each) > wait_max
    }

    fn offer(&self, index: usize, batches: usize) -> Offer {
        let (tokens_max, rows_max) = self.workers.members()[index].worker.slot_limits();
        Offer { worker_idle: batches == 0, tokens_max, rows_max }
    }

    fn send_sealed(&mut self, index: usize, sealed: SealedBatch<Pending>, now: Instant) {
        self.metrics.batch_sealed(SealedShape {
            rows: sealed.entries.len(),
            tokens: sealed.tokens,
            tokens_target: sealed.tokens_target,
            oldest_wait: sealed.oldest_wait,
            reason: sealed.reason,
        });
        let mut rows: Vec<Pending> = sealed.entries.into_iter().map(|e| e.payload).collect();
        // As a rule there are none, and the others stay where they are.
        for gone in rows.extract_if(.., |pending| pending.owed.is_cancelled()) {
            self.cancelled(gone);
        }
        if !rows.is_empty() {
            self.hand_over(index, rows, false, now);
        }
    }

    pub(super) fn hand_over(
        &mut self,
        index: usize,
        mut rows: Vec<Pending>,
        exclusive: bool,
        now: Instant,
    ) {
        for pending in &mut rows {
            pending.owed.begin_run();
            let waited = now.saturating_duration_since(pending.queued_at);
            self.metrics.stage_took(Stage::Queue, waited);
        }
        let tokens = rows.iter().map(|pending| pending.ids.len()).sum();
        let late_after = self.late_after(index, tokens);
        let batch_id = self.new_batch_id();
        let worker = &self.workers.members()[index].worker;
        let start = Instant::now();
        let handed_over = worker.run(Batch { batch_id, rows, exclusive, late_after }, now);
        self.metrics.stage_took(Stage::Dispatch, start.elapsed());
        if let Err(mut back) = handed_over {
            // It never reached the worker, so it does not count as a run.
            back.rows.iter_mut().for_each(|pending| pending.owed.undo_run());
            let id = worker.id();
            self.worker_leaving(id, now);
            for pending in back.rows {
                if back.exclusive {
                    self.suspects.put_back(pending);
                } else {
                    self.enqueue(pending);
                }
            }
        }
    }

    pub(super) fn new_batch_id(&mut self) -> u64 {
        let batch_id = self.next_batch_id;
        self.next_batch_id += 1;
        batch_id
    }

    /// When a batch of so many tokens counts as late on this worker.
    pub(super) fn late_after(&self, index: usize, tokens: usize) -> Option<Duration> {
        let member = &self.workers.members()[index];
        match member.standing {
            Standing::Probation => Some(self.late_after_on_probation(index, tokens)),
            _ => self.lateness.late_after(member.worker.tier(), tokens),
        }
        .filter(|_| self.settings.hedge.enabled)
    }

    fn late_after_on_probation(&self, index: usize, tokens: usize) -> Duration {
        let tier = self.workers.members()[index].worker.tier();
        self.lateness.late_after(tier, tokens).unwrap_or_else(|| {
            let expected = self.expected_on(tier, tokens).unwrap_or(Duration::ZERO);
            expected.max(self.lateness.floor()).saturating_mul(PROBATION_FACTOR)
        })
    }
}
