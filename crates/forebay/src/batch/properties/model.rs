//! The model that random steps are compared with: three plain lists, searched from end to end each
//! time, and the promises of a sealed batch stated over them.

use std::time::Instant;

use super::super::{BatchPolicy, Batcher, Entry, Offer, SealReason, SealedBatch};
use crate::priority::Priority;

/// All that was pushed and has not come out, per class in order of arrival.
pub(super) struct Model {
    pub(super) policy: BatchPolicy,
    pub(super) classes: [Vec<Entry<u64>>; 3],
    /// Found expired by a `seal` and not collected yet.
    pub(super) set_apart: Vec<Entry<u64>>,
    pub(super) draining: bool,
    /// Most rows under way lately, a tenth less with each batch that came back.
    pub(super) peak: f64,
    /// The last batch left a waiting `Control` entry out.
    control_passed_over: bool,
}

pub(super) fn has_expired(entry: &Entry<u64>, now: Instant) -> bool {
    entry.deadline.is_some_and(|deadline| deadline <= now)
}

impl Model {
    pub(super) fn new(policy: BatchPolicy) -> Self {
        Self {
            policy,
            classes: [Vec::new(), Vec::new(), Vec::new()],
            set_apart: Vec::new(),
            draining: false,
            peak: 0.0,
            control_passed_over: false,
        }
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Entry<u64>> {
        self.classes.iter().flatten()
    }

    pub(super) fn held(&self) -> usize {
        self.waiting().count() + self.set_apart.len()
    }

    /// Takes out what `leaves` names, class by class.
    pub(super) fn take(&mut self, leaves: impl Fn(&Entry<u64>) -> bool) -> Vec<Entry<u64>> {
        let mut out = Vec::new();
        for class in &mut self.classes {
            out.extend(class.extract_if(.., |entry| leaves(entry)));
        }
        out
    }

    /// Whether a busy worker's spare slot is to be filled, and why.
    fn reason(
        &self,
        batcher: &Batcher<u64>,
        offer: &Offer,
        target: usize,
        now: Instant,
    ) -> Option<SealReason> {
        let tokens: usize = self.waiting().map(|entry| entry.tokens).sum();
        let oldest = self.waiting().map(|entry| entry.queued_at).min()?;
        let ahead = self.policy.duration_target;
        let share = offer.side_by_side as f64;
        let takes = batcher
            .tokens_per_s()
            .map(|rate| std::time::Duration::from_secs_f64(tokens as f64 / (rate / share)));
        let own = takes.unwrap_or(ahead);
        let (mut max_wait, mut enough) = (self.policy.max_wait, usize::MAX);
        if offer.side_by_side > 1 {
            let urgent = self.waiting().any(|entry| entry.priority != Priority::Bulk);
            let target = if urgent { ahead } else { self.policy.bulk_duration_target };
            max_wait = max_wait.max(target.min(takes.unwrap_or_default() / 4));
            enough = ((self.peak / (share + 1.0)).ceil() as usize).max(1);
        }
        if offer.worker_idle {
            Some(SealReason::Idle)
        } else if self.waiting().count() >= self.policy.rows_max.min(offer.rows_max)
            || tokens >= target
        {
            Some(SealReason::Full)
        } else if !self.classes[Priority::Control.index()].is_empty() {
            Some(SealReason::Control)
        } else if self.waiting().count() >= enough {
            Some(SealReason::Company)
        } else if now - oldest >= max_wait {
            Some(SealReason::Waited)
        } else if self.waiting().filter_map(|e| e.deadline).any(|at| at <= now + ahead + own) {
            Some(SealReason::Deadline)
        } else {
            self.draining.then_some(SealReason::Draining)
        }
    }

    /// Offers a slot to the batcher, for one of `parts` batches that share out what waits, and checks
    /// everything that is promised of the answer.
    pub(super) fn seal(
        &mut self,
        batcher: &mut Batcher<u64>,
        (offer, parts): (&Offer, usize),
        now: Instant,
    ) {
        let expired = self.take(|entry| has_expired(entry, now));
        self.set_apart.extend(expired);
        // The target depends on what waits: ask a copy from which the expired entries have gone.
        let mut swept = batcher.clone();
        let _swept_away = swept.expire(now);
        let target = self.target(&swept, offer.side_by_side).min(offer.tokens_max);
        let expected_reason = self.reason(batcher, offer, target, now);
        let sealed = match parts {
            1 => batcher.seal(offer, now),
            _ => batcher.seal_part(offer, parts, now),
        };
        assert_eq!(sealed.as_ref().map(|batch| batch.reason), expected_reason, "when to seal");
        if let Some(batch) = sealed {
            self.check_batch(&batch, (offer, parts), target, now);
        }
    }

    /// The tokens that a batch may have: what one of so many side by side gets through in time.
    fn target(&self, batcher: &Batcher<u64>, side_by_side: usize) -> usize {
        let urgent = self.waiting().any(|entry| entry.priority != Priority::Bulk);
        let BatchPolicy { duration_target, bulk_duration_target, .. } = self.policy;
        let time = if urgent { duration_target } else { bulk_duration_target };
        let target = batcher.tokens_per_s().map_or(self.policy.tokens_min, |rate| {
            let in_time = rate / side_by_side as f64 * time.as_secs_f64();
            (in_time as usize).clamp(self.policy.tokens_min, self.policy.tokens_max)
        });
        assert!(side_by_side > 1 || target == batcher.tokens_target());
        target
    }

    fn check_batch(
        &mut self,
        batch: &SealedBatch<u64>,
        (offer, parts): (&Offer, usize),
        target: usize,
        now: Instant,
    ) {
        let rows_max = self.policy.rows_max.min(offer.rows_max);
        let rows = batch.entries.len();
        let tokens: usize = batch.entries.iter().map(|entry| entry.tokens).sum();
        assert_eq!((batch.tokens, batch.tokens_target), (tokens, target));
        assert!(rows >= 1 && rows <= rows_max, "{rows} rows of {rows_max}");
        let all_tokens: usize = self.waiting().map(|entry| entry.tokens).sum();
        let most = target.min(all_tokens.div_ceil(parts));
        assert!(tokens <= most || rows == 1, "{tokens} tokens of {most} in {rows} rows");
        assert!(target <= self.policy.tokens_max);
        let oldest = batch.entries.iter().map(|entry| entry.queued_at).min().unwrap();
        assert_eq!(batch.oldest_wait, now - oldest);

        // Late joining: if all that waits fits, all of it goes.
        let all_rows = self.waiting().count();
        if all_rows <= rows_max && all_tokens <= most {
            assert_eq!(rows, all_rows, "something that fitted was left behind");
        }

        let controls = self.classes[Priority::Control.index()].len();
        for priority in Priority::ALL {
            // In order within the class, nothing else than what waited, and nothing twice.
            let class = &mut self.classes[priority.index()];
            let chosen: Vec<_> =
                batch.entries.iter().filter(|entry| entry.priority == priority).cloned().collect();
            assert!(chosen.len() <= class.len(), "{priority} entries from nowhere");
            let left = class.split_off(chosen.len());
            assert_eq!(*class, chosen, "{priority} not in order");
            *class = left;
            // No room is wasted: the next of each class would not have fitted.
            if let Some(next) = class.first() {
                assert!(rows == rows_max || tokens + next.tokens > most, "{priority} left out");
            }
        }

        // Control goes first: all of it, or what fits; at worst it lets one aged batch pass.
        let controls_left = self.classes[Priority::Control.index()].len();
        let passed_over = controls > 0 && controls_left == controls;
        assert!(!(passed_over && self.control_passed_over), "Control passed over twice running");
        if passed_over {
            let class = batch.entries[0].priority;
            assert!(self.is_aged(class, batch, now), "passed over for {class}, which is not aged");
        }
        self.control_passed_over = passed_over;
    }

    /// Whether the class had an aged entry before the batch, which the model no longer holds.
    fn is_aged(&self, class: Priority, batch: &SealedBatch<u64>, now: Instant) -> bool {
        let ageing = match class {
            Priority::Control => return false,
            Priority::Interactive => self.policy.interactive_ageing,
            Priority::Bulk => self.policy.bulk_ageing,
        };
        let gone = batch.entries.iter().filter(|entry| entry.priority == class);
        let mut before = gone.chain(&self.classes[class.index()]);
        before.any(|entry| now - entry.queued_at >= ageing)
    }

    /// Checks what can be asked of the batcher between steps.
    pub(super) fn check_state(&self, batcher: &Batcher<u64>, now: Instant) {
        let depth = batcher.depth();
        for priority in Priority::ALL {
            let class = &self.classes[priority.index()];
            assert_eq!(depth.rows[priority.index()], class.len());
            let tokens: usize = class.iter().map(|entry| entry.tokens).sum();
            assert_eq!(depth.tokens[priority.index()], tokens);
        }
        assert_eq!(depth.oldest_queued_at, self.waiting().map(|entry| entry.queued_at).min());
        assert_eq!(batcher.len(), self.held());
        assert!(batcher.len() <= self.policy.entries_max);
        let held = self.waiting().chain(&self.set_apart);
        assert_eq!(batcher.next_expiry(), held.filter_map(|entry| entry.deadline).min());
        for side_by_side in 1..4 {
            self.check_wakeup(batcher, side_by_side, now);
        }
    }

    /// The alarm goes off neither without cause nor a nanosecond late.
    fn check_wakeup(&self, batcher: &Batcher<u64>, side_by_side: usize, now: Instant) {
        let possible_at = |moment| {
            let mut copy = batcher.clone();
            let offer = super::beside(false, side_by_side);
            !copy.expire(moment).is_empty() || copy.seal(&offer, moment).is_some()
        };
        let Some(wakeup) = batcher.next_wakeup(side_by_side, now) else {
            assert_eq!(self.held(), 0, "no alarm although something waits");
            return;
        };
        assert!(wakeup >= now);
        assert!(possible_at(wakeup), "woken for nothing, {:?} from now", wakeup - now);
        if wakeup > now {
            let before = wakeup - std::time::Duration::from_nanos(1);
            assert!(!possible_at(before), "woken late");
            assert!(!possible_at(now), "woken late");
        }
    }
}
