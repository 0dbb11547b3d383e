//! What the measured speed promises: how long the backlog takes, how many texts may be under way,
//! and what a controller should know of the state of things.

use std::time::{Duration, Instant};

use super::Core;
use crate::config::Tier;
use crate::dispatch::port::WorkerPort;

/// Texts that count in the mean length, about.
const LENGTHS: f64 = 256.0;
/// Batches' worth of texts for each worker that may always be under way, so that a slow start or an
/// idle runtime closes nothing.
const FLOOR_BATCHES: usize = 4;
/// How much of each worker that is kept clear for them texts that run alone take from the others.
const SUSPECTS_SHARE: f64 = 0.5;
/// Texts that may always be under way.
const FLOOR_TEXTS: usize = 16;

/// How the runtime is doing, as far as the dispatcher knows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct VitalSigns {
    /// Expected time until what is queued now has been computed, by all the workers that ordinary
    /// batches go to.
    pub(crate) backlog: Duration,
    /// What the workers that get ordinary batches compute together, by what was measured of their
    /// tier; 0 while there is none or nothing is measured.
    pub(crate) capacity_tokens_per_s: f64,
    /// The same in texts of the mean length of those that came lately; 0 before the first.
    pub(crate) capacity_texts_per_s: f64,
    /// How long ago the oldest unanswered text was tokenized.
    pub(crate) worst_age: Duration,
    /// Texts that wait for a batch or for a run of their own.
    pub(crate) queued_texts: usize,
}

/// The moving average of the tokens of a text.
#[derive(Debug, Default)]
pub(super) struct TextLength {
    mean: f64,
    seen: f64,
}

impl TextLength {
    pub(super) fn observe(&mut self, tokens: usize) {
        self.seen = (self.seen + 1.0).min(LENGTHS);
        self.mean += (tokens as f64 - self.mean) / self.seen;
    }
}

impl<W: WorkerPort> Core<W> {
    /// How many texts of each class may be under way, of which `under_way` are: what is computed
    /// within the class's longest wait, less what more urgent classes have under way. `None` for no
    /// limit, also before anything is measured. While nothing serves, the last known speed counts.
    pub(crate) fn texts_allowed(&self, under_way: [usize; 3], now: Instant) -> [Option<usize>; 3] {
        let workers = self.workers.takers().count().max(1);
        let Some(rate) = self.batcher.tokens_per_s().filter(|_| self.text_length.mean > 0.0) else {
            return [None; 3];
        };
        let texts_per_s = rate * self.free(workers, now) / self.text_length.mean;
        let batch_texts = self.batcher.tokens_target() as f64 / self.text_length.mean;
        let batch_texts = (batch_texts as usize).min(self.settings.batch.rows_max);
        let floor = (batch_texts * FLOOR_BATCHES * workers).max(FLOOR_TEXTS);
        let mut more_urgent = 0;
        std::array::from_fn(|class| {
            let wait = self.settings.waits_max[class]?;
            let in_time = (texts_per_s * wait.as_secs_f64()) as usize;
            let allowed = in_time.saturating_sub(more_urgent).max(floor);
            more_urgent += under_way[class];
            Some(allowed)
        })
    }

    /// How the runtime is doing.
    pub(crate) fn vital_signs(&self, now: Instant) -> VitalSigns {
        let depth = self.batcher.depth();
        let mut takers = self.workers.takers().map(|(index, _)| index).peekable();
        let (mut workers, mut tokens) = (0, depth.tokens_total());
        let mut oldest = self.workers.leaving().filter_map(W::oldest_queued_at).min();
        for (index, member) in self.workers.members().iter().enumerate() {
            let view = member.worker.view();
            if takers.next_if_eq(&index).is_some() {
                workers += 1;
                tokens += view.load.tokens;
            }
            oldest = oldest.into_iter().chain(view.oldest_queued_at).min();
        }
        let waiting = [depth.oldest_queued_at, self.suspects.oldest_queued_at(), oldest];
        let oldest = waiting.into_iter().flatten().min();
        let rate = self.batcher.tokens_per_s().unwrap_or(0.0);
        let capacity = rate * self.free(workers, now);
        let mean = self.text_length.mean;
        VitalSigns {
            backlog: self.expected_duration(tokens.div_ceil(workers.max(1))),
            capacity_tokens_per_s: capacity,
            capacity_texts_per_s: if mean > 0.0 { capacity / mean } else { 0.0 },
            worst_age: oldest.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            queued_texts: depth.rows_total() + self.suspects.len(),
        }
    }

    /// How many of `workers` ordinary batches have for themselves.
    fn free(&self, workers: usize, now: Instant) -> f64 {
        workers as f64 - SUSPECTS_SHARE * self.kept_clear(now).len() as f64
    }

    /// The time that so many tokens take one worker of the present tier at the measured speed; zero
    /// before any measurement.
    pub(super) fn expected_duration(&self, tokens: usize) -> Duration {
        duration_at(self.batcher.tokens_per_s(), tokens).unwrap_or(Duration::ZERO)
    }

    /// The time that so many tokens take a worker of this tier; `None` before any measurement.
    pub(super) fn expected_on(&self, tier: Tier, tokens: usize) -> Option<Duration> {
        duration_at(self.batcher.tokens_per_s_of(tier), tokens)
    }
}

fn duration_at(tokens_per_s: Option<f64>, tokens: usize) -> Option<Duration> {
    let rate = tokens_per_s.filter(|rate| *rate > 0.0)?;
    Some(Duration::try_from_secs_f64(tokens as f64 / rate).unwrap_or(Duration::MAX))
}
