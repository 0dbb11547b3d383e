//! The known-answer test of a loaded model: a few fixed texts through the whole engine against
//! [`cpu_forward`] from the same weights.
//!
//! The kernel checks prove the parts; this proves that the right weights, in the right order, went
//! to the right places. Texts are seeded token ids, so the test needs no tokenizer and is the same
//! at every start. The engine is any closure, so it is tested without a device.

use forebay_model::{EncoderConfig, EncoderWeights, ModelError, PoolingSpec};
use rand::Rng;

use super::cpu_forward::cpu_forward;
use super::report::{Failure, Item, Tally};
use super::values::generator;
use crate::{CudaError, Dtype};

/// Tokens of each text of a quick test: a single one, odd starts, and a whole tile.
const LENGTHS_QUICK: [usize; 4] = [1, 7, 2, 16];
/// Tokens of each text of a full test: several tiles as well.
const LENGTHS_FULL: [usize; 8] = [1, 7, 2, 16, 33, 3, 64, 129];

/// How far a row's length may be from 1: f32 rounding of its elements is far below.
pub(super) const LENGTH_ERROR_MAX: f64 = 1e-3;

/// Runs packed ids through an engine: `(ids, cu)` to rows of `[hidden + 1]`.
pub type Engine<'a> = dyn FnMut(&[u32], &[u32]) -> Result<Vec<f32>, CudaError> + 'a;

/// Texts and what a model makes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownAnswer {
    model: String,
    ids: Vec<u32>,
    cu: Vec<u32>,
    width: usize,
    rows: Vec<f32>,
}

impl KnownAnswer {
    /// Computes the answers of a model on the CPU: with `quick` four texts of 26 tokens in all,
    /// otherwise eight of 255, none longer than `tokens_max` or the model's positions.
    ///
    /// # Errors
    /// [`ModelError::TensorNotFinite`] for weights that hold NaN or infinities.
    pub fn compute(
        config: &EncoderConfig,
        weights: &EncoderWeights<'_>,
        pooling: &PoolingSpec,
        tokens_max: usize,
        quick: bool,
    ) -> Result<Self, ModelError> {
        let lengths = if quick { &LENGTHS_QUICK[..] } else { &LENGTHS_FULL };
        let limit = tokens_max.min(config.position_limit()).max(1);
        let vocab = u32::try_from(config.vocab).unwrap_or(u32::MAX);
        let mut rng = generator(21, "known answer");
        let (mut ids, mut cu) = (Vec::new(), vec![0]);
        for &length in lengths {
            ids.extend((0..length.min(limit)).map(|_| rng.random_range(0..vocab)));
            cu.push(ids.len() as u32);
        }
        let rows = cpu_forward(config, weights, pooling, &ids, &cu)?;
        Ok(Self { model: config.model_type.clone(), ids, cu, width: config.hidden, rows })
    }

    /// Token ids of all texts, packed.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Boundaries of the texts: one more than there are texts.
    #[must_use]
    pub fn cu(&self) -> &[u32] {
        &self.cu
    }

    /// Runs the texts through `engine`, packed and then again, and compares: rows of length 1 that
    /// point where the answers do, lengths before normalisation, and equal bits of both runs.
    ///
    /// The item's error is 1 − cosine of the worst text. F16 keeps it below 1e-4 and BF16, with an
    /// eighth of the digits, below 1e-3; a wrong weight or position costs far more than either.
    ///
    /// # Errors
    /// What `engine` returns.
    pub fn check(&self, dtype: Dtype, engine: &mut Engine<'_>) -> Result<Item, CudaError> {
        let mut tally = Tally::new(format!("known answer of {} in {dtype}", self.model));
        let (distance_max, norm_error_max) = match dtype {
            Dtype::F16 => (1e-4, 1e-2),
            Dtype::BF16 => (1e-3, 5e-2),
        };
        let got = engine(&self.ids, &self.cu)?;
        tally.count();
        let stride = self.width + 1;
        if got.len() != self.rows.len() {
            let (got, wanted) = (got.len(), self.rows.len());
            tally.fail(Failure::Value, "packed", format_args!("{got} values, expected {wanted}"));
            return Ok(tally.finish());
        }
        let texts = self.cu.windows(2).map(|pair| pair[1] - pair[0]);
        let rows = got.chunks_exact(stride).zip(self.rows.chunks_exact(stride));
        for (tokens, (got, wanted)) in texts.zip(rows) {
            let case = format!("the text of {tokens} tokens");
            let (got, norm) = (&got[..self.width], f64::from(got[self.width]));
            let (wanted, wanted_norm) = (&wanted[..self.width], f64::from(wanted[self.width]));
            let length = dot(got, got).sqrt();
            let distance = 1.0 - dot(got, wanted) / (length * dot(wanted, wanted).sqrt());
            tally.measure(&case, "1 - cosine to the answer", distance, distance_max);
            tally.measure(&case, "distance of the length from 1", length - 1.0, LENGTH_ERROR_MAX);
            let norm_error = norm / wanted_norm - 1.0;
            tally.measure(&case, "relative error of the norm", norm_error, norm_error_max);
        }
        let again = engine(&self.ids, &self.cu)?;
        tally.count();
        let bits = |rows: &[f32]| -> Vec<u32> { rows.iter().map(|x| x.to_bits()).collect() };
        tally.same_bits("packed", "the same run again", stride, &bits(&got), &bits(&again));
        Ok(tally.finish())
    }
}

/// Scalar product in double precision.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownAnswer {
        let mut rng = generator(1, "answers");
        let mut rows = Vec::new();
        for _ in 0..2 {
            let row: Vec<f32> = (0..64).map(|_| super::super::values::normal(&mut rng)).collect();
            let norm = dot(&row, &row).sqrt() as f32;
            rows.extend(row.iter().map(|x| x / norm));
            rows.push(norm);
        }
        KnownAnswer {
            model: "test".to_owned(),
            ids: vec![5; 9],
            cu: vec![0, 2, 9],
            width: 64,
            rows,
        }
    }

    fn item(dtype: Dtype, change: impl Fn(usize, &mut Vec<f32>)) -> Item {
        let known = known();
        let mut runs = 0;
        let mut engine = |ids: &[u32], cu: &[u32]| {
            assert_eq!((ids, cu), (known.ids(), known.cu()));
            let mut rows = known.rows.clone();
            change(runs, &mut rows);
            runs += 1;
            Ok(rows)
        };
        known.check(dtype, &mut engine).unwrap()
    }

    #[test]
    fn the_answers_themselves_pass() {
        let item = item(Dtype::F16, |_, _| ());
        assert!(item.passed && item.cases == 2 && item.max_error < 1e-6, "{item:?}");
    }

    #[test]
    fn every_kind_of_wrong_answer_is_named() {
        let detail = |dtype, change: fn(usize, &mut Vec<f32>)| {
            let item = item(dtype, change);
            assert!(!item.passed, "{item:?}");
            item.detail
        };
        let turned = detail(Dtype::F16, |_, rows| rows[64 + 1 + 3] += 0.03);
        assert!(turned.contains("the text of 7 tokens: 1 - cosine"), "{turned}");
        let long = detail(Dtype::BF16, |_, rows| rows[..64].iter_mut().for_each(|x| *x *= 1.01));
        assert!(long.contains("the text of 2 tokens: distance of the length"), "{long}");
        let norm = detail(Dtype::BF16, |_, rows| rows[64] *= 1.1);
        assert!(norm.contains("relative error of the norm"), "{norm}");
        let nan = detail(Dtype::BF16, |_, rows| rows[7] = f32::NAN);
        assert!(nan.contains("NaN"), "{nan}");
        let short = detail(Dtype::F16, |_, rows| rows.truncate(65));
        assert!(short.contains("65 values, expected 130"), "{short}");
        let bits = |run: usize, rows: &mut Vec<f32>| rows[70] *= 1.0 + run as f32 * 1e-6;
        assert!(detail(Dtype::F16, bits).contains("the same run again"));
    }

    #[test]
    fn bf16_may_be_further_off_than_f16() {
        let change = |_: usize, rows: &mut Vec<f32>| {
            rows[0] += 0.03;
            let length = dot(&rows[..64], &rows[..64]).sqrt() as f32;
            rows[..64].iter_mut().for_each(|x| *x /= length);
        };
        assert!(!item(Dtype::F16, change).passed && item(Dtype::BF16, change).passed);
    }
}
