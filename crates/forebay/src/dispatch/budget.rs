//! How many texts may run a second time: a share of what was answered lately, and a fixed number on
//! top of it. Without a bound, a device that keeps dying would spend all the others on its leavings.
//! It reads no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::HedgeConfig;

/// Parts that the window is counted in.
const PARTS: u32 = 16;

/// The budget of one runtime.
pub(crate) struct RerunBudget {
    share: f64,
    min: u64,
    part: Duration,
    /// Oldest first, none older than the window.
    parts: VecDeque<Part>,
}

struct Part {
    since: Instant,
    answered: u64,
    reruns: u64,
}

impl RerunBudget {
    pub(crate) fn new(config: &HedgeConfig) -> Self {
        Self {
            share: config.rerun_share_max,
            min: u64::from(config.rerun_min),
            part: config.rerun_window() / PARTS,
            parts: VecDeque::new(),
        }
    }

    /// Texts were answered.
    pub(crate) fn answered(&mut self, texts: usize, now: Instant) {
        if texts > 0 {
            self.part(now).answered += texts as u64;
        }
    }

    /// How many of `texts` may run again; those are counted.
    pub(crate) fn take(&mut self, texts: usize, now: Instant) -> usize {
        self.forget(now);
        let (answered, reruns) = self.parts.iter().fold((0, 0), |(answered, reruns), part| {
            (answered + part.answered, reruns + part.reruns)
        });
        if mutated!(IgnoresRerunBudget) {
            return texts;
        }
        let allowed = self.min + (self.share * answered as f64) as u64;
        let taken = (texts as u64).min(allowed.saturating_sub(reruns));
        if taken > 0 {
            self.part(now).reruns += taken;
        }
        taken as usize
    }

    fn forget(&mut self, now: Instant) {
        let window = self.part * PARTS;
        let over = |part: &Part| now.saturating_duration_since(part.since) >= window;
        while self.parts.front().is_some_and(over) {
            self.parts.pop_front();
        }
    }

    /// The part of the window that `now` is in.
    fn part(&mut self, now: Instant) -> &mut Part {
        self.forget(now);
        let length = self.part;
        let over = |part: &Part| now.saturating_duration_since(part.since) >= length;
        if self.parts.back().is_none_or(over) {
            self.parts.push_back(Part { since: now, answered: 0, reruns: 0 });
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);

    fn budget(share: f64, min: u32) -> RerunBudget {
        RerunBudget::new(&HedgeConfig {
            rerun_share_max: share,
            rerun_min: min,
            rerun_window_ms: WINDOW.as_millis() as u32,
            ..HedgeConfig::default()
        })
    }

    #[test]
    fn the_share_of_what_was_answered_and_the_fixed_number_are_given_once() {
        let now = Instant::now();
        let mut budget = budget(0.1, 5);
        assert_eq!(budget.take(3, now), 3);
        assert_eq!(budget.take(3, now), 2);
        assert_eq!(budget.take(3, now), 0);
        budget.answered(100, now);
        assert_eq!(budget.take(20, now), 10);
        assert_eq!(budget.take(1, now + WINDOW / 2), 0);
        assert_eq!(budget.take(20, now + WINDOW), 5, "all of it is forgotten");
    }

    #[test]
    fn nothing_is_given_beyond_the_bound_of_the_window() {
        for seed in 0..100 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let mut budget = budget(0.2, 7);
            let mut history: Vec<(Instant, usize, usize)> = Vec::new();
            for _ in 0..300 {
                now += Duration::from_millis(random.random_range(0..120));
                let answered = random.random_range(0..30);
                budget.answered(answered, now);
                let taken = budget.take(random.random_range(0..20), now);
                history.push((now, answered, taken));
                // A part may begin anywhere, so the window is counted to within one part.
                let shortest = WINDOW - WINDOW / PARTS;
                let within = |span: Duration| {
                    let from = move |at: Instant| now.saturating_duration_since(at) < span;
                    history.iter().filter(move |(at, ..)| from(*at))
                };
                let reruns: usize = within(shortest).map(|(_, _, taken)| taken).sum();
                let answered: usize = within(WINDOW).map(|(_, answered, _)| answered).sum();
                let within_bound = reruns <= 7 + answered / 5;
                assert!(taken == 0 || within_bound, "seed {seed}: {reruns} of {answered}");
                assert!(budget.parts.len() <= PARTS as usize + 1);
            }
        }
    }
}
