//! Which worker gets the next ordinary batch, and handing batches over.
//!
//! The least loaded worker of the best tier goes first. A worker on probation has a credit of at
//! most one batch, to which each batch for the serving workers adds `hedge.probation_share`: it gets
//! texts whose deadline leaves time for a second run, one batch at a time. Credit does not matter while
//! only a slower tier serves and would not get to all that waits within `hedge.probation_wait_ms`:
//! what was let in at the speed of a GPU that has just been taken out of use would wait for seconds.
//!
//! **Side by side.** Some workers compute several batches at once, each with its share of the cores:
//! that wastes less, while a batch alone is done sooner with all of them. An idle one is given what
//! waits in equal parts side by side if it is enough for that, else as one batch for all the cores.
//! While batches run side by side, another one joins them when it is large enough ([`Batcher`]).
//! Nothing is sent ahead: the worker is not idle between two batches while another one runs.
//!
//! [`Batcher`]: crate::batch::Batcher

use std::time::{Duration, Instant};

use super::Core;
use crate::batch::{Offer, SealedBatch};
use crate::dispatch::port::{Batch, Load, Standing, WorkerPort};
use crate::metrics::{SealedShape, Stage};
use crate::request::Pending;

/// Batches that keep a worker busy that computes one after the other: one computed, one waiting.
const BATCHES_AHEAD: usize = 2;
/// Tokens that are worth being shared out among batches side by side: fewer are done soonest with all
/// cores.
const SPLIT_TOKENS_MIN: usize = 64;
/// And rows.
const SPLIT_ROWS_MIN: usize = 2;
/// Times that a part may be larger than an equal one: beside a much longer one the other cores would
/// be idle for most of its time.
const SPLIT_UNEVEN_MAX: f64 = 1.4;
/// While nothing is known about lateness, a batch on probation is late after so many times what it
/// is expected to take, or so many times `hedge.floor_ms`.
const PROBATION_FACTOR: u32 = 10;

/// How a batch runs; see [`Batch`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RunAs {
    /// With all the cores.
    Whole,
    /// With its share of the cores.
    Beside,
    /// Exclusively, and with all the cores.
    Suspect,
}

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
    /// more urgent would find them in front of it. One that computes batches `side_by_side` gets as
    /// many, and nothing beside a batch that has all its cores.
    pub(super) fn has_room(&self, side_by_side: usize, load: &Load) -> bool {
        if side_by_side > 1 {
            let whole = load.whole && !mutated!(JoinsWholeBatches);
            return load.free > 0 && !whole && !load.exclusive && load.batches < side_by_side;
        }
        let busy_for_long = load.batches >= BATCHES_AHEAD
            && self.expected_duration(load.tokens) > self.settings.batch.duration_target;
        load.free > 0 && !load.exclusive && !busy_for_long
    }

    /// Seals a batch for the least loaded worker that has a free slot.
    fn send_ordinary(&mut self, now: Instant) -> bool {
        let members = self.workers.members();
        let mut offers: Vec<(usize, Load)> = self
            .ordinary_takers(now)
            .map(|index| (index, members[index].worker.load()))
            .filter(|(index, load)| self.has_room(members[*index].worker.side_by_side(), load))
            .collect();
        offers.sort_unstable_by_key(|(index, load)| (load.tokens, load.batches, *index));
        for (index, load) in offers {
            let side_by_side = self.workers.members()[index].worker.side_by_side();
            let sent = match load.batches {
                0 if side_by_side > 1 && load.free > 1 && self.is_worth_splitting() => {
                    self.send_split(index, side_by_side.min(load.free), now)
                }
                0 => self.send_offered(index, self.offer(index, true, 1), now),
                _ => self.send_offered(index, self.offer(index, false, side_by_side), now),
            };
            if sent {
                return true;
            }
        }
        false
    }

    /// Whether what waits is shared out among batches side by side.
    fn is_worth_splitting(&self) -> bool {
        let depth = self.batcher.depth();
        depth.rows_total() >= SPLIT_ROWS_MIN && depth.tokens_total() >= SPLIT_TOKENS_MIN
    }

    /// Gives an idle worker what waits in `parts` batches of about as many tokens, or of as many as a
    /// batch may have. What cannot be shared out evenly goes alone, with all the cores. Says whether
    /// it sent one.
    fn send_split(&mut self, index: usize, parts: usize, now: Instant) -> bool {
        let id = self.workers.members()[index].worker.id();
        let mut sent = false;
        for left in (1..=parts).rev() {
            // One that could not take its part is no longer there.
            let there = self.workers.members().get(index);
            let Some(member) = there.filter(|member| member.worker.id() == id) else { break };
            let side_by_side = member.worker.side_by_side();
            let waiting = self.batcher.depth().tokens_total();
            let offer = self.offer(index, true, side_by_side);
            let Some(sealed) = self.batcher.seal_part(&offer, left, now) else { break };
            let alone = !sent && is_uneven(&sealed, waiting, left);
            sent = true;
            let run_as = if alone { RunAs::Whole } else { RunAs::Beside };
            self.send_ordinary_batch(index, sealed, run_as, now);
            if alone {
                break;
            }
        }
        sent
    }

    /// Seals a batch for this offer of a worker and sends it; says whether there was one.
    fn send_offered(&mut self, index: usize, offer: Offer, now: Instant) -> bool {
        let Some(sealed) = self.batcher.seal(&offer, now) else { return false };
        let run_as = if offer.side_by_side > 1 { RunAs::Beside } else { RunAs::Whole };
        self.send_ordinary_batch(index, sealed, run_as, now);
        true
    }

    /// Sends a batch to a worker that serves, and gives those on probation their credit for it.
    fn send_ordinary_batch(
        &mut self,
        index: usize,
        sealed: SealedBatch<Pending>,
        run_as: RunAs,
        now: Instant,
    ) {
        let share = self.settings.hedge.probation_share;
        let on_probation = self.workers.members_mut().iter_mut();
        for member in on_probation.filter(|member| member.standing == Standing::Probation) {
            member.credit = (member.credit + share).min(1.0);
        }
        self.send_sealed(index, sealed, run_as, now);
    }

    /// Lets the batcher know how much is under way where batches run side by side.
    pub(super) fn note_company(&mut self, now: Instant) {
        let members = self.workers.members();
        let takers = self.ordinary_takers(now).map(|index| &members[index].worker);
        let beside = takers.filter(|worker| worker.side_by_side() > 1);
        let rows: Vec<usize> = beside.map(|worker| worker.load().rows).collect();
        if !rows.is_empty() {
            let all = rows.iter().sum::<usize>() + self.batcher.depth().rows_total();
            self.batcher.under_way(all.div_ceil(rows.len()));
        }
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
        // Alone with all the cores: it is the one batch that is at risk.
        let offer = self.offer(index, true, 1);
        let Some(sealed) = self.batcher.seal_unhurried(&offer, deadline_min, now) else {
            return false;
        };
        let credit = &mut self.workers.members_mut()[index].credit;
        *credit = (*credit - 1.0).max(0.0);
        self.send_sealed(index, sealed, RunAs::Whole, now);
        true
    }

    /// Whether the workers that ordinary batches go to are far from getting to all that waits.
    fn is_behind(&self) -> bool {
        let Some(wait_max) = self.settings.hedge.probation_wait() else { return false };
        let workers = self.workers.takers().count().max(1);
        let each = self.batcher.depth().tokens_total().div_ceil(workers);
        self.expected_duration(each) > wait_max
    }

    fn offer(&self, index: usize, worker_idle: bool, side_by_side: usize) -> Offer {
        let (tokens_max, rows_max) = self.workers.members()[index].worker.slot_limits();
        Offer { worker_idle, side_by_side, tokens_max, rows_max }
    }

    fn send_sealed(
        &mut self,
        index: usize,
        sealed: SealedBatch<Pending>,
        run_as: RunAs,
        now: Instant,
    ) {
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
            self.hand_over(index, rows, run_as, now);
        }
    }

    pub(super) fn hand_over(
        &mut self,
        index: usize,
        mut rows: Vec<Pending>,
        run_as: RunAs,
        now: Instant,
    ) {
        for pending in &mut rows {
            pending.owed.begin_run();
            let waited = now.saturating_duration_since(pending.queued_at);
            self.metrics.stage_took(Stage::Queue, waited);
        }
        let (exclusive, beside) = (run_as == RunAs::Suspect, run_as == RunAs::Beside);
        let tokens = rows.iter().map(|pending| pending.ids.len()).sum();
        let late_after = self.late_after(index, tokens);
        let batch_id = self.new_batch_id();
        let worker = &self.workers.members()[index].worker;
        let start = Instant::now();
        let handed_over = worker.run(Batch { batch_id, rows, exclusive, beside, late_after }, now);
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

    /// When a batch of so many tokens counts as late on this worker if it has all the cores.
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

/// Whether this first part, or one of those that are to come, would be far larger than an equal one.
fn is_uneven(first: &SealedBatch<Pending>, waiting: usize, parts: usize) -> bool {
    // A single text may have more than the target.
    let tokens_max = first.tokens_target.max(first.tokens);
    let others = waiting.saturating_sub(first.tokens).div_ceil(parts.saturating_sub(1).max(1));
    let largest = first.tokens.max(others.min(tokens_max));
    let equal = waiting.div_ceil(parts).min(tokens_max);
    largest as f64 > SPLIT_UNEVEN_MAX * equal as f64
}
