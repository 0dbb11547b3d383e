//! How a batch becomes runs: a pure function of the row lengths and the limits.
//!
//! Rows are ordered by length; those of the same length rounded up share an attention block, and a
//! run has a few blocks. The width of a row's block, and with it every rounding step in it, then
//! depends on the row alone. A batch that exceeds the limits is cut into runs of about equal size,
//! so that no run is left with a small remainder.

use std::iter::repeat_n;

use crate::options::SubBatchLimits;

/// One run: rows of similar length.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SubBatch {
    /// Indices of the rows in the caller's batch, shortest first.
    pub(crate) rows: Vec<usize>,
    /// The attention blocks of these rows in the same order; their widths differ.
    pub(crate) blocks: Vec<Block>,
}

/// Consecutive rows of a run whose attention has the same width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: usize,
    /// In tokens; no row of the block is longer.
    pub(crate) width: usize,
}

impl Block {
    /// For a run that needs fewer blocks than the graph has.
    pub(crate) const EMPTY: Self = Self { rows: 0, width: 1 };
}

impl SubBatch {
    /// Tokens of all rows, each counted as wide as its block.
    pub(crate) fn padded_tokens(&self) -> usize {
        self.blocks.iter().map(|block| block.rows * block.width).sum()
    }

    /// Width of each row's block, in the order of `rows`.
    pub(crate) fn widths(&self) -> impl Iterator<Item = usize> {
        self.blocks.iter().flat_map(|block| repeat_n(block.width, block.rows))
    }

    fn push(&mut self, row: usize, width: usize) {
        self.rows.push(row);
        match self.blocks.last_mut() {
            Some(block) if block.width == width => block.rows += 1,
            _ => self.blocks.push(Block { rows: 1, width }),
        }
    }
}

/// Cuts rows of `lengths` tokens. `width_max` caps the rounded length and is no shorter than any
/// row.
pub(crate) fn cut(lengths: &[usize], limits: &SubBatchLimits, width_max: usize) -> Vec<SubBatch> {
    let width_of = |row: usize| lengths[row].next_multiple_of(limits.width_step).min(width_max);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| lengths[row]);
    let groups: Vec<&[usize]> =
        order.chunk_by(|&left, &right| width_of(left) == width_of(right)).collect();
    let segments = groups.len().div_ceil(limits.widths_max).max(1);
    let widths_per_segment = groups.len().div_ceil(segments).max(1);
    let mut plan = Vec::with_capacity(segments);
    for segment in groups.chunks(widths_per_segment) {
        cut_evenly(&segment.concat(), width_of, limits, &mut plan);
    }
    plan
}

/// Cuts `rows`, which have few enough widths for one run, into as few runs as the limits allow.
fn cut_evenly(
    rows: &[usize],
    width_of: impl Fn(usize) -> usize,
    limits: &SubBatchLimits,
    plan: &mut Vec<SubBatch>,
) {
    let tokens: usize = rows.iter().map(|&row| width_of(row)).sum();
    let runs = tokens.div_ceil(limits.tokens_max).max(rows.len().div_ceil(limits.rows_max));
    let tokens_share = tokens.div_ceil(runs);
    let (mut run, mut tokens_before, mut tokens_due) = (SubBatch::default(), 0, tokens_share);
    for &row in rows {
        let width = width_of(row);
        // A row goes to the run that has more than half of it.
        let full = tokens_before + width.div_ceil(2) > tokens_due
            || run.padded_tokens() + width > limits.tokens_max
            || run.rows.len() >= limits.rows_max;
        if full && !run.rows.is_empty() {
            plan.push(std::mem::take(&mut run));
            tokens_due += tokens_share;
        }
        tokens_before += width;
        run.push(row, width);
    }
    plan.push(run);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl Strategy<Value = SubBatchLimits> {
        (1_usize..70, 1_usize..2000, 1_usize..40, 1_usize..6).prop_map(
            |(rows_max, tokens_max, width_step, widths_max)| SubBatchLimits {
                rows_max,
                tokens_max,
                width_step,
                widths_max,
            },
        )
    }

    /// The width of each row, by its index in the batch.
    fn widths(plan: &[SubBatch]) -> std::collections::BTreeMap<usize, usize> {
        let of_run = |run: &SubBatch| {
            let widths: Vec<usize> = run.widths().collect();
            assert_eq!(widths.len(), run.rows.len());
            run.rows.clone().into_iter().zip(widths)
        };
        plan.iter().flat_map(of_run).collect()
    }

    proptest! {
        #[test]
        fn every_row_runs_once_within_the_limits(
            lengths in prop::collection::vec(1_usize..=300, 0..200),
            limits in limits(),
        ) {
            let plan = cut(&lengths, &limits, 300);
            let mut seen: Vec<usize> = plan.iter().flat_map(|run| run.rows.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for run in &plan {
                prop_assert!(!run.rows.is_empty());
                prop_assert!(run.rows.len() <= limits.rows_max);
                prop_assert!(run.rows.len() == 1 || run.padded_tokens() <= limits.tokens_max);
                prop_assert!(run.blocks.len() <= limits.widths_max);
            }
            for (row, width) in widths(&plan) {
                prop_assert!(lengths[row] <= width && width < lengths[row] + limits.width_step);
            }
        }

        #[test]
        fn the_width_of_a_row_does_not_depend_on_its_neighbours(
            lengths in prop::collection::vec(1_usize..=300, 1..200),
            limits in limits(),
        ) {
            for (row, width) in widths(&cut(&lengths, &limits, 300)) {
                let alone = cut(&lengths[row..=row], &limits, 300);
                prop_assert_eq!(&alone[0].blocks, &[Block { rows: 1, width }]);
            }
        }

        #[test]
        fn rows_that_fit_together_are_one_run(
            lengths in prop::collection::vec(1_usize..=64, 1..=32),
        ) {
            let limits = SubBatchLimits { rows_max: 32, tokens_max: 2048, width_step: 16, widths_max: 4 };
            prop_assert_eq!(cut(&lengths, &limits, 512).len(), 1);
        }
    }

    #[test]
    fn a_width_that_needs_a_run_of_its_own_leaves_the_others_whole() {
        let limits =
            SubBatchLimits { rows_max: 64, tokens_max: 1024, width_step: 8, widths_max: 1 };
        let mut lengths = vec![5; 60];
        lengths.push(9);
        let sizes: Vec<usize> =
            cut(&lengths, &limits, 512).iter().map(|run| run.rows.len()).collect();
        assert_eq!(sizes, [60, 1]);
    }

    #[test]
    fn rows_over_the_limit_are_cut_evenly() {
        let limits =
            SubBatchLimits { rows_max: 64, tokens_max: 1024, width_step: 16, widths_max: 4 };
        let sizes = |lengths: &[usize]| -> Vec<usize> {
            cut(lengths, &limits, 512).iter().map(|run| run.rows.len()).collect()
        };
        assert_eq!(sizes(&[11; 70]), [35, 35]);
        let mixed: Vec<usize> = (0..70).map(|row| if row % 2 == 0 { 5 } else { 20 }).collect();
        assert_eq!(sizes(&mixed), [44, 26]);
    }
}
