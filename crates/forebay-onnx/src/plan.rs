//! How a batch becomes runs: a pure function of the row lengths and the limits.
//!
//! Rows are ordered by length and grouped by their length rounded up. A group that exceeds the
//! limits is cut into runs of equal size, so that no run is left with a small remainder. Rows of
//! different groups never share a run: the width of a row's attention block, and with it every
//! rounding step in it, then depends on the row alone.

use crate::options::SubBatchLimits;

/// One run: rows of similar length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubBatch {
    /// Indices of the rows in the caller's batch, shortest first.
    pub(crate) rows: Vec<usize>,
    /// Width of the attention block, in tokens; no row is longer.
    pub(crate) width: usize,
}

/// Cuts rows of `lengths` tokens. `width_max` caps the rounded length and is no shorter than any
/// row.
pub(crate) fn cut(lengths: &[usize], limits: &SubBatchLimits, width_max: usize) -> Vec<SubBatch> {
    let width_of = |row: usize| lengths[row].next_multiple_of(limits.width_step).min(width_max);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| lengths[row]);
    let mut plan = Vec::new();
    for group in order.chunk_by(|&left, &right| width_of(left) == width_of(right)) {
        let width = width_of(group[0]);
        let rows_max = (limits.tokens_max / width).clamp(1, limits.rows_max);
        let runs = group.len().div_ceil(rows_max);
        let rows_per_run = group.len().div_ceil(runs);
        plan.extend(group.chunks(rows_per_run).map(|rows| SubBatch { rows: rows.to_vec(), width }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl Strategy<Value = SubBatchLimits> {
        (1_usize..70, 1_usize..2000, 1_usize..40).prop_map(|(rows_max, tokens_max, width_step)| {
            SubBatchLimits { rows_max, tokens_max, width_step }
        })
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
                prop_assert!(run.rows.len() == 1 || run.rows.len() * run.width <= limits.tokens_max);
                prop_assert!(run.rows.iter().all(|&row| lengths[row] <= run.width));
            }
        }

        #[test]
        fn the_width_of_a_row_does_not_depend_on_its_neighbours(
            lengths in prop::collection::vec(1_usize..=300, 1..200),
            limits in limits(),
        ) {
            for run in cut(&lengths, &limits, 300) {
                for &row in &run.rows {
                    let alone = cut(&lengths[row..=row], &limits, 300);
                    prop_assert_eq!(alone[0].width, run.width);
                }
            }
        }
    }

    #[test]
    fn a_group_over_the_limit_is_cut_evenly() {
        let limits = SubBatchLimits { rows_max: 64, tokens_max: 1024, width_step: 16 };
        let sizes: Vec<usize> =
            cut(&[11; 70], &limits, 512).iter().map(|run| run.rows.len()).collect();
        assert_eq!(sizes, [35, 35]);
    }
}
