//! From the hidden rows of one text to its embedding.
//!
//! The semantics are those of sentence-transformers' `Pooling` and `Normalize` modules applied to
//! one text without padding: every row counts, special tokens included. Sums run in f32 over
//! columns, several rows at a time, which keeps the loop vectorised; the squared length of a row is
//! summed in f64. Nothing here knows about batches, padding or prompts.

use crate::error::PoolingError;

/// How the rows of a text become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolingMode {
    /// Mean over all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The maximum of each column.
    Max,
    /// The sum over all tokens divided by the square root of their number.
    MeanSqrtLen,
    /// The last token.
    LastToken,
}

impl PoolingMode {
    /// The word that text-embeddings-inference has for it, or one in its manner.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::MeanSqrtLen => "mean-sqrt-len",
            Self::LastToken => "last-token",
        }
    }
}

/// Pooling of a model, from `modules.json` and `1_Pooling/config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolingSpec {
    /// How rows become one row.
    pub mode: PoolingMode,
    /// Whether the row is then scaled to length 1.
    pub normalize: bool,
}

/// Smallest length a row is divided by, as in PyTorch's `normalize`.
const LENGTH_MIN: f64 = 1e-12;

/// Rows summed in f32 before they go into the running sum: pairwise summation in blocks, so the
/// rounding error grows with the number of blocks instead of the number of tokens.
const ROWS_PER_BLOCK: usize = 32;

/// Columns worked on at a time; the two accumulators (2 KiB) stay in the first-level cache.
const COLUMNS_PER_BLOCK: usize = 256;

/// Pools the hidden rows of ONE text, `[tokens, width]` in row-major order without padding, into
/// `out`, `[width]`.
///
/// # Errors
/// [`PoolingError::Empty`] without rows, [`PoolingError::Ragged`] and
/// [`PoolingError::OutputLength`] for lengths that do not fit, and [`PoolingError::NotFinite`] when
/// the result holds NaN or an infinity; `out` then holds no meaningful value.
pub fn pool_rows(
    spec: &PoolingSpec,
    hidden: &[f32],
    width: usize,
    out: &mut [f32],
) -> Result<(), PoolingError> {
    if width == 0 || !hidden.len().is_multiple_of(width) {
        return Err(PoolingError::Ragged { values: hidden.len(), width });
    }
    if out.len() != width {
        return Err(PoolingError::OutputLength { found: out.len(), width });
    }
    let tokens = hidden.len() / width;
    if tokens == 0 {
        return Err(PoolingError::Empty);
    }
    match spec.mode {
        PoolingMode::Cls => out.copy_from_slice(&hidden[..width]),
        PoolingMode::LastToken => out.copy_from_slice(&hidden[(tokens - 1) * width..]),
        PoolingMode::Max => max_columns(hidden, width, out),
        PoolingMode::Mean => {
            sum_columns(hidden, width, out);
            divide(out, tokens as f32);
        }
        PoolingMode::MeanSqrtLen => {
            sum_columns(hidden, width, out);
            divide(out, (tokens as f32).sqrt());
        }
    }
    check_finite(out)?;
    if spec.normalize {
        normalize(out);
    }
    Ok(())
}

/// Scales a row to Euclidean length 1: x / max(‖x‖₂, 1e-12). A row of zeros stays as it is.
/// Returns the length that the row had.
pub fn normalize(row: &mut [f32]) -> f32 {
    // Eight partial sums let the conversion and the products run in vector registers.
    let mut partial = [0.0_f64; 8];
    let mut chunks = row.chunks_exact(8);
    for chunk in &mut chunks {
        for (sum, &value) in partial.iter_mut().zip(chunk) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let length = (partial.iter().sum::<f64>() + rest).sqrt();
    for value in row {
        *value = (f64::from(*value) / length.max(LENGTH_MIN)) as f32;
    }
    length as f32
}

fn sum_columns(hidden: &[f32], width: usize, out: &mut [f32]) {
    out.fill(0.0);
    let mut block = [0.0_f32; COLUMNS_PER_BLOCK];
    for (column_block, total) in out.chunks_mut(COLUMNS_PER_BLOCK).enumerate() {
        let start = column_block * COLUMNS_PER_BLOCK;
        let block = &mut block[..total.len()];
        for rows in hidden.chunks(ROWS_PER_BLOCK * width) {
            block.fill(0.0);
            for row in rows.chunks_exact(width) {
                for (sum, &value) in block.iter_mut().zip(&row[start..start + total.len()]) {
                    *sum += value;
                }
            }
            for (sum, &value) in total.iter_mut().zip(&*block) {
                *sum += value;
            }
        }
    }
}

fn max_columns(hidden: &[f32], width: usize, out: &mut [f32]) {
    out.copy_from_slice(&hidden[..width]);
    for row in hidden.chunks_exact(width).skip(1) {
        for (max, &value) in out.iter_mut().zip(row) {
            // `f32::max` would drop a NaN; it has to reach the check at the end.
            *max = if value > *max || value.is_nan() { value } else { *max };
        }
    }
}

fn divide(row: &mut [f32], divisor: f32) {
    for value in row {
        *value /= divisor;
    }
}

fn check_finite(row: &[f32]) -> Result<(), PoolingError> {
    match row.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(element) => Err(PoolingError::NotFinite { element, value: row[element] }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const MODES: [PoolingMode; 5] = [
        PoolingMode::Mean,
        PoolingMode::Cls,
        PoolingMode::Max,
        PoolingMode::MeanSqrtLen,
        PoolingMode::LastToken,
    ];

    fn pooled(
        mode: PoolingMode,
        normalize: bool,
        hidden: &[f32],
        width: usize,
    ) -> Result<Vec<f32>, PoolingError> {
        let mut out = vec![f32::NAN; width];
        pool_rows(&PoolingSpec { mode, normalize }, hidden, width, &mut out).map(|()| out)
    }

    /// The definition, in f64 and one column at a time.
    fn reference(mode: PoolingMode, hidden: &[f32], width: usize, column: usize) -> f64 {
        let values = hidden.chunks(width).map(|row| f64::from(row[column]));
        let tokens = (hidden.len() / width) as f64;
        match mode {
            PoolingMode::Mean => values.sum::<f64>() / tokens,
            PoolingMode::MeanSqrtLen => values.sum::<f64>() / tokens.sqrt(),
            PoolingMode::Max => values.fold(f64::NEG_INFINITY, f64::max),
            PoolingMode::Cls => f64::from(hidden[column]),
            PoolingMode::LastToken => f64::from(hidden[hidden.len() - width + column]),
        }
    }

    #[test]
    fn every_mode_on_a_text_computed_by_hand() {
        let hidden = [1.0, -2.0, 3.0, 4.0, 5.0, -6.0, 0.0, 1.0];
        let expect = |mode, expected: [f32; 2]| {
            assert_eq!(pooled(mode, false, &hidden, 2).unwrap(), expected, "{mode:?}");
        };
        expect(PoolingMode::Mean, [2.25, -0.75]);
        expect(PoolingMode::MeanSqrtLen, [4.5, -1.5]);
        expect(PoolingMode::Max, [5.0, 4.0]);
        expect(PoolingMode::Cls, [1.0, -2.0]);
        expect(PoolingMode::LastToken, [0.0, 1.0]);
    }

    #[test]
    fn normalised_rows_have_length_one_and_zeros_stay_zero() {
        assert_eq!(pooled(PoolingMode::Cls, true, &[3.0, 4.0], 2).unwrap(), [0.6, 0.8]);
        assert_eq!(pooled(PoolingMode::Cls, true, &[0.0, 0.0], 2).unwrap(), [0.0, 0.0]);
        // Squares that would overflow or vanish in f32.
        let huge = pooled(PoolingMode::Cls, true, &[3e30, 4e30], 2).unwrap();
        assert!((huge[0] - 0.6).abs() < 1e-6 && (huge[1] - 0.8).abs() < 1e-6, "{huge:?}");
        let tiny = pooled(PoolingMode::Cls, true, &[3e-14, 4e-14], 2).unwrap();
        assert!((tiny[0] - 0.03).abs() < 1e-8 && (tiny[1] - 0.04).abs() < 1e-8, "{tiny:?}");
    }

    #[test]
    fn bad_input_is_refused() {
        for mode in MODES {
            assert_eq!(pooled(mode, true, &[], 4), Err(PoolingError::Empty));
            let ragged = PoolingError::Ragged { values: 7, width: 4 };
            assert_eq!(pooled(mode, true, &[0.0; 7], 4), Err(ragged));
            let no_width = PoolingError::Ragged { values: 4, width: 0 };
            assert_eq!(pooled(mode, true, &[0.0; 4], 0), Err(no_width));
            let spec = PoolingSpec { mode, normalize: false };
            let short = PoolingError::OutputLength { found: 3, width: 4 };
            assert_eq!(pool_rows(&spec, &[0.0; 8], 4, &mut [0.0; 3]), Err(short));
            for value in [f32::NAN, f32::INFINITY] {
                let row = [1.0, value];
                let error = pooled(mode, true, &row, 2).unwrap_err();
                assert!(matches!(error, PoolingError::NotFinite { element: 1, .. }), "{error}");
            }
        }
        // A NaN in any row reaches the result, whatever comes after it.
        for mode in [PoolingMode::Mean, PoolingMode::Max, PoolingMode::MeanSqrtLen] {
            for row in 0..3 {
                let mut hidden = [1.0; 6];
                hidden[row * 2] = f32::NAN;
                assert!(pooled(mode, false, &hidden, 2).is_err(), "{mode:?}, row {row}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 200,
            rng_seed: RngSeed::Fixed(0x9001),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_shape_agrees_with_the_definition(
            width in prop_oneof![1..40_usize, Just(256), Just(384), 255..260_usize],
            tokens in prop_oneof![1..5_usize, 30..70_usize],
            values in prop::collection::vec(-10.0..10.0_f32, 997),
        ) {
            let hidden: Vec<f32> = values.iter().copied().cycle().take(tokens * width).collect();
            for mode in MODES {
                let found = pooled(mode, false, &hidden, width).unwrap();
                for (column, &value) in found.iter().enumerate() {
                    let expected = reference(mode, &hidden, width, column);
                    prop_assert!((f64::from(value) - expected).abs() < 1e-4, "{mode:?} {column}");
                }
                let unit = pooled(mode, true, &hidden, width).unwrap();
                let length = unit.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                prop_assert!((length - 1.0).abs() < 1e-5);
            }
        }
    }
}
