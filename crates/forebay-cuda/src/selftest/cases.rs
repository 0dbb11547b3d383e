//! Batches that are hard for the kernels: lengths around every tile boundary, odd row starts, many
//! tiny rows, buckets larger than what is in them, and the same sequences in other company.
//!
//! A batch here is only its shape; values are made elsewhere. Nothing here knows a kernel.

use std::ops::Range;

use rand::Rng;
use rand::seq::SliceRandom;

use super::values::{Values, generator};

/// Lengths next to the tile boundaries of 16, 32, 64, 128 and 256, and the longest.
pub(super) const LENGTHS: [u32; 20] =
    [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 255, 256, 257, 511, 512];

/// Packed sequences and the token bucket that holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// What the batch is, for messages.
    pub(super) name: String,
    /// Tokens of each sequence.
    pub(super) lengths: Vec<u32>,
    /// Token rows that the buffers hold; at least the batch's tokens.
    pub(super) bucket: usize,
}

/// A batch and the values to run it with.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// The shape.
    pub(super) batch: Batch,
    /// The values, one run for each.
    pub(super) values: Vec<Values>,
}

impl Batch {
    /// `bucket` is raised to the batch's tokens if it is smaller.
    pub(super) fn new(name: impl Into<String>, lengths: Vec<u32>, bucket: usize) -> Self {
        let mut batch = Self { name: name.into(), lengths, bucket };
        batch.bucket = bucket.max(batch.tokens());
        batch
    }

    /// Tokens of all sequences.
    pub(super) fn tokens(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }

    /// Sequences.
    pub(super) fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Where each sequence starts, and the end of the last: rows + 1 values.
    pub(super) fn cu(&self) -> Vec<u32> {
        let mut cu = vec![0];
        let mut end = 0;
        for length in &self.lengths {
            end += length;
            cu.push(end);
        }
        cu
    }

    /// The tokens of each sequence.
    pub(super) fn sequences(&self) -> Vec<Range<usize>> {
        self.cu().windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect()
    }

    /// The tokens of the sequence that holds `token`.
    pub(super) fn sequence_of(&self, token: usize) -> Range<usize> {
        let sequences = self.sequences();
        let index = sequences.partition_point(|sequence| sequence.end <= token);
        sequences.get(index).cloned().unwrap_or(0..0)
    }

    /// The sequences `order`, packed in that order, in the smallest bucket of whole 16s.
    pub(super) fn rearranged(&self, order: &[usize]) -> Self {
        let lengths: Vec<u32> = order.iter().map(|&index| self.lengths[index]).collect();
        let tokens: u32 = lengths.iter().sum();
        let name = match order {
            [only] => format!("sequence {only} alone of {}", self.name),
            _ => format!("{} sequences rearranged of {}", order.len(), self.name),
        };
        Self::new(name, lengths, (tokens as usize).next_multiple_of(16))
    }

    /// Rows of a token matrix `[tokens, width]` moved to where [`Batch::rearranged`] puts them.
    pub(super) fn gather<T: Copy>(&self, matrix: &[T], width: usize, order: &[usize]) -> Vec<T> {
        let sequences = self.sequences();
        let mut out = Vec::new();
        for &index in order {
            let tokens = sequences[index].clone();
            out.extend_from_slice(&matrix[tokens.start * width..tokens.end * width]);
        }
        out
    }

    /// Other orders of the sequences in which each must come out with the same bits: reversed with
    /// the first left out, so that all starts move, and `alone` sequences on their own.
    pub(super) fn arrangements(&self, alone: usize) -> Vec<Vec<usize>> {
        let rows = self.rows();
        let mut orders = Vec::new();
        if rows > 2 {
            orders.push((1..rows).rev().collect());
        }
        if rows > 1 {
            let step = rows.div_ceil(alone.max(1));
            orders.extend((0..rows).step_by(step).map(|index| vec![index]));
            orders.push(vec![rows - 1]);
        }
        orders
    }

    /// About `limit` tokens for which the reference is computed: first and last tokens of
    /// sequences, tokens next to multiples of 16, and others by chance.
    pub(super) fn sample(&self, limit: usize) -> Vec<usize> {
        let tokens = self.tokens();
        if tokens <= limit {
            return (0..tokens).collect();
        }
        let mut rng = generator(0x5A, &self.name);
        let mut edges: Vec<usize> = Vec::new();
        for sequence in self.sequences() {
            edges.extend([sequence.start, sequence.end - 1]);
            edges.extend((sequence.start + 15..sequence.end).step_by(16));
            edges.extend((sequence.start + 16..sequence.end).step_by(16));
        }
        edges.shuffle(&mut rng);
        edges.truncate(limit * 2 / 3);
        // The last token is next to what nobody may read.
        edges.push(tokens - 1);
        edges.extend((0..limit / 3).map(|_| rng.random_range(0..tokens)));
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

const ADVERSARIAL: [Values; 5] =
    [Values::Normal, Values::Outliers, Values::Equal, Values::Alternating, Values::Tiny];

/// Adds the values that only mean something to attention.
pub(super) fn for_attention(mut cases: Vec<Case>) -> Vec<Case> {
    for case in &mut cases {
        if case.values.len() > 1 {
            case.values.extend([Values::HugeLogit, Values::NegativeLogits]);
        }
    }
    cases
}

/// The cases of a quick or a full run. No sequence is longer than `tokens_max`, the model's limit.
pub(super) fn cases(quick: bool, tokens_max: usize) -> Vec<Case> {
    let limit = u32::try_from(tokens_max).unwrap_or(u32::MAX).max(1);
    let cut = |lengths: &[u32]| lengths.iter().map(|&length| length.min(limit)).collect();
    let mut cases = vec![Case {
        batch: Batch::new("mixed with odd starts", cut(&[1, 17, 2, 33, 3, 64, 15, 5, 129]), 384),
        values: ADVERSARIAL.to_vec(),
    }];
    if quick {
        cases[0].values.truncate(2);
        return cases;
    }
    let mut rng = generator(3, "tiny rows");
    let tiny: Vec<u32> = (0..1024).map(|_| rng.random_range(1..=3)).collect();
    let mut all = LENGTHS.to_vec();
    all.shuffle(&mut rng);
    let normal = |batch| Case { batch, values: vec![Values::Normal] };
    cases.extend([
        normal(Batch::new("every length", cut(&all), 3072)),
        normal(Batch::new("1024 tiny rows", cut(&tiny), 4096)),
        normal(Batch::new("a full bucket", cut(&[127, 1, 128]), 1)),
        normal(Batch::new("a thousand tokens", cut(&[121; 8]), 1024)),
    ]);
    for (index, &length) in LENGTHS.iter().filter(|&&length| length <= limit).enumerate() {
        let batch = Batch::new(
            format!("one sequence of {length}"),
            vec![length],
            (length as usize + 1).next_multiple_of(16),
        );
        cases.push(Case { batch, values: vec![ADVERSARIAL[index % ADVERSARIAL.len()]] });
    }
    cases
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn the_full_run_has_every_shape_that_is_asked_for() {
        let full = cases(false, 512);
        let lengths = |length| full.iter().any(|case| case.batch.lengths.contains(&length));
        assert!(LENGTHS.iter().all(|&length| lengths(length)));
        assert!(LENGTHS.iter().all(|&l| full.iter().any(|case| case.batch.lengths == [l])));
        assert!(full.iter().any(|case| case.batch.rows() == 1024));
        assert!(full.iter().any(|case| case.batch.tokens() == case.batch.bucket));
        assert!(full.iter().any(|case| case.batch.bucket > case.batch.tokens() + 128));
        let odd = |case: &Case| case.batch.cu().iter().any(|start| start % 2 == 1);
        assert!(full.iter().filter(|case| odd(case)).count() >= 3);
        let values: Vec<_> = for_attention(full.clone()).remove(0).values;
        assert_eq!(values.len(), 7);
    }

    #[test]
    fn a_model_with_few_positions_gets_no_longer_sequence() {
        for quick in [false, true] {
            let lengths = cases(quick, 40).into_iter().flat_map(|case| case.batch.lengths);
            assert_eq!(lengths.max(), Some(40));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

        #[test]
        fn a_rearranged_batch_holds_the_same_sequences(
            lengths in prop::collection::vec(1_u32..40, 2..12),
            alone in 1_usize..6,
        ) {
            let batch = Batch::new("any", lengths, 0);
            let tokens: Vec<u32> = (0..batch.tokens() as u32).collect();
            let mut seen = vec![false; batch.rows()];
            for order in batch.arrangements(alone) {
                let other = batch.rearranged(&order);
                let moved = batch.gather(&tokens, 1, &order);
                prop_assert_eq!(moved.len(), other.tokens());
                prop_assert!(other.bucket >= other.tokens() && other.bucket.is_multiple_of(16));
                for (place, &index) in other.sequences().into_iter().zip(&order) {
                    seen[index] = true;
                    let home = batch.sequences()[index].clone();
                    let expected: Vec<u32> = home.map(|token| token as u32).collect();
                    prop_assert_eq!(&moved[place], &expected[..]);
                }
            }
            prop_assert!(seen.iter().all(|&seen| seen), "each sequence is met in other company");
        }

        #[test]
        fn a_sample_is_of_tokens_and_has_the_last(
            lengths in prop::collection::vec(1_u32..90, 1..30),
            limit in 1_usize..200,
        ) {
            let batch = Batch::new("any", lengths, 0);
            let sample = batch.sample(limit);
            prop_assert!(sample.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(sample.last(), Some(&(batch.tokens() - 1)));
            prop_assert!(sample.len() <= limit + 1);
            for &token in &sample {
                prop_assert!(batch.sequence_of(token).contains(&token));
            }
        }
    }
}
