//! Token buckets: the capacities that graphs are captured for and matrix products are tuned for.
//!
//! A batch runs in the smallest bucket that holds its tokens. Only the matrix products of a library
//! really compute a whole bucket; every other kernel stops at the real count. Steps are fine where
//! a batch is small and its products are bound by latency, and coarse where more graphs would cost
//! more memory than the rounded-up rows cost time. There are never more buckets than graphs can be
//! kept for, so that all of them are ready before the first batch.

/// Buckets up to 2,048 tokens.
const SMALL: [u32; 14] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048];

/// Buckets above [`SMALL`]: multiples of 512 up to here, multiples of 1,024 beyond.
const FINE_MAX: u32 = 4096;
const FINE_STEP: u32 = 512;
const COARSE_STEP: u32 = 1024;

/// Token counts of a bucket are multiples of this, as tiles of tensor-core products are.
pub const BUCKET_STEP: u32 = 16;

/// The buckets of an engine whose batches have at most `tokens_max` tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    capacities: Vec<u32>,
}

impl Buckets {
    /// All buckets below `tokens_max`, then `tokens_max` itself, which becomes a multiple of
    /// [`BUCKET_STEP`] by rounding up. Where these are more than `buckets_max`, those go first
    /// whose batches are rounded up least by their absence; `tokens_max` always stays.
    #[must_use]
    pub fn up_to(tokens_max: u32, buckets_max: usize) -> Self {
        let last = tokens_max.max(1).next_multiple_of(BUCKET_STEP);
        let fine = (SMALL[SMALL.len() - 1]..=FINE_MAX).step_by(FINE_STEP as usize).skip(1);
        let coarse = (FINE_MAX..last).step_by(COARSE_STEP as usize).skip(1);
        let mut capacities: Vec<u32> = SMALL
            .into_iter()
            .chain(fine)
            .chain(coarse)
            .take_while(|&capacity| capacity < last)
            .collect();
        capacities.push(last);
        while capacities.len() > buckets_max.max(1) {
            capacities.remove(least_missed(&capacities));
        }
        Self { capacities }
    }

    /// The smallest bucket that holds `tokens`, or `None` if not even the largest does.
    #[must_use]
    pub fn holding(&self, tokens: u32) -> Option<u32> {
        let index = self.capacities.partition_point(|&capacity| capacity < tokens);
        self.capacities.get(index).copied()
    }

    /// All capacities, rising.
    #[must_use]
    pub fn capacities(&self) -> &[u32] {
        &self.capacities
    }
}

/// The bucket, other than the last, without which the smallest batch that it held is rounded up by
/// the smallest factor.
fn least_missed(capacities: &[u32]) -> usize {
    let factor = |index: usize| {
        let below = index.checked_sub(1).map_or(0, |below| capacities[below]);
        f64::from(capacities[index + 1]) / f64::from(below + 1)
    };
    let inner = 0..capacities.len().saturating_sub(1);
    inner.min_by(|&one, &other| factor(one).total_cmp(&factor(other))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as the default number of graphs allows.
    const BUCKETS_MAX: usize = 24;

    #[test]
    fn the_list_of_an_8192_token_engine() {
        let expected = [
            16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072, 3584,
            4096, 5120, 6144, 7168, 8192,
        ];
        assert_eq!(Buckets::up_to(8192, BUCKETS_MAX).capacities(), expected);
    }

    #[test]
    fn every_limit_gives_rising_multiples_that_end_at_it() {
        for tokens_max in (1..5000).chain([8191, 8192, 8193, 16_384, 65_536]) {
            let buckets = Buckets::up_to(tokens_max, BUCKETS_MAX);
            let capacities = buckets.capacities();
            assert!(capacities.windows(2).all(|pair| pair[0] < pair[1]), "{tokens_max}");
            assert!(capacities.iter().all(|&capacity| capacity.is_multiple_of(BUCKET_STEP)));
            assert_eq!(capacities.last(), Some(&tokens_max.next_multiple_of(BUCKET_STEP)));
        }
    }

    #[test]
    fn a_batch_gets_the_smallest_bucket_that_holds_it() {
        let buckets = Buckets::up_to(8192, BUCKETS_MAX);
        for tokens in 1..=8192 {
            let bucket = buckets.holding(tokens).unwrap();
            assert!(bucket >= tokens);
            assert!(buckets.capacities().iter().all(|&other| other < tokens || other >= bucket));
        }
        assert_eq!(buckets.holding(8193), None);
        assert_eq!(buckets.holding(0), Some(16));
    }

    #[test]
    fn there_are_never_more_than_graphs_can_be_kept_for() {
        for tokens_max in [1, 512, 8192, 16_384, 32_768, 131_072] {
            let all = Buckets::up_to(tokens_max, usize::MAX);
            for buckets_max in (0..40).chain([200]) {
                let buckets = Buckets::up_to(tokens_max, buckets_max);
                let capacities = buckets.capacities();
                assert_eq!(capacities.len(), all.capacities().len().min(buckets_max.max(1)));
                assert_eq!(capacities.last(), all.capacities().last());
                assert!(capacities.iter().all(|capacity| all.capacities().contains(capacity)));
                assert!(capacities.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }

    #[test]
    fn what_goes_first_costs_least() {
        // With the default number of graphs no batch above the smallest is computed twice over.
        for tokens_max in [16_384, 32_768, 131_072] {
            let buckets = Buckets::up_to(tokens_max, BUCKETS_MAX);
            let rising = buckets.capacities().windows(2);
            assert!(rising.clone().all(|pair| pair[1] <= 2 * pair[0]), "{buckets:?}");
            // Even large buckets are kept apart.
            assert!(buckets.capacities().iter().filter(|&&c| c > 4096).count() > 3, "{buckets:?}");
        }
    }
}
