//! The dispatcher's decisions, as a state machine: workers come and go, texts arrive, batches are
//! sealed and sent, suspects run alone. It reads no clock and owns no thread.
//!
//! **Tiers.** Ordinary batches go to the serving workers of the best tier only: to the GPUs, and to
//! the CPU while no GPU serves. Sizes and estimates follow the speed measured of that tier.
//!
//! **Suspects.** Whatever was in a worker that died may have killed it. Each such text runs once
//! more, alone in its worker; if that one dies too, the text is poison and is answered as such.
//! It runs on the CPU if one serves and is empty, where nothing faster is put at risk. Suspects and
//! ordinary batches take turns, so neither waits for all of the other: when it is a suspect's turn
//! and no worker is empty, one worker, the CPU if there is one, gets nothing more until it is.
//! Among the suspects the most urgent class goes first.
//!
//! **Leaving.** A worker that is late, drains or is being ended gets no more batches, but what it
//! holds stays under watch until its end is reported: deadlines are kept, and nothing counts as
//! done.
//!
//! What becomes of batches that did not come back with results is in [`ends`].

mod canaries;
mod ends;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::canaries::CanaryDone;
pub(crate) use self::ends::FailedRows;
use self::ends::FailuresInARow;
use super::port::{Batch, Load, Standing, WorkerId, WorkerNews, WorkerPort};
use super::roster::Roster;
use crate::batch::{BatchPolicy, Batcher, Entry, Offer};
use crate::config::Tier;
use crate::error::EmbedError;
use crate::metrics::{Metrics, SealedShape, Stage, Unserved};
use crate::priority::Priority;
use crate::request::Pending;
use crate::supervisor::EndCause;

/// Batches that keep a worker busy: one computed, one waiting.
const BATCHES_AHEAD: usize = 2;

/// What the dispatcher knows and has yet to do.
pub(crate) struct Core<W> {
    batcher: Batcher<Pending>,
    suspects: VecDeque<Pending>,
    workers: Roster<W>,
    failures: FailuresInARow,
    suspect_had_last_turn: bool,
    next_batch_id: u64,
    /// Since when nothing serves, and how long accepted texts wait for that to change.
    down_since: Option<Instant>,
    down_grace: Duration,
    /// Why nothing will serve soon; `None` while a worker serves or is on its way.
    hopeless: Option<String>,
    deadline_slack: Duration,
    /// Expected time beyond which a worker that has [`BATCHES_AHEAD`] gets no more.
    in_flight_target: Duration,
    /// What the supervisor has not been told yet.
    news: Vec<WorkerNews>,
    metrics: Arc<Metrics>,
}

impl<W: WorkerPort> Core<W> {
    pub(crate) fn new(
        policy: BatchPolicy,
        down_grace: Duration,
        deadline_slack: Duration,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> Self {
        Self {
            in_flight_target: policy.duration_target,
            batcher: Batcher::new(policy),
            suspects: VecDeque::new(),
            workers: Roster::new(),
            failures: FailuresInARow::default(),
            suspect_had_last_turn: false,
            next_batch_id: 1,
            down_since: Some(now),
            down_grace,
            hopeless: None,
            deadline_slack,
            news: Vec::new(),
            metrics,
        }
    }

    /// Takes tokenized texts in.
    pub(crate) fn accept(&mut self, texts: Vec<Pending>, now: Instant) {
        if let Some(error) = self.refusal(now) {
            texts.into_iter().for_each(|text| text.reply(Err(error.clone())));
            return;
        }
        texts.into_iter().for_each(|pending| self.enqueue(pending));
    }

    /// A worker has greeted: it is warming, and gets no text before its standing is better.
    pub(crate) fn worker_up(&mut self, worker: W) {
        self.workers.up(worker);
    }

    /// The ladder says what a worker may be given from now on.
    pub(crate) fn set_standing(&mut self, id: WorkerId, standing: Standing, now: Instant) {
        let Some(member) = self.workers.find_mut(id) else { return };
        member.standing = standing;
        self.follow_level(now);
    }

    /// What the supervisor should know.
    pub(crate) fn take_news(&mut self) -> Vec<WorkerNews> {
        std::mem::take(&mut self.news)
    }

    /// A worker takes no more batches; what it has in flight may still come back.
    pub(crate) fn worker_leaving(&mut self, id: WorkerId, now: Instant) {
        self.workers.leave(id);
        self.follow_level(now);
    }

    /// Nothing will serve for a while, and why; everything that waits is told.
    pub(crate) fn no_hope(&mut self, reason: String) {
        if self.workers.best().is_some() {
            return;
        }
        let error = EmbedError::Unavailable { reason: reason.clone() };
        self.hopeless = Some(reason);
        self.answer_all(&error);
    }

    /// Drops what nobody waits for any more.
    pub(crate) fn sweep_cancelled(&mut self) {
        let swept = self.batcher.remove_if(|pending| pending.replier.is_cancelled());
        for entry in swept {
            self.cancelled(entry.payload);
        }
        let (gone, kept) =
            self.suspects.drain(..).partition::<Vec<_>, _>(|p| p.replier.is_cancelled());
        self.suspects = kept.into();
        gone.into_iter().for_each(|pending| self.cancelled(pending));
    }

    /// A worker has computed a batch of this many tokens in this time: the measure of later batches.
    pub(crate) fn completed(
        &mut self,
        worker: WorkerId,
        tier: Tier,
        tokens: usize,
        service: Duration,
    ) {
        self.failures.forget(worker);
        self.batcher.observe(tier, tokens, service);
    }

    pub(crate) fn set_draining(&mut self) {
        self.batcher.set_draining(true);
    }

    /// Answers everything that has not been sent to a worker.
    pub(crate) fn answer_all(&mut self, error: &EmbedError) {
        for entry in self.batcher.drain_all() {
            entry.payload.reply(Err(error.clone()));
        }
        for pending in self.suspects.drain(..) {
            pending.reply(Err(error.clone()));
        }
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_quiet(&self) -> bool {
        self.batcher.is_empty()
            && self.suspects.is_empty()
            && self.workers.all().all(|worker| worker.load().batches == 0)
    }

    /// Does everything that can be done now.
    pub(crate) fn pump(&mut self, now: Instant) {
        self.expire(now);
        while self.send_one(now) {}
        self.publish();
    }

    /// When `pump` must be called next although nothing happens.
    pub(crate) fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let mut takers = self.ordinary_takers(self.kept_clear()).map(|(_, worker)| worker.load());
        let batcher = match takers.any(|load| self.has_room(&load)) {
            true => self.batcher.next_wakeup(now),
            false => self.batcher.next_expiry(),
        };
        let suspects = self.suspects.iter().filter_map(|pending| pending.spec.deadline).min();
        let late = self.workers.members().iter().filter_map(|m| m.worker.next_late()).min();
        let expiry = self.workers.all().filter_map(W::next_expiry).min();
        let expiry = expiry.map(|expiry| expiry + self.deadline_slack);
        let waiting = !self.batcher.is_empty() || !self.suspects.is_empty();
        let down = self.down_since.filter(|_| waiting).map(|since| since + self.down_grace);
        [batcher, suspects, late, expiry, down].into_iter().flatten().min()
    }

    /// Expected time until what is queued now has been computed, by all the workers that ordinary
    /// batches go to.
    pub(crate) fn backlog(&self) -> Duration {
        let waiting = self.batcher.depth().tokens_total();
        let (workers, in_flight) = self.workers.busy();
        self.expected_duration((waiting + in_flight).div_ceil(workers.max(1)))
    }

    /// The time that so many tokens take one worker at the measured speed; zero before any
    /// measurement.
    fn expected_duration(&self, tokens: usize) -> Duration {
        match self.batcher.tokens_per_s() {
            Some(rate) if rate > 0.0 => {
                Duration::try_from_secs_f64(tokens as f64 / rate).unwrap_or(Duration::MAX)
            }
            _ => Duration::ZERO,
        }
    }

    fn refusal(&self, now: Instant) -> Option<EmbedError> {
        if let Some(reason) = &self.hopeless {
            return Some(EmbedError::Unavailable { reason: reason.clone() });
        }
        let down_for = now.saturating_duration_since(self.down_since?);
        (down_for >= self.down_grace).then(|| {
            let seconds = down_for.as_secs_f64();
            EmbedError::Unavailable { reason: format!("no worker has served for {seconds:.1} s") }
        })
    }

    fn enqueue(&mut self, pending: Pending) {
        let entry = Entry {
            id: 0,
            priority: pending.spec.priority,
            tokens: pending.ids.len(),
            queued_at: pending.queued_at,
            deadline: pending.spec.deadline,
            payload: pending,
        };
        if let Err(entry) = self.batcher.push(entry) {
            // The gate admits no more than the batcher holds, so this is a fault of ours.
            let message = "batcher is full although the gate had room".to_owned();
            entry.payload.reply(Err(EmbedError::Internal { message }));
        }
    }

    fn expire(&mut self, now: Instant) {
        for entry in self.batcher.expire(now) {
            self.metrics.unserved(Unserved::Expired);
            expired(entry.payload, "waiting for a batch");
        }
        if self.suspects.iter().any(|pending| pending.spec.expired(now)) {
            let (gone, kept) =
                self.suspects.drain(..).partition::<Vec<_>, _>(|p| p.spec.expired(now));
            self.suspects = kept.into();
            gone.into_iter().for_each(|p| expired(p, "waiting for its second run"));
        }
        // The slack is for the answer that is nearly there.
        let slack = now.checked_sub(self.deadline_slack).unwrap_or(now);
        for worker in self.workers.all() {
            for pending in worker.take_expired(slack) {
                expired(pending, "in a worker");
            }
        }
        let members = self.workers.members().iter().map(|member| &member.worker);
        let late = members.filter(|worker| worker.is_late(now));
        let late: Vec<WorkerId> = late.inspect(|w| w.end(EndCause::BatchLate)).map(W::id).collect();
        for id in late {
            self.worker_leaving(id, now);
        }
        if let Some(error) = self.refusal(now) {
            self.answer_all(&error);
        }
    }

    /// Sizes and estimates go by the speed of the workers that serve. While none does, by that of
    /// the last that did.
    fn follow_level(&mut self, now: Instant) {
        match self.workers.best() {
            Some(best) => {
                self.batcher.set_tier(best);
                self.down_since = None;
                self.hopeless = None;
            }
            None => {
                self.down_since.get_or_insert(now);
            }
        }
    }

    /// How many workers, the first ones, ordinary batches must leave alone: one if it is a
    /// suspect's turn.
    fn kept_clear(&self) -> usize {
        let turn = !self.suspect_had_last_turn || self.batcher.is_empty();
        usize::from(turn && !self.suspects.is_empty())
    }

    /// The workers that ordinary batches go to, without the first `skip` that could take a suspect.
    fn ordinary_takers(&self, skip: usize) -> impl Iterator<Item = (usize, &W)> {
        let slower = self
            .workers
            .members()
            .iter()
            .filter(|m| {
                m.standing >= Standing::Probation && Some(m.worker.tier()) < self.workers.best()
            })
            .count();
        let takers = self.workers.takers().map(|(index, member)| (index, &member.worker));
        takers.skip(skip.saturating_sub(slower))
    }

    /// Sends one batch if a worker can take one; says whether it did.
    fn send_one(&mut self, now: Instant) -> bool {
        if self.kept_clear() > 0 && self.send_suspect(now) {
            self.suspect_had_last_turn = true;
            return true;
        }
        let kept_clear = self.kept_clear();
        let sent = self.send_ordinary(now, kept_clear);
        if sent && kept_clear == 0 {
            self.suspect_had_last_turn = false;
        }
        sent
    }

    /// Whether a worker should be given an ordinary batch. One that is computed and one that waits
    /// keep it busy. More are of use only if both are over soon; otherwise what comes later and is
    /// more urgent would find them in front of it.
    fn has_room(&self, load: &Load) -> bool {
        let busy_for_long = load.batches >= BATCHES_AHEAD
            && self.expected_duration(load.tokens) > self.in_flight_target;
        load.free > 0 && !load.exclusive && !busy_for_long
    }

    /// Runs the next suspect on an empty worker, one of the slowest tier if there is one.
    fn send_suspect(&mut self, now: Instant) -> bool {
        let empty = |load: Load| load.batches == 0 && load.free > 0;
        let trusted = |standing| standing >= Standing::Probation;
        let place = self
            .workers
            .members()
            .iter()
            .position(|member| trusted(member.standing) && empty(member.worker.load()));
        let Some(index) = place else { return false };
        while let Some(pending) = self.suspects.pop_front() {
            if pending.replier.is_cancelled() {
                self.cancelled(pending);
                continue;
            }
            self.hand_over(index, vec![pending], true, now);
            return true;
        }
        false
    }

    /// Seals a batch for the least loaded worker that has a free slot, leaving the first `skip`
    /// workers alone.
    fn send_ordinary(&mut self, now: Instant, skip: usize) -> bool {
        let mut offers: Vec<(usize, usize, usize)> = self
            .ordinary_takers(skip)
            .map(|(index, worker)| (index, worker.load()))
            .filter(|(_, load)| self.has_room(load))
            .map(|(index, load)| (load.tokens, load.batches, index))
            .collect();
        offers.sort_unstable();
        for (_, batches, index) in offers {
            let (tokens_max, rows_max) = self.workers.members()[index].worker.slot_limits();
            let offer = Offer { worker_idle: batches == 0, tokens_max, rows_max };
            let Some(sealed) = self.batcher.seal(&offer, now) else { continue };
            self.metrics.batch_sealed(SealedShape {
                rows: sealed.entries.len(),
                tokens: sealed.tokens,
                tokens_target: sealed.tokens_target,
                oldest_wait: sealed.oldest_wait,
                reason: sealed.reason,
            });
            let rows: Vec<Pending> = sealed.entries.into_iter().map(|e| e.payload).collect();
            let (gone, rows) =
                rows.into_iter().partition::<Vec<_>, _>(|p| p.replier.is_cancelled());
            gone.into_iter().for_each(|pending| self.cancelled(pending));
            if !rows.is_empty() {
                self.hand_over(index, rows, false, now);
            }
            return true;
        }
        false
    }

    fn hand_over(&mut self, index: usize, mut rows: Vec<Pending>, exclusive: bool, now: Instant) {
        for pending in &mut rows {
            pending.executions += 1;
            let waited = now.saturating_duration_since(pending.queued_at);
            self.metrics.stage_took(Stage::Queue, waited);
        }
        let batch_id = self.next_batch_id;
        self.next_batch_id += 1;
        let worker = &self.workers.members()[index].worker;
        let start = Instant::now();
        let handed_over = worker.run(Batch { batch_id, rows, exclusive }, now);
        self.metrics.stage_took(Stage::Dispatch, start.elapsed());
        if let Err(mut back) = handed_over {
            // It never reached the worker, so it does not count as a run.
            back.rows.iter_mut().for_each(|pending| pending.executions -= 1);
            let id = worker.id();
            self.worker_leaving(id, now);
            for pending in back.rows {
                if back.exclusive {
                    self.suspects.push_front(pending);
                } else {
                    self.enqueue(pending);
                }
            }
        }
    }

    fn cancelled(&self, pending: Pending) {
        self.metrics.unserved(Unserved::Cancelled);
        pending.reply(Err(EmbedError::Cancelled));
    }

    fn publish(&self) {
        let depth = self.batcher.depth();
        for priority in Priority::ALL {
            let index = priority.index();
            self.metrics.queue_depth(priority, depth.rows[index], depth.tokens[index]);
        }
        self.workers.members().iter().for_each(|member| member.worker.publish());
    }
}

fn expired(pending: Pending, waiting: &'static str) {
    pending.reply(Err(EmbedError::DeadlineExceeded { waiting }));
}
