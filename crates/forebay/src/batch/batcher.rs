//! The batcher itself: holds the class queues, decides at each offer whether a batch goes now, and
//! tells when that answer could change. It never acts on its own: the caller brings entries,
//! offers and the time, and takes away batches and what has expired.

use std::time::{Duration, Instant};

use super::company::{Company, longest_wait};
use super::pace::Pace;
use super::policy::BatchPolicy;
use super::queue::ClassQueue;
use super::select::Selection;
use super::{Depth, Entry, Offer, SealReason, SealedBatch};
use crate::config::Tier;
use crate::priority::Priority;

/// Entries on their way into batches. See the [module](super) for the rules.
///
/// Every entry that `push` accepted comes out exactly once, by one of [`seal`](Self::seal),
/// [`expire`](Self::expire), [`remove_if`](Self::remove_if) or [`drain_all`](Self::drain_all).
/// The times passed in may repeat but should not run backwards.
#[derive(Clone, Debug)]
pub struct Batcher<T> {
    policy: BatchPolicy,
    /// Indexed by [`Priority::index`].
    queues: [ClassQueue<T>; 3],
    /// Found expired by `seal`, and not collected by `expire` yet.
    expired: Vec<Entry<T>>,
    /// By tier.
    paces: [Pace; 2],
    /// What a batch that runs beside others waits for.
    company: Company,
    /// The tier of the workers that batches go to now.
    tier: Tier,
    /// See [`Selection::fill`].
    aged_owed: bool,
    draining: bool,
}

impl<T> Batcher<T> {
    /// An empty batcher that works by `policy`.
    #[must_use]
    pub fn new(policy: BatchPolicy) -> Self {
        let policy = policy.corrected();
        Self {
            queues: [ClassQueue::new(), ClassQueue::new(), ClassQueue::new()],
            expired: Vec::new(),
            paces: Default::default(),
            company: Company::default(),
            tier: Tier::Cpu,
            aged_owed: false,
            draining: false,
            policy,
        }
    }

    /// Queues an entry behind those of its class, also while draining.
    ///
    /// # Errors
    /// Hands the entry back if `entries_max` entries are held already (expired ones that
    /// [`expire`](Self::expire) has not collected yet are counted).
    #[inline]
    pub fn push(&mut self, entry: Entry<T>) -> Result<(), Entry<T>> {
        if self.len() >= self.policy.entries_max {
            return Err(entry);
        }
        self.queues[entry.priority.index()].push(entry);
        Ok(())
    }

    /// Answers a worker's offer of a free slot: the batch that it should run now, or `None` if
    /// nothing waits or if waiting for more pays (ask again after the next `push` or at
    /// [`next_wakeup`](Self::next_wakeup)). An idle worker is never told to wait.
    ///
    /// The batch holds no expired entry, no more rows than the policy and the offer allow, and no
    /// more tokens than those two and [`tokens_target`](Self::tokens_target), unless it is a
    /// single entry. Whatever entry is then first in its class would not have fitted.
    pub fn seal(&mut self, offer: &Offer, now: Instant) -> Option<SealedBatch<T>> {
        self.seal_from(offer, 1, None, now)
    }

    /// [`seal`](Self::seal) for one of `parts` batches that share out what waits: it takes no more
    /// than such a part of the tokens, unless it is a single entry.
    pub fn seal_part(
        &mut self,
        offer: &Offer,
        parts: usize,
        now: Instant,
    ) -> Option<SealedBatch<T>> {
        self.seal_from(offer, parts, None, now)
    }

    /// [`seal`](Self::seal) for a worker that is not to be relied on: entries whose deadline is
    /// before `deadline_min`, and those of their class behind them, stay for another.
    pub fn seal_unhurried(
        &mut self,
        offer: &Offer,
        deadline_min: Instant,
        now: Instant,
    ) -> Option<SealedBatch<T>> {
        self.seal_from(offer, 1, Some(deadline_min), now)
    }

    fn seal_from(
        &mut self,
        offer: &Offer,
        parts: usize,
        deadline_min: Option<Instant>,
        now: Instant,
    ) -> Option<SealedBatch<T>> {
        if offer.rows_max == 0 || offer.tokens_max == 0 {
            return None;
        }
        self.set_expired_apart(now);
        let rows_max = self.policy.rows_max.min(offer.rows_max);
        let side_by_side = offer.side_by_side.max(1);
        let tokens_target = self.tokens_target_of(side_by_side).min(offer.tokens_max);
        let reason = if offer.worker_idle && self.rows() > 0 {
            SealReason::Idle
        } else {
            self.reason_while_busy(rows_max, tokens_target, side_by_side, now)?
        };
        let tokens_max = tokens_target.min(self.tokens().div_ceil(parts.max(1)));
        let selected = Selection::new(&mut self.queues, &self.policy, now, rows_max, tokens_max)
            .with_deadline_min(deadline_min)
            .fill(self.aged_owed);
        if deadline_min.is_none() {
            self.aged_owed = selected.aged_owed;
        }
        let oldest = selected.entries.iter().map(|entry| entry.queued_at).min()?;
        Some(SealedBatch {
            entries: selected.entries,
            tokens: selected.tokens,
            tokens_target,
            reason,
            oldest_wait: now.saturating_duration_since(oldest),
        })
    }

    /// Takes out the entries whose deadline is `now` or earlier, in no particular order between
    /// classes. Costs a scan of those classes in which an entry has expired, else nothing.
    #[must_use = "each entry taken out is owed an answer"]
    pub fn expire(&mut self, now: Instant) -> Vec<Entry<T>> {
        self.set_expired_apart(now);
        std::mem::take(&mut self.expired)
    }

    /// Takes out the entries whose payload satisfies `leaves`: the sweep after cancellations. It
    /// scans everything, so sweep for many cancellations at once. `leaves` must not panic.
    #[must_use = "each entry taken out is owed an answer"]
    pub fn remove_if(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<Entry<T>> {
        let mut out: Vec<_> = self.expired.extract_if(.., |entry| leaves(&entry.payload)).collect();
        for queue in &mut self.queues {
            queue.remove_if(|entry| leaves(&entry.payload), &mut out);
        }
        out
    }

    /// Takes out everything, expired entries included: the end of a drain that ran out of time.
    #[must_use = "each entry taken out is owed an answer"]
    pub fn drain_all(&mut self) -> Vec<Entry<T>> {
        let mut out = std::mem::take(&mut self.expired);
        for queue in &mut self.queues {
            out.extend(std::iter::from_fn(|| queue.pop()));
        }
        out
    }

    /// The earliest moment at which time alone makes something possible: [`seal`](Self::seal) for
    /// a busy worker's slot (of the policy's size, and with this [`Offer::side_by_side`]), or
    /// [`expire`](Self::expire). `now` if something is possible already, `None` if nothing is held.
    ///
    /// For a caller that has a free slot: after `expire` and a `seal` that said `None`, it is
    /// later than `now`. One without a free slot cannot seal, and would spin on it: it sleeps
    /// until [`next_expiry`](Self::next_expiry).
    #[must_use]
    pub fn next_wakeup(&self, side_by_side: usize, now: Instant) -> Option<Instant> {
        let side_by_side = side_by_side.max(1);
        if self.next_expiry().is_some_and(|at| at <= now) {
            return Some(now);
        }
        let (rows_max, tokens_target) = (self.policy.rows_max, self.tokens_target_of(side_by_side));
        if self.reason_while_busy(rows_max, tokens_target, side_by_side, now).is_some() {
            return Some(now);
        }
        let waited = self.oldest_queued_at()?.checked_add(self.longest_wait(side_by_side));
        // A deadline comes near before it expires, so it needs no alarm of its own.
        [waited, self.deadline_near_at(side_by_side)].into_iter().flatten().min()
    }

    /// The moment from which [`expire`](Self::expire) returns something: the earliest deadline of
    /// all that is held. It lies in the past while expired entries wait to be collected.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let set_apart = self.expired.iter().filter_map(|entry| entry.deadline).min();
        set_apart.or_else(|| self.earliest_deadline())
    }

    /// Says which workers batches go to from now on: their measured speed counts. Before any is
    /// named it is [`Tier::Cpu`].
    pub fn set_tier(&mut self, tier: Tier) {
        self.tier = tier;
    }

    /// Takes in that a worker of `tier` served a batch of `tokens` in `duration` (its own service
    /// time, not the wait for the batches before it). One before the first request, from a warm-up
    /// or a known-answer batch, spares the first urgent batch from being sized blindly.
    pub fn observe(&mut self, tier: Tier, tokens: usize, duration: Duration) {
        self.paces[place(tier)].observe(&self.policy, tokens, duration);
    }

    /// Takes in that so many rows are in a worker that computes batches side by side, or wait for
    /// it: what its batches take for company follows from that.
    pub fn under_way(&mut self, rows: usize) {
        self.company.under_way(rows);
    }

    /// Takes in that a worker that computes batches side by side has computed one.
    pub fn completed(&mut self) {
        self.company.completed();
    }

    /// The moving average of what [`observe`](Self::observe) saw of one worker of the present tier,
    /// in tokens per second.
    #[must_use]
    pub fn tokens_per_s(&self) -> Option<f64> {
        self.pace().tokens_per_s()
    }

    /// The same of a worker of `tier`.
    #[must_use]
    pub fn tokens_per_s_of(&self, tier: Tier) -> Option<f64> {
        self.paces[place(tier)].tokens_per_s()
    }

    /// The tokens that the next batch may have if it has a worker to itself, before the slot's own
    /// limit.
    #[must_use]
    pub fn tokens_target(&self) -> usize {
        self.tokens_target_of(1)
    }

    fn tokens_target_of(&self, side_by_side: usize) -> usize {
        self.pace().tokens_target(&self.policy, self.urgent_waits(), side_by_side)
    }

    /// What waits for a batch (without expired entries that were set apart).
    #[must_use]
    pub fn depth(&self) -> Depth {
        Depth {
            rows: self.queues.each_ref().map(ClassQueue::rows),
            tokens: self.queues.each_ref().map(ClassQueue::tokens),
            oldest_queued_at: self.oldest_queued_at(),
        }
    }

    /// Entries held, expired ones included; never above `entries_max`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows() + self.expired.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// While draining, no slot is left free for the sake of a fuller batch.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Why a busy worker's spare slot should be filled now; `None` if waiting pays.
    fn reason_while_busy(
        &self,
        rows_max: usize,
        tokens_target: usize,
        side_by_side: usize,
        now: Instant,
    ) -> Option<SealReason> {
        let oldest_queued_at = self.oldest_queued_at()?;
        // Below both limits everything fits into one batch; at a limit, more entries could only
        // queue behind it.
        if self.rows() >= rows_max || self.tokens() >= tokens_target {
            Some(SealReason::Full)
        } else if self.waits(Priority::Control) {
            Some(SealReason::Control)
        } else if side_by_side > 1 && self.rows() >= self.company.enough(side_by_side) {
            Some(SealReason::Company)
        } else if now.saturating_duration_since(oldest_queued_at) >= self.longest_wait(side_by_side)
        {
            Some(SealReason::Waited)
        } else if self.deadline_near_at(side_by_side).is_some_and(|at| at <= now) {
            Some(SealReason::Deadline)
        } else {
            self.draining.then_some(SealReason::Draining)
        }
    }

    /// How long the oldest entry waits for company while the worker is busy.
    fn longest_wait(&self, side_by_side: usize) -> Duration {
        let max_wait = self.policy.max_wait;
        match side_by_side {
            1 => max_wait,
            _ => {
                let target = Pace::duration_target(&self.policy, self.urgent_waits());
                longest_wait(max_wait, self.expected_duration(side_by_side), target)
            }
        }
    }

    /// The time that a batch of all that waits would take.
    fn expected_duration(&self, side_by_side: usize) -> Option<Duration> {
        self.pace().expected_duration(self.tokens(), side_by_side)
    }

    /// The moment after which waiting risks the earliest deadline: it leaves one target duration
    /// for the batch that is in flight, and the expected duration of a batch of all that waits.
    fn deadline_near_at(&self, side_by_side: usize) -> Option<Instant> {
        let deadline = self.earliest_deadline()?;
        let ahead = self.policy.duration_target;
        let own = self.expected_duration(side_by_side).unwrap_or(ahead);
        // Too long for the clock to express: near since ever.
        let near_at = deadline.checked_sub(ahead.saturating_add(own));
        Some(near_at.unwrap_or_else(|| self.oldest_queued_at().unwrap_or(deadline)))
    }

    /// Moves what has expired out of the queues.
    fn set_expired_apart(&mut self, now: Instant) {
        for queue in &mut self.queues {
            if queue.earliest_deadline().is_some_and(|deadline| deadline <= now) {
                let expired = |entry: &Entry<T>| entry.deadline.is_some_and(|at| at <= now);
                queue.remove_if(expired, &mut self.expired);
            }
        }
    }

    fn pace(&self) -> &Pace {
        &self.paces[place(self.tier)]
    }

    fn urgent_waits(&self) -> bool {
        self.waits(Priority::Control) || self.waits(Priority::Interactive)
    }

    fn waits(&self, class: Priority) -> bool {
        self.queues[class.index()].rows() > 0
    }

    fn rows(&self) -> usize {
        self.queues.iter().map(ClassQueue::rows).sum()
    }

    fn tokens(&self) -> usize {
        self.queues.iter().map(ClassQueue::tokens).sum()
    }

    fn oldest_queued_at(&self) -> Option<Instant> {
        self.queues.iter().filter_map(ClassQueue::oldest_queued_at).min()
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        self.queues.iter().filter_map(ClassQueue::earliest_deadline).min()
    }
}

/// Where the pace of a tier stands.
fn place(tier: Tier) -> usize {
    match tier {
        Tier::Cpu => 0,
        Tier::Gpu => 1,
    }
}
