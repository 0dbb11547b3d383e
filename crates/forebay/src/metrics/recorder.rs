//! What the stages report, in their own words. Each method names an event; which metrics move with
//! it is decided here, so that counts that must add up do.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::handles::{ByLabel, ByLabels, describe, of_rung, plain};
use super::labels::{
    AnswerDropped, CanaryVerdict, Outcome, RefusedBy, ReplyCheck, RestartCause, Stage, Unserved,
};
use super::names;
use super::turn::Turn;
use crate::batch::SealReason;
use crate::priority::Priority;

/// The metrics of one runtime.
///
/// Made once and shared. It binds to the recorder that is installed at that moment; without one
/// every method does nothing and costs next to nothing.
pub struct Metrics {
    requests: ByLabels<Priority, Outcome, Counter>,
    accepted: ByLabel<Priority, Counter>,
    refused: ByLabels<Priority, RefusedBy, Counter>,
    in_flight: ByLabel<Priority, Gauge>,
    request_seconds: ByLabel<Priority, Histogram>,
    stage_seconds: ByLabel<Stage, Histogram>,
    blocked: ByLabel<Stage, Counter>,
    queue_rows: ByLabel<Priority, Gauge>,
    queue_tokens: ByLabel<Priority, Gauge>,
    unserved: ByLabel<Unserved, Counter>,
    truncations: Counter,
    batches: ByLabel<SealReason, Counter>,
    batch_rows: Histogram,
    batch_tokens: Histogram,
    batch_wait_seconds: Histogram,
    batch_fill_ratio: Histogram,
    tokens: Counter,
    padding_tokens: Counter,
    level: Gauge,
    batches_rerun: Counter,
    requeued: Counter,
    hedged: Counter,
    reruns_refused: Counter,
    admission_limit: ByLabel<Priority, Gauge>,
    suspects: Counter,
    answers_dropped: ByLabel<AnswerDropped, Counter>,
    reply_check_failures: ByLabel<ReplyCheck, Counter>,
    events: Counter,
    events_waiting: Gauge,
    events_lost: Counter,
    event_log_failures: Counter,
    turn: Turn,
}

/// A batch that was sealed, as far as it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedShape {
    /// Texts in it.
    pub rows: usize,
    /// Tokens in it.
    pub tokens: usize,
    /// Tokens that it was allowed to have.
    pub tokens_target: usize,
    /// How long its oldest text had waited.
    pub oldest_wait: Duration,
    /// What ended the wait for more.
    pub reason: SealReason,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers and describes every metric with the recorder that is installed now.
    #[must_use]
    pub fn new() -> Self {
        describe(names::ALL);
        Self {
            requests: ByLabels::new(&names::REQUESTS),
            accepted: ByLabel::new(&names::ACCEPTED),
            refused: ByLabels::new(&names::REFUSED),
            in_flight: ByLabel::new(&names::IN_FLIGHT),
            request_seconds: ByLabel::new(&names::REQUEST_SECONDS),
            stage_seconds: ByLabel::new(&names::STAGE_SECONDS),
            blocked: ByLabel::new(&names::BLOCKED),
            queue_rows: ByLabel::new(&names::QUEUE_ROWS),
            queue_tokens: ByLabel::new(&names::QUEUE_TOKENS),
            unserved: ByLabel::new(&names::UNSERVED),
            truncations: plain(&names::TRUNCATIONS),
            batches: ByLabel::new(&names::BATCHES),
            batch_rows: plain(&names::BATCH_ROWS),
            batch_tokens: plain(&names::BATCH_TOKENS),
            batch_wait_seconds: plain(&names::BATCH_WAIT_SECONDS),
            batch_fill_ratio: plain(&names::BATCH_FILL_RATIO),
            tokens: plain(&names::TOKENS),
            padding_tokens: plain(&names::PADDING_TOKENS),
            level: plain(&names::LEVEL),
            batches_rerun: plain(&names::BATCHES_RERUN),
            requeued: plain(&names::REQUEUED),
            hedged: plain(&names::HEDGED),
            reruns_refused: plain(&names::RERUNS_REFUSED),
            admission_limit: ByLabel::new(&names::ADMISSION_LIMIT),
            suspects: plain(&names::SUSPECTS),
            answers_dropped: ByLabel::new(&names::ANSWERS_DROPPED),
            reply_check_failures: ByLabel::new(&names::REPLY_CHECK_FAILURES),
            events: plain(&names::EVENTS),
            events_waiting: plain(&names::EVENTS_WAITING),
            events_lost: plain(&names::EVENTS_LOST),
            event_log_failures: plain(&names::EVENT_LOG_FAILURES),
            turn: Turn::first(),
        }
    }

    /// The metrics of a runtime beside this one. They count into the same counters; what both would
    /// set is set by this one until [`Metrics::take_over`].
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { turn: self.turn.next(), ..Self::new() }
    }

    /// From now on this runtime sets what says how things are.
    pub fn take_over(&self) {
        self.turn.take();
    }

    /// So many requests were let in. [`Metrics::ended`] must follow exactly once for each.
    pub fn accepted(&self, priority: Priority, requests: usize) {
        self.accepted.of(priority).increment(requests as u64);
        self.in_flight.of(priority).increment(requests as f64);
    }

    /// A request was not let in; this is also its end.
    pub fn refused(&self, priority: Priority, by: RefusedBy) {
        self.refused.of(priority, by).increment(1);
        self.requests.of(priority, by.outcome()).increment(1);
    }

    /// So many accepted requests ended in the same way, `elapsed` after they were let in.
    pub fn ended(&self, priority: Priority, outcome: Outcome, elapsed: Duration, requests: usize) {
        self.requests.of(priority, outcome).increment(requests as u64);
        self.in_flight.of(priority).decrement(requests as f64);
        self.request_seconds.of(priority).record_many(elapsed, requests);
    }

    /// An accepted request was dropped before any model work; [`Metrics::ended`] is separate.
    pub fn unserved(&self, reason: Unserved) {
        self.unserved.of(reason).increment(1);
    }

    /// A request or batch spent `elapsed` in `stage`.
    pub fn stage_took(&self, stage: Stage, elapsed: Duration) {
        self.stage_seconds.of(stage).record(elapsed);
    }

    /// `stage` waited `elapsed` for room in the next one.
    pub fn stage_blocked(&self, stage: Stage, elapsed: Duration) {
        self.blocked.of(stage).increment(microseconds(elapsed));
    }

    /// What waits for a batch now, in one class.
    pub fn queue_depth(&self, priority: Priority, rows: usize, tokens: usize) {
        if self.turn.is_mine() {
            self.queue_rows.of(priority).set(rows as f64);
            self.queue_tokens.of(priority).set(tokens as f64);
        }
    }

    /// Texts were cut to the model's limit.
    pub fn truncated(&self, texts: usize) {
        self.truncations.increment(texts as u64);
    }

    /// A batch was sealed.
    pub fn batch_sealed(&self, shape: SealedShape) {
        self.batches.of(shape.reason).increment(1);
        self.batch_rows.record(shape.rows as f64);
        self.batch_tokens.record(shape.tokens as f64);
        self.batch_wait_seconds.record(shape.oldest_wait);
        self.batch_fill_ratio.record(shape.tokens as f64 / shape.tokens_target.max(1) as f64);
    }

    /// A batch was computed: the tokens of its texts, and those that only filled them up.
    pub fn batch_computed(&self, tokens: u64, padding_tokens: u64) {
        self.tokens.increment(tokens);
        self.padding_tokens.increment(padding_tokens);
    }

    /// The service level: 0 down, 1 CPU, 1 + n for n GPUs.
    pub fn level(&self, level: u32) {
        if self.turn.is_mine() {
            self.level.set(f64::from(level));
        }
    }

    /// A batch of `rows` texts was given up on its worker and is sent again.
    pub fn batch_rerun(&self, rows: usize) {
        self.batches_rerun.increment(1);
        self.requeued.increment(rows as u64);
    }

    /// Texts of a late batch are computed by another worker too.
    pub fn hedged(&self, texts: usize) {
        self.hedged.increment(texts as u64);
    }

    /// Texts are not computed again: the budget is used up.
    pub fn reruns_refused(&self, texts: usize) {
        self.reruns_refused.increment(texts as u64);
    }

    /// Requests of one class that may be under way now.
    pub fn admission_limit(&self, priority: Priority, requests: usize) {
        if self.turn.is_mine() {
            self.admission_limit.of(priority).set(requests as f64);
        }
    }

    /// Texts were in a worker when it died.
    pub fn suspects(&self, texts: usize) {
        self.suspects.increment(texts as u64);
    }

    /// An answer of a worker was not used.
    pub fn answer_dropped(&self, reason: AnswerDropped) {
        self.answers_dropped.of(reason).increment(1);
    }

    /// An answer of a worker failed a check.
    pub fn reply_check_failed(&self, check: ReplyCheck) {
        self.reply_check_failures.of(check).increment(1);
    }

    /// An event was recorded.
    pub fn event_recorded(&self) {
        self.events.increment(1);
    }

    /// Events that are not in the log on disk yet.
    pub fn events_waiting(&self, events: usize) {
        self.events_waiting.set(events as f64);
    }

    /// Events that waited were given up: they will not be in the log on disk.
    pub fn events_lost(&self, events: u64) {
        self.events_lost.increment(events);
    }

    /// The log on disk could not be written.
    pub fn event_log_failed(&self) {
        self.event_log_failures.increment(1);
    }

    /// The metrics of one rung, named by its device.
    #[must_use]
    pub fn rung(&self, rung: &str) -> RungMetrics {
        RungMetrics {
            slots: of_rung(&names::SLOTS, rung),
            slots_free: of_rung(&names::SLOTS_FREE, rung),
            quarantined: of_rung(&names::QUARANTINED, rung),
            restarts: ByLabel::of_rung(&names::WORKER_RESTARTS, rung),
            canaries: ByLabel::of_rung(&names::CANARIES, rung),
            start_seconds: of_rung(&names::WORKER_START_SECONDS, rung),
            turn: self.turn.clone(),
        }
    }
}

/// The metrics of one rung of the ladder. Made once per rung, not per worker.
pub struct RungMetrics {
    slots: Gauge,
    slots_free: Gauge,
    quarantined: Gauge,
    restarts: ByLabel<RestartCause, Counter>,
    canaries: ByLabel<CanaryVerdict, Counter>,
    start_seconds: Histogram,
    turn: Turn,
}

impl RungMetrics {
    /// A worker serves, `elapsed` after its process was started.
    pub fn started(&self, elapsed: Duration) {
        self.start_seconds.record(elapsed);
    }

    /// The worker's slots now: all of them, and those that hold no batch. Both 0 if none serves.
    pub fn slots(&self, all: usize, free: usize) {
        if self.turn.is_mine() {
            self.slots.set(all as f64);
            self.slots_free.set(free as f64);
        }
    }

    /// The worker was lost or given up and is to be replaced.
    pub fn restarted(&self, cause: RestartCause) {
        self.restarts.of(cause).increment(1);
    }

    /// A batch of known answers came back.
    pub fn canary(&self, good: bool) {
        let verdict = if good { CanaryVerdict::Good } else { CanaryVerdict::Wrong };
        self.canaries.of(verdict).increment(1);
    }

    /// Whether the rung is only probed.
    pub fn quarantined(&self, quarantined: bool) {
        if self.turn.is_mine() {
            self.quarantined.set(f64::from(u8::from(quarantined)));
        }
    }
}

fn microseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
