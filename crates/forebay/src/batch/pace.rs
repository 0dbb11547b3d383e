//! How fast batches are served, and from that how many tokens the next one may have. Knows
//! nothing of entries or queues; it never reads a clock but is told what a batch took.

use std::time::Duration;

use super::policy::BatchPolicy;

/// Weight of one new measurement in the moving average: after a lasting change of speed, eight
/// batches bring the estimate nine tenths of the way.
const MEASUREMENT_WEIGHT: f64 = 0.25;

/// The measured speed and the size limit that follows from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    tokens_per_s: Option<f64>,
    /// Batches of the smallest target that the measurements so far are worth.
    seen: f64,
}

impl Pace {
    pub(super) fn tokens_per_s(&self) -> Option<f64> {
        self.tokens_per_s
    }

    /// Takes in that a batch of `tokens` was served in `duration`. Ignores what yields no speed
    /// (no tokens or no time).
    pub(super) fn observe(&mut self, policy: &BatchPolicy, tokens: usize, duration: Duration) {
        if tokens == 0 || duration.is_zero() {
            return;
        }
        let measured = tokens as f64 / duration.as_secs_f64();
        // A batch below the smallest target is mostly fixed cost and says little about the speed
        // of one that is as large as a target: it counts in proportion to its size.
        let size = (tokens as f64 / policy.tokens_min as f64).min(1.0);
        // The first ones count alike: after a slow first one, small ones would take for ever to
        // set the estimate right.
        let weight = (MEASUREMENT_WEIGHT * size).max(size / (self.seen + size));
        self.seen = (self.seen + size).min(1.0 / MEASUREMENT_WEIGHT);
        self.tokens_per_s =
            Some(self.tokens_per_s.map_or(measured, |known| known + weight * (measured - known)));
    }

    /// The time that a batch of `tokens` is expected to take if it is one of `side_by_side` that
    /// share the worker; `None` before any measurement.
    pub(super) fn expected_duration(&self, tokens: usize, side_by_side: usize) -> Option<Duration> {
        let tokens_per_s = self.tokens_per_s? / side_by_side as f64;
        Some(Duration::try_from_secs_f64(tokens as f64 / tokens_per_s).unwrap_or(Duration::MAX))
    }

    /// The time that a batch should take.
    pub(super) const fn duration_target(policy: &BatchPolicy, urgent: bool) -> Duration {
        if urgent { policy.duration_target } else { policy.bulk_duration_target }
    }

    /// The tokens that a batch may have now. `urgent`: `Control` or `Interactive` entries wait.
    /// A batch is not interrupted once it runs, so batches of nothing but `Bulk` are bounded too:
    /// that bound is what an urgent text that comes late finds in front of it. Before any
    /// measurement the smallest size holds. One of `side_by_side` batches that share the worker gets
    /// through so many times fewer.
    pub(super) fn tokens_target(
        &self,
        policy: &BatchPolicy,
        urgent: bool,
        side_by_side: usize,
    ) -> usize {
        let Some(tokens_per_s) = self.tokens_per_s else {
            return policy.tokens_min;
        };
        let tokens_per_s = tokens_per_s / side_by_side as f64;
        let duration = Self::duration_target(policy, urgent);
        // A float that is too large for the integer becomes its largest value.
        let in_time = (tokens_per_s * duration.as_secs_f64()) as usize;
        in_time.clamp(policy.tokens_min, policy.tokens_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> BatchPolicy {
        BatchPolicy {
            tokens_max: 16_384,
            rows_max: 64,
            max_wait: Duration::from_millis(2),
            interactive_ageing: Duration::from_millis(50),
            bulk_ageing: Duration::from_secs(1),
            entries_max: 256,
            duration_target: Duration::from_millis(10),
            bulk_duration_target: Duration::from_millis(40),
            tokens_min: 256,
        }
    }

    #[test]
    fn the_target_settles_where_a_batch_takes_the_target_duration() {
        // A worker with fixed cost: 1 ms + 2 us per token, so 4,500 tokens take 10 ms.
        let policy = policy();
        for first_tokens in [16_usize, 256, 16_384] {
            let mut pace = Pace::default();
            let mut tokens = first_tokens;
            for _ in 0..200 {
                pace.observe(&policy, tokens, Duration::from_micros(1_000 + 2 * tokens as u64));
                tokens = pace.tokens_target(&policy, true, 1);
            }
            assert!((4_490..=4_500).contains(&tokens), "from {first_tokens}: {tokens} tokens");
        }
    }

    #[test]
    fn the_target_stays_within_its_limits() {
        let policy = policy();
        let mut pace = Pace::default();
        assert_eq!(pace.tokens_target(&policy, true, 1), 256, "unmeasured");
        for _ in 0..100 {
            pace.observe(&policy, 256, Duration::from_secs(10));
        }
        assert_eq!(pace.tokens_target(&policy, true, 1), 256);
        for _ in 0..100 {
            pace.observe(&policy, 1_000_000, Duration::from_nanos(1));
        }
        assert_eq!(pace.tokens_target(&policy, true, 1), 16_384);
    }

    #[test]
    fn bulk_has_its_own_bound() {
        let policy = policy();
        let mut pace = Pace::default();
        pace.observe(&policy, 1_000, Duration::from_millis(10));
        assert_eq!(pace.tokens_target(&policy, true, 1), 1_000);
        assert_eq!(pace.tokens_target(&policy, false, 1), 4_000);
    }

    #[test]
    fn what_yields_no_speed_is_ignored_and_small_batches_weigh_little() {
        let policy = policy();
        let mut pace = Pace::default();
        pace.observe(&policy, 0, Duration::from_millis(1));
        pace.observe(&policy, 10, Duration::ZERO);
        assert_eq!(pace.tokens_per_s(), None);
        assert_eq!(pace.expected_duration(100, 1), None);
        pace.observe(&policy, 1_000, Duration::from_millis(10));
        assert_eq!(pace.expected_duration(500, 1), Some(Duration::from_millis(5)));
        pace.observe(&policy, 1, Duration::from_millis(1));
        let after = pace.tokens_per_s().unwrap();
        assert!(after < 100_000.0 && after > 99_500.0, "{after} tokens/s");
    }

    #[test]
    fn one_of_several_side_by_side_has_its_part_of_the_speed() {
        let policy = policy();
        let mut pace = Pace::default();
        pace.observe(&policy, 1_000, Duration::from_millis(10));
        assert_eq!(pace.tokens_target(&policy, true, 2), 500);
        assert_eq!(pace.tokens_target(&policy, true, 8), 256, "no smaller than the smallest");
        assert_eq!(pace.expected_duration(500, 2), Some(Duration::from_millis(10)));
    }
}
