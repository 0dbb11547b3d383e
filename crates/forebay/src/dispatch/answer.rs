//! From the output rows of a batch to its callers: check every row, hand the good ones out. Plain
//! values in and out; it knows no socket and no memory shared with a worker.

use crate::admission::Room;
use crate::metrics::{AnswerDropped, Metrics, ReplyCheck};
use crate::reply::Replier;
use crate::request::{InWorker, Pending};

/// Sums side by side of the rough check.
const ROUGH_LANES: usize = 16;
/// Squares that each of them takes in single precision.
const ROUGH_STEPS: usize = 16;
/// How far the rough length of a unit row may be off, with a margin: each square, and each of at
/// most [`ROUGH_LANES`] or [`ROUGH_STEPS`] additions, is off by at most 2^-24 of a sum of about 1.
const ROUGH_ERROR: f64 = 2e-6;

/// The rows of one batch with their texts, and what is wrong with some of them.
pub(crate) struct CheckedRows<'v> {
    /// `None` where a text has been answered before.
    texts: Vec<Option<Pending>>,
    values: &'v [f32],
    row_values: usize,
    good: usize,
    /// In the order of the rows; as a rule there are none.
    wrong: Vec<WrongRow>,
}

struct WrongRow {
    row: usize,
    check: ReplyCheck,
    reason: String,
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
        let row_values = row_values.max(1);
        let (mut good, mut wrong) = (0, Vec::new());
        for (row, (text, values)) in texts.iter().zip(values.chunks_exact(row_values)).enumerate() {
            match text.as_ref().map(|_| check(values, tolerance)) {
                None => {}
                Some(Ok(())) => good += 1,
                Some(Err((check, reason))) => wrong.push(WrongRow { row, check, reason }),
            }
        }
        Self { texts, values, row_values, good, wrong }
    }

    /// How many texts will get an embedding.
    pub(crate) fn good(&self) -> usize {
        self.good
    }

    /// Whether nothing is wrong with any row.
    pub(crate) fn all_good(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Answers the texts whose rows are good: how many that were, and the texts that have no
    /// answer yet. `in_worker` is when the batch was there. Room first, as for one text, and both for all of them at once: what is locked
    /// for each text costs more than its row.
    pub(crate) fn hand_out(
        self,
        metrics: &Metrics,
        in_worker: InWorker,
    ) -> (u64, Option<WrongRows>) {
        let Self { texts, values, row_values, good, wrong } = self;
        let mut wrong = wrong.into_iter().peekable();
        let mut room = Room::default();
        let mut answers = Vec::with_capacity(good);
        let mut wrong_rows: Option<WrongRows> = None;
        for (at, (text, values)) in
            texts.into_iter().zip(values.chunks_exact(row_values)).enumerate()
        {
            let Some(pending) = text else {
                metrics.answer_dropped(AnswerDropped::Late);
                continue;
            };
            if let Some(WrongRow { check, reason, .. }) = wrong.next_if(|wrong| wrong.row == at) {
                metrics.reply_check_failed(check);
                let rows = wrong_rows
                    .get_or_insert_with(|| WrongRows { texts: Vec::new(), reason: String::new() });
                rows.texts.push(pending);
                rows.reason = reason;
                continue;
            }
            let embedding = pending.embedding(values, in_worker);
            match pending.owed.settle() {
                Some((replier, permit)) => {
                    room.add(permit);
                    answers.push((replier, embedding));
                }
                None => metrics.answer_dropped(AnswerDropped::Twin),
            }
        }
        drop(room);
        let replies = answers.len() as u64;
        Replier::reply_all(answers);
        (replies, wrong_rows)
    }
}

/// A row is the unit-length embedding and the length it had: all finite, and the length of the
/// unit row 1 within `tolerance`, or 0 for a row of zeros.
pub(crate) fn check(row: &[f32], tolerance: f64) -> Result<(), (ReplyCheck, String)> {
    let Some((length, unit)) = row.split_last() else {
        return Err((ReplyCheck::Shape, "row is empty".to_owned()));
    };
    if is_plainly_unit(unit, tolerance) && *length >= 0.0 && length.is_finite() {
        return Ok(());
    }
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

/// Whether the length of a row is 1 within `tolerance` beyond doubt, found in single precision,
/// which is much faster. What it does not accept is for the exact check to judge: a value that is
/// not finite or too large, and a row whose length is near the bound, never pass here.
fn is_plainly_unit(unit: &[f32], tolerance: f64) -> bool {
    let mut squares = 0.0_f64;
    for part in unit.chunks(ROUGH_LANES * ROUGH_STEPS) {
        let mut sums = [0.0_f32; ROUGH_LANES];
        let (groups, rest) = part.as_chunks::<ROUGH_LANES>();
        for group in groups {
            for (sum, value) in sums.iter_mut().zip(group) {
                *sum += *value * *value;
            }
        }
        let rest: f32 = rest.iter().map(|value| *value * *value).sum();
        squares += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() + f64::from(rest);
    }
    (squares.sqrt() - 1.0).abs() <= tolerance - ROUGH_ERROR
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
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::{ROUGH_ERROR, check, is_plainly_unit, sum_of_squares};

    #[test]
    fn the_quick_look_accepts_nothing_that_the_exact_check_would_not() {
        let mut random = SmallRng::seed_from_u64(1);
        for round in 0..20_000 {
            let width = random.random_range(1..1_100);
            let mut row: Vec<f32> = (0..width).map(|_| random.random_range(-1.0..1.0)).collect();
            let tolerance = 10_f64.powf(random.random_range(-6.0..-1.0));
            // Around the bound, where the two may differ.
            let off =
                tolerance * random.random_range(-1.1..1.1) + ROUGH_ERROR * f64::from(round % 3);
            let scale = (1.0 + off) / sum_of_squares(&row).sqrt();
            row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
            let exact = (sum_of_squares(&row).sqrt() - 1.0).abs();
            let quick = is_plainly_unit(&row, tolerance);
            assert!(!quick || exact <= tolerance, "{exact} passes for {tolerance}");
            assert!(quick || exact > tolerance - 2.0 * ROUGH_ERROR, "{exact} for {tolerance}");
            row[width / 2] = [f32::NAN, f32::INFINITY, -1e30][round as usize % 3];
            assert!(!is_plainly_unit(&row, tolerance));
        }
    }

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
