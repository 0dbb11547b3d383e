//! The dispatcher's decisions, as a state machine: workers come and go, texts arrive, batches are
//! sealed and sent, suspects run alone. It reads no clock and owns no thread.
//!
//! **Standing.** The ladder says what a worker may be given. Ordinary batches go to the serving
//! workers of the best tier: to the GPUs, and to the CPU while no GPU serves. A worker on probation
//! gets a small share of them; while nothing serves it gets all of them. Sizes and estimates follow
//! the speed measured of the tier ([`sending`]).
//!
//! **Suspects.** Whatever was in a worker that died may have killed it. Each such text runs once
//! more, alone in its worker ([`suspects`]); if that one dies too, the text is poison and is answered
//! as such ([`ends`]).
//!
//! **Late.** A batch that takes much longer than its like is computed by another worker too, and its
//! own gets nothing more until the ladder says so ([`late`]). Much later its worker counts as hung
//! and is ended.
//!
//! **Leaving.** A worker that drains or is being ended gets no more batches, but what it holds stays
//! under watch until its end is reported: deadlines are kept, and nothing counts as done.

mod canaries;
mod ends;
mod late;
mod outlook;
mod sending;
mod suspects;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::ends::FailedRows;
use self::ends::FailuresInARow;
pub(crate) use self::late::IDLE;
use self::late::{LOOK_AROUND, Punctuality};
use self::outlook::TextLength;
pub(crate) use self::outlook::VitalSigns;
use self::suspects::Suspects;
use super::budget::RerunBudget;
use super::lateness::Lateness;
use super::port::{BatchDone, Standing, WorkerId, WorkerNews, WorkerPort};
use super::roster::Roster;
use crate::batch::{BatchPolicy, Batcher, Entry};
use crate::config::HedgeConfig;
use crate::error::EmbedError;
use crate::metrics::{Metrics, Unserved};
use crate::priority::Priority;
use crate::request::Pending;

/// What a core works by.
#[derive(Clone)]
pub(crate) struct CoreSettings {
    pub(crate) batch: BatchPolicy,
    pub(crate) hedge: HedgeConfig,
    /// Expected time in the runtime above which a class is refused, by [`Priority::index`].
    pub(crate) waits_max: [Option<Duration>; 3],
    /// How long accepted texts wait for a worker while nothing serves.
    pub(crate) down_grace: Duration,
    /// How late after its deadline a text in a worker may still be told of it.
    pub(crate) deadline_slack: Duration,
}

/// What the dispatcher knows and has yet to do.
pub(crate) struct Core<W> {
    settings: CoreSettings,
    batcher: Batcher<Pending>,
    suspects: Suspects,
    workers: Roster<W>,
    failures: FailuresInARow,
    lateness: Lateness,
    punctuality: Punctuality,
    reruns: RerunBudget,
    text_length: TextLength,
    next_batch_id: u64,
    /// Since when nothing serves.
    down_since: Option<Instant>,
    /// Why nothing will serve soon; `None` while a worker serves or is on its way.
    hopeless: Option<String>,
    /// What the supervisor has not been told yet.
    news: Vec<WorkerNews>,
    metrics: Arc<Metrics>,
}

impl<W: WorkerPort> Core<W> {
    pub(crate) fn new(settings: CoreSettings, metrics: Arc<Metrics>, now: Instant) -> Self {
        Self {
            batcher: Batcher::new(settings.batch.clone()),
            suspects: Suspects::default(),
            workers: Roster::new(),
            failures: FailuresInARow::default(),
            lateness: Lateness::new(&settings.hedge),
            punctuality: Punctuality::default(),
            reruns: RerunBudget::new(&settings.hedge),
            text_length: TextLength::default(),
            next_batch_id: 1,
            down_since: Some(now),
            hopeless: None,
            news: Vec::new(),
            settings,
            metrics,
        }
    }

    /// Takes tokenized texts in.
    pub(crate) fn accept(&mut self, texts: Vec<Pending>) {
        if let Some(reason) = &self.hopeless {
            let error = EmbedError::Unavailable { reason: reason.clone() };
            for text in texts {
                text.refuse(error.clone());
            }
            return;
        }
        for text in texts {
            // Withdrawn on its way here, and the notice of that has been heard before it came.
            if text.owed.is_cancelled() {
                self.cancelled(text);
                continue;
            }
            self.text_length.observe(text.ids.len());
            self.enqueue(text);
        }
    }

    /// A worker has greeted: it is warming, and gets no text before its standing is better.
    pub(crate) fn worker_up(&mut self, worker: W) {
        self.workers.up(worker);
    }

    /// The ladder says what a worker may be given from now on.
    pub(crate) fn set_standing(&mut self, id: WorkerId, standing: Standing, now: Instant) {
        // Of one that is late it was said before that was heard: what follows comes after it.
        let known = self.workers.find_mut(id).filter(|member| !member.late);
        let Some(member) = known else { return };
        if standing == Standing::Probation && member.standing != Standing::Probation {
            member.credit = 1.0;
        }
        member.standing = standing;
        self.follow_level(now);
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
        let swept = self.batcher.remove_if(|pending| pending.owed.is_cancelled());
        for entry in swept {
            self.cancelled(entry.payload);
        }
        for pending in self.suspects.extract(|pending| pending.owed.is_cancelled()) {
            self.cancelled(pending);
        }
    }

    /// A worker has computed a batch: the measure of later batches.
    pub(crate) fn completed(&mut self, done: &BatchDone, now: Instant) {
        let BatchDone { worker: id, tier, tokens, texts, service, exclusive, good } = *done;
        self.failures.forget(id);
        self.reruns.answered(texts, now);
        self.lateness.observe(tier, tokens, service);
        if exclusive {
            self.suspects.measured(tier, service);
        }
        let standing = self.workers.find_mut(id).map(|member| {
            if member.worker.side_by_side() > 1 {
                self.batcher.completed();
            }
            let turn = self.settings.batch.duration_target;
            member.count_time(exclusive, service, turn);
            member.standing
        });
        // What a late worker needed says nothing about the next batch.
        if standing != Some(Standing::Suspect) {
            self.batcher.observe(tier, tokens, service);
        }
        if standing == Some(Standing::Probation) && good && texts > 0 {
            self.news.push(WorkerNews::Good { id });
        }
    }

    pub(crate) fn set_draining(&mut self) {
        self.batcher.set_draining(true);
    }

    /// Answers everything that has not been sent to a worker.
    pub(crate) fn answer_all(&mut self, error: &EmbedError) {
        for entry in self.batcher.drain_all() {
            entry.payload.refuse(error.clone());
        }
        for pending in self.suspects.extract(|_| true) {
            // A twin may be in a worker still.
            if let Some(last) = pending.give_up() {
                last.refuse(error.clone());
            }
        }
    }

    /// Whether nothing waits and nothing is in flight, but what a late worker will not let go of.
    pub(crate) fn is_quiet(&self) -> bool {
        let late = |worker: &W| {
            let mut members = self.workers.members().iter();
            members.any(|member| member.late && member.worker.id() == worker.id())
        };
        self.batcher.is_empty()
            && self.suspects.is_empty()
            && self.workers.all().all(|worker| worker.load().batches == 0 || late(worker))
    }

    /// What the supervisor should know.
    pub(crate) fn take_news(&mut self) -> Vec<WorkerNews> {
        std::mem::take(&mut self.news)
    }

    /// Does everything that can be done now.
    pub(crate) fn pump(&mut self, now: Instant) {
        let judges = self.look_at_clock(now);
        self.expire(now);
        if judges {
            self.judge(now);
        }
        self.send_canaries(now);
        self.note_company(now);
        while self.send_one(now) {}
        self.publish();
    }

    /// When `pump` must be called next although nothing happens.
    pub(crate) fn next_wakeup(&mut self, now: Instant) -> Option<Instant> {
        let wakeup = self.wakeup(now);
        self.punctuality.plan(now, wakeup);
        wakeup
    }

    fn wakeup(&self, now: Instant) -> Option<Instant> {
        let mut takers = self.ordinary_takers(now).peekable();
        let (mut batcher, mut busy, mut judgement, mut expiry) =
            (self.batcher.next_expiry(), false, None, None);
        for (index, member) in self.workers.members().iter().enumerate() {
            let view = member.worker.view();
            let side_by_side = member.worker.side_by_side();
            if takers.next_if_eq(&index).is_some() && self.has_room(side_by_side, &view.load) {
                batcher = earlier(batcher, self.batcher.next_wakeup(side_by_side, now));
            }
            busy |= view.next_hung.is_some();
            judgement = earlier(judgement, self.next_judgement(member, &view, now));
            expiry = earlier(expiry, view.next_expiry);
        }
        let of_leaving = self.workers.leaving().filter_map(W::next_expiry).min();
        let expiry = earlier(expiry, of_leaving).map(|at| at + self.settings.deadline_slack);
        let suspects = self.suspects.next_expiry();
        let for_slower = self.slower_overdue_at(now);
        let look = busy.then(|| now + LOOK_AROUND);
        let waiting = !self.batcher.is_empty() || !self.suspects.is_empty();
        let down =
            self.down_since.filter(|_| waiting).map(|since| since + self.settings.down_grace);
        let all = [batcher, suspects, for_slower, judgement, look, expiry, down];
        all.into_iter().flatten().min()
    }

    fn refusal(&self, now: Instant) -> Option<EmbedError> {
        if let Some(reason) = &self.hopeless {
            return Some(EmbedError::Unavailable { reason: reason.clone() });
        }
        let down_for = now.saturating_duration_since(self.down_since?);
        (down_for >= self.settings.down_grace).then(|| {
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
            entry.payload.refuse(EmbedError::Internal { message });
        }
    }

    fn expire(&mut self, now: Instant) {
        for entry in self.batcher.expire(now) {
            self.metrics.unserved(Unserved::Expired);
            expired(entry.payload, "waiting for a batch");
        }
        if self.suspects.next_expiry().is_some_and(|at| at <= now) {
            let gone = self.suspects.extract(|pending| pending.spec.expired(now));
            // A twin in a worker has the slack yet.
            for last in gone.into_iter().filter_map(Pending::give_up) {
                expired(last, "waiting for its second run");
            }
        }
        // The slack is for the answer that is nearly there.
        let slack = now.checked_sub(self.settings.deadline_slack).unwrap_or(now);
        for worker in self.workers.all() {
            for pending in worker.take_expired(slack) {
                expired(pending, "in a worker");
            }
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

    fn cancelled(&self, pending: Pending) {
        if pending.reply(Err(EmbedError::Cancelled)) {
            self.metrics.unserved(Unserved::Cancelled);
        }
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

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn expired(pending: Pending, waiting: &'static str) {
    pending.refuse(EmbedError::DeadlineExceeded { waiting });
}
