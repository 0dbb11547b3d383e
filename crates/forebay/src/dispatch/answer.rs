//! From the output rows of a batch to its callers: check every row, hand the good ones out. Plain
//! values in and out; it knows no socket and no memory shared with a worker.

use crate::metrics::{AnswerDropped, Metrics, ReplyCheck};
use crate::request::{InWorker, Pending};

/// The rows of one batch, each with its text and what is wrong with it.
pub(crate) struct CheckedRows<'v> {
    rows: Vec<CheckedRow<'v>>,
    /// Rows whose text has been answered before.
    late: usize,
}

struct CheckedRow<'v> {
    pending: Pending,
    values: &'v [f32],
    wrong: Option<(ReplyCheck, String)>,
}

/// Texts whose rows were wrong.
pub(crate) struct WrongRows {
    pub(crate) texts: Vec<Pending>,
    /// What was wrong with the last of them.
    pub(crate) reason: String,
}

impl<'v> CheckedRows<'v> {
    /// Checks the output of a batch: `row_values` values for each of `texts`, of which `None` has
    /// been answered. The length of a unit row may be off by `tolerance`.
    pub(crate) fn new(
        texts: Vec<Option<Pending>>,
        values: &'v [f32],
        row_values: usize,
        tolerance: f64,
    ) -> Self {
        let mut late = 0;
        let mut rows = Vec::with_capacity(texts.len());
        for (pending, values) in texts.into_iter().zip(values.chunks_exact(row_values.max(1))) {
            match pending {
                None => late += 1,
                Some(pending) => {
                    let wrong = check(values, tolerance).err();
                    rows.push(CheckedRow { pending, values, wrong });
                }
            }
        }
        Self { rows, late }
    }

    /// How many texts will get an embedding.
    pub(crate) fn good(&self) -> usize {
        self.rows.iter().filter(|row| row.wrong.is_none()).count()
    }

    /// Whether nothing is wrong with any row.
    pub(crate) fn all_good(&self) -> bool {
        self.rows.iter().all(|row| row.wrong.is_none())
    }

    /// Answers the texts whose rows are good: how many that were, and the texts that have no
    /// answer yet. `in_worker` is when the batch was there.
    pub(crate) fn hand_out(
        self,
        metrics: &Metrics,
        in_worker: InWorker,
    ) -> (u64, Option<WrongRows>) {
        for _ in 0..self.late {
            metrics.answer_dropped(AnswerDropped::Late);
        }
        let mut replies = 0;
        let mut wrong_rows: Option<WrongRows> = None;
        for CheckedRow { pending, values, wrong } in self.rows {
            match wrong {
                None => {
                    let embedding = pending.embedding(values, in_worker);
                    if pending.reply(Ok(embedding)) {
                        replies += 1;
                    } else {
                        metrics.answer_dropped(AnswerDropped::Twin);
                    }
                }
                Some((check, reason)) => {
                    metrics.reply_check_failed(check);
                    let wrong = wrong_rows.get_or_insert_with(|| WrongRows {
                        texts: Vec::new(),
                        reason: String::new(),
                    });
                    wrong.texts.push(pending);
                    wrong.reason = reason;
                }
            }
        }
        (replies, wrong_rows)
    }
}

/// A row is the unit-length embedding and the length it had: all finite, and the length of the
/// unit row 1 within `tolerance`, or 0 for a row of zeros.
pub(crate) fn check(row: &[f32], tolerance: f64) -> Result<(), (ReplyCheck, String)> {
    let Some((length, unit)) = row.split_last() else {
        return Err((ReplyCheck::Shape, "row is empty".to_owned()));
    };
    let squares = sum_of_squares(unit);
    // A sum of squares is finite only if every value is.
    if !squares.is_finite() || !length.is_finite() || *length < 0.0 {
        return Err((ReplyCheck::Finite, "a value is not finite".to_owned()));
    }
    let found = squares.sqrt();
    if (found - 1.0).abs() <= tolerance || (found == 0.0 && *length == 0.0) {
        Ok(())
    } else {
        let message = format!("unit row has length {found:.6}, expected 1 within {tolerance}");
        Err((ReplyCheck::Norm, message))
    }
}

/// Several sums side by side: one alone would wait for each addition, and this runs for every row.
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let (groups, rest) = values.as_chunks::<8>();
    for group in groups {
        for (sum, value) in sums.iter_mut().zip(group) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    let rest: f64 = rest.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::{check, sum_of_squares};

    #[test]
    fn no_value_is_left_out_of_the_sum() {
        for length in [0, 1, 7, 8, 9, 384, 385] {
            let values: Vec<f32> = (0..length).map(|index| index as f32).collect();
            let expected: f64 = (0..length).map(|index| (index * index) as f64).sum();
            assert_eq!(sum_of_squares(&values), expected, "{length}");
        }
    }

    #[test]
    fn only_finite_unit_rows_pass() {
        assert_eq!(check(&[0.6, 0.8, 12.0], 1e-3), Ok(()));
        assert_eq!(check(&[0.0, 0.0, 0.0], 1e-3), Ok(()));
        let wrong: [&[f32]; 7] = [
            &[],
            &[0.6, 0.9, 1.0],
            &[f32::NAN, 1.0, 1.0],
            &[f32::INFINITY, 0.0, 1.0],
            &[1.0, 0.0, f32::NAN],
            &[1.0, 0.0, -1.0],
            &[0.0, 0.0, 3.0],
        ];
        for row in wrong {
            assert!(check(row, 1e-3).is_err(), "{row:?}");
        }
    }
}
