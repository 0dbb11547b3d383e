//! Known answers: a few fixed texts whose embeddings tell whether a device still computes right.
//!
//! A worker's first good run of them must agree with what other rungs and earlier incarnations made
//! of the same texts; from then on its rows must stay the same to the bit, as it computes the same
//! batch by the same kernels each time. What has been handed out between the last good run and a
//! bad one is counted: those embeddings are in doubt. Nothing here sends or waits.
//!
//! Where two disagree, the one that came first is believed. Every engine checks itself when it
//! starts, so that one is wrong before the first comparison is the least likely case.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_model::{Scratch, TextTokenizer, TokenizeError};

use crate::dispatch::answer::check;

/// Tokens of the long text, where the model takes as many.
const LONG_TOKENS: usize = 128;
/// Incarnations whose rows are kept for comparison: the latest of each rung, and room for some.
const KEPT_MAX: usize = 64;

/// The fixed texts of one runtime and what its rungs have made of them.
#[derive(Debug)]
pub(crate) struct Canary {
    rows: Vec<Vec<u32>>,
    cosine_min: f64,
    /// By rung, the rows of its latest incarnation that was believed.
    believed: Mutex<Vec<(usize, Arc<Vec<f32>>)>>,
}

impl Canary {
    /// Encodes the texts for a model that takes `tokens_max` tokens.
    ///
    /// # Errors
    /// [`TokenizeError`] if the model's tokenizer cannot encode them.
    pub(crate) fn new(
        tokenizer: &TextTokenizer,
        tokens_max: usize,
        cosine_min: f64,
    ) -> Result<Self, TokenizeError> {
        let sentence = "The pressure in the rear left brake line fell below its limit while the \
                        vehicle was turning at a junction. ";
        let texts = [
            "brake".to_owned(),
            "The left wheel encoder reports no change although the motor draws current.".to_owned(),
            "Ünïcødé: 中文 и русский, \u{1f916}\u{200d}\u{2699} naïve—“x²≠√2” #42 <tag/> \t\u{0}\u{7f}".to_owned(),
            sentence.repeat(LONG_TOKENS / 8),
        ];
        let mut scratch = Scratch::default();
        let encode = |text: &String| {
            let mut ids = Vec::new();
            let limit = tokens_max.min(LONG_TOKENS);
            tokenizer.encode(text, limit, &mut scratch, &mut ids).map(|_| ids)
        };
        let rows = texts.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self::of(rows, cosine_min))
    }

    /// The same for rows of token ids.
    pub(crate) fn of(rows: Vec<Vec<u32>>, cosine_min: f64) -> Self {
        Self { rows, cosine_min, believed: Mutex::new(Vec::new()) }
    }

    /// As many of the rows as a slot of this size takes, the first one at least.
    pub(crate) fn rows_within(&self, tokens_max: usize, rows_max: usize) -> &[Vec<u32>] {
        let mut tokens = 0;
        let fit = self.rows.iter().take(rows_max).take_while(|row| {
            tokens += row.len();
            tokens <= tokens_max
        });
        let count = fit.count().max(1).min(self.rows.len());
        &self.rows[..count]
    }

    /// Compares the first rows of an incarnation with those of all others that were believed, and
    /// believes it if they agree.
    fn first(&self, slot: usize, rows: &Arc<Vec<f32>>, row_values: usize) -> Result<(), String> {
        let mut believed = self.lock();
        for (other, known) in believed.iter() {
            let pairs = rows.chunks_exact(row_values).zip(known.chunks_exact(row_values));
            for (index, (row, known)) in pairs.enumerate() {
                let cosine = cosine(row, known);
                if cosine.is_nan() || cosine < self.cosine_min {
                    return Err(format!(
                        "canary text {index} has cosine {cosine:.6} with what rung {other} computed, \
                         allowed is canary.cosine_min = {}",
                        self.cosine_min
                    ));
                }
            }
        }
        believed.retain(|(other, _)| *other != slot);
        if believed.len() < KEPT_MAX {
            believed.push((slot, Arc::clone(rows)));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Arc<Vec<f32>>)>> {
        // Every change is one step.
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cosine of two rows, each a unit vector and a length; 1 for two rows of zeros.
fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let unit = one.len().saturating_sub(1);
    let zeros = |row: &[f32]| row.iter().all(|value| *value == 0.0);
    if zeros(one) && zeros(other) {
        return 1.0;
    }
    let products = one.iter().zip(other).take(unit);
    products.map(|(one, other)| f64::from(*one) * f64::from(*other)).sum()
}

/// Judges the canary batches of one incarnation of a worker.
pub(crate) struct CanaryJudge {
    canary: Arc<Canary>,
    slot: usize,
    golden: Option<Arc<Vec<f32>>>,
    /// Embeddings handed out since the last good canary.
    replies: u64,
    wrong: Option<String>,
}

impl CanaryJudge {
    /// `slot`: which rung it is.
    pub(crate) fn new(canary: Arc<Canary>, slot: usize) -> Self {
        Self { canary, slot, golden: None, replies: 0, wrong: None }
    }

    /// Embeddings of real texts were handed out.
    pub(crate) fn handed_out(&mut self, replies: u64) {
        self.replies += replies;
    }

    /// What was wrong with the rows of a canary of this incarnation, if anything ever was: it is
    /// not believed any more.
    pub(crate) fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// The rows of a canary batch came back: the verdict, and how many embeddings have been handed
    /// out since the last good one.
    pub(crate) fn rows(
        &mut self,
        rows: Vec<f32>,
        row_values: usize,
        tolerance: f64,
    ) -> (Result<(), String>, u64) {
        match self.compare(rows, row_values.max(1), tolerance) {
            Ok(()) => (Ok(()), std::mem::take(&mut self.replies)),
            Err(reason) => {
                self.wrong.get_or_insert_with(|| format!("the worker failed its canary: {reason}"));
                (Err(reason), self.replies)
            }
        }
    }

    fn compare(&mut self, rows: Vec<f32>, row_values: usize, tolerance: f64) -> Result<(), String> {
        for (index, row) in rows.chunks_exact(row_values).enumerate() {
            check(row, tolerance)
                .map_err(|(_, reason)| format!("canary text {index}: {reason}"))?;
        }
        let Some(golden) = &self.golden else {
            let rows = Arc::new(rows);
            self.canary.first(self.slot, &rows, row_values)?;
            self.golden = Some(rows);
            return Ok(());
        };
        let differs = |(one, other): (&f32, &f32)| one.to_bits() != other.to_bits();
        match golden.iter().zip(&rows).position(differs) {
            None if golden.len() == rows.len() => Ok(()),
            place => {
                let place = place.unwrap_or(rows.len().min(golden.len()));
                let (text, value) = (place / row_values, place % row_values);
                Err(format!("canary text {text} differs from its first result at value {value}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: f64 = 1e-3;

    fn canary() -> Arc<Canary> {
        Arc::new(Canary::of(vec![vec![1; 3], vec![2; 30], vec![3; 100]], 0.98))
    }

    /// Two rows of two values and a length, turned by an angle.
    fn rows(angle: f32) -> Vec<f32> {
        let (sine, cosine) = angle.sin_cos();
        vec![cosine, sine, 3.0, -sine, cosine, 4.0]
    }

    #[test]
    fn as_many_rows_as_fit_but_never_none() {
        let canary = canary();
        let within = |tokens, rows| canary.rows_within(tokens, rows).len();
        assert_eq!(
            [within(1_000, 512), within(1_000, 2), within(132, 9), within(1, 1)],
            [3, 2, 2, 1]
        );
        assert_eq!(within(133, 3), 3);
    }

    #[test]
    fn the_first_run_must_agree_with_other_rungs_and_later_ones_with_the_first() {
        let canary = canary();
        let judge = |slot| CanaryJudge::new(Arc::clone(&canary), slot);
        let mut cpu = judge(1);
        cpu.handed_out(5);
        assert_eq!(cpu.rows(rows(0.0), 3, TOLERANCE), (Ok(()), 5));
        let mut gpu = judge(0);
        assert_eq!(gpu.rows(rows(0.1), 3, TOLERANCE), (Ok(()), 0), "cosine 0.995");
        let mut other = judge(2);
        let (verdict, _) = other.rows(rows(0.25), 3, TOLERANCE);
        assert!(verdict.is_err_and(|reason| reason.contains("cosine 0.96")));
        assert!(other.wrong().is_some());
        // What was refused is nobody's reference, and a new incarnation may try again.
        assert_eq!(judge(2).rows(rows(0.05), 3, TOLERANCE).0, Ok(()));
        for _ in 0..3 {
            gpu.handed_out(7);
            assert_eq!(gpu.rows(rows(0.1), 3, TOLERANCE), (Ok(()), 7));
        }
        gpu.handed_out(9);
        let mut flipped = rows(0.1);
        flipped[4] = f32::from_bits(flipped[4].to_bits() ^ 1);
        let (verdict, replies) = gpu.rows(flipped, 3, TOLERANCE);
        assert_eq!(replies, 9);
        let reason = verdict.expect_err("one bit");
        assert_eq!(reason, "canary text 1 differs from its first result at value 1");
        assert!(gpu.wrong().is_some_and(|wrong| wrong.contains(&reason)));
    }

    #[test]
    fn what_is_no_embedding_is_wrong() {
        let canary = canary();
        let mut nan = rows(0.0);
        nan[0] = f32::NAN;
        let mut long = rows(0.0);
        long[1] = 0.5;
        for wrong in [nan, long] {
            let mut judge = CanaryJudge::new(Arc::clone(&canary), 0);
            assert!(judge.rows(wrong, 3, TOLERANCE).0.is_err());
        }
        let short = rows(0.0)[..3].to_vec();
        let mut judge = CanaryJudge::new(canary, 0);
        assert_eq!(judge.rows(rows(0.0), 3, TOLERANCE).0, Ok(()));
        assert!(judge.rows(short, 3, TOLERANCE).0.is_err());
    }
}
