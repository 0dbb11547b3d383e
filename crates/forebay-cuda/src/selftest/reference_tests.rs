//! The references against values computed by hand, other implementations, and properties.

use forebay_model::{PoolingSpec, pooling};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const MODES: [PoolingMode; 5] = [
    PoolingMode::Mean,
    PoolingMode::Cls,
    PoolingMode::Max,
    PoolingMode::LastToken,
    PoolingMode::MeanSqrtLen,
];

fn values(expected: &[Expected]) -> Vec<f64> {
    expected.iter().map(|expected| expected.value).collect()
}

#[track_caller]
fn close(got: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(got.len(), wanted.len());
    let far = got.iter().zip(wanted).any(|(a, b)| (a - b).abs() > tolerance);
    assert!(!far, "{got:?} is not {wanted:?}");
}

#[test]
fn layer_norm_by_hand() {
    // Mean 2, variance 5; eps 4 makes the deviation 3.
    let x = [2.0 - 5.0_f64.sqrt(), 2.0 + 5.0_f64.sqrt()];
    let got = layer_norm(&x, 4.0, &[3.0, 6.0], &[1.0, -1.0], 4.0);
    close(&values(&got), &[1.0 - 5.0_f64.sqrt(), 2.0 * 5.0_f64.sqrt() - 1.0], 1e-12);
    // Without variance only the shift is left, and an error of the mean is blown up by 1/√ε.
    let flat = layer_norm(&[7.0; 384], 7.0, &[2.0; 384], &[0.5; 384], 1e-12);
    close(&values(&flat), &[0.5; 384], 0.0);
    assert!(flat[0].slack > 1.0, "{:?}", flat[0]);
    let ordinary = layer_norm(&[1.0, -1.0], 1.0, &[1.0; 2], &[0.0; 2], 1e-12);
    assert!(ordinary[0].slack < 1e-5, "{:?}", ordinary[0]);
}

/// [`attention_row`] on flat rows.
fn attend(query: &[f32], keys: &[f32], rows: &[f32], roundoff: f64) -> Vec<Expected> {
    let split = |flat| <[f32]>::chunks_exact(flat, query.len()).collect::<Vec<_>>();
    attention_row(query, &split(keys), &split(rows), roundoff, 0.0)
}

#[test]
fn attention_by_hand() {
    let unit = 2.0_f64.powi(-11);
    // One key: its value, whatever the logit.
    let got = attend(&[100.0, -3.0], &[50.0, 1.0], &[0.25, -8.0], unit);
    close(&values(&got), &[0.25, -8.0], 1e-15);
    // Four dimensions: the scale is 1/2. Logits 2·ln 3/2 = ln 3 and 0: weights 3/4 and 1/4.
    let query = [2.0, 0.0, 0.0, 0.0];
    let keys = [3.0_f32.ln(), 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0];
    let rows = [4.0, 0.0, 1.0, 8.0, 0.0, 4.0, 1.0, -8.0];
    let got = attend(&query, &keys, &rows, unit);
    close(&values(&got), &[3.0, 1.0, 1.0, 4.0], 1e-6);
    // A logit far above all others leaves one value, with an error far below that of mixing.
    let got = attend(&[30.0, 0.0], &[30.0, 0.0, -30.0, 0.0], &[1.0, 2.0, 3.0, 4.0], unit);
    close(&values(&got), &[1.0, 2.0], 1e-12);
    assert!(got[0].slack < 1.5 * unit, "{:?}", got[0]);
}

#[test]
fn activations_at_known_points() {
    // Φ(1) and Φ(3) to fifteen digits.
    let (one, three) = (0.841_344_746_068_543, 0.998_650_101_968_370);
    close(&[activate(Activation::GeluErf, 1.0)], &[one], 1e-14);
    close(&[activate(Activation::GeluErf, 3.0)], &[3.0 * three], 1e-14);
    close(&[activate(Activation::GeluErf, -1.0)], &[one - 1.0], 1e-14);
    // Q(10) = 7.619853024160527e-24: the far tail keeps its digits.
    let tail = activate(Activation::GeluErf, -10.0);
    assert!((tail / -7.619_853_024_160_527e-23 - 1.0).abs() < 1e-12, "{tail:e}");
    // Values of PyTorch's gelu(approximate="tanh").
    close(&[activate(Activation::GeluTanh, 1.0)], &[0.841_191_990_608_276], 1e-12);
    close(&[activate(Activation::GeluTanh, -2.0)], &[-0.045_402_305_912_225], 1e-12);
    assert_eq!(activate(Activation::GeluTanh, -60_000.0), 0.0);
    assert_eq!(activate(Activation::GeluErf, 60_000.0), 60_000.0);
    assert_eq!((activate(Activation::Relu, -2.0), activate(Activation::Relu, 2.0)), (0.0, 2.0));
}

#[test]
fn dense_rows_by_hand() {
    let weight = [1.0, 2.0, 3.0, -1.0, 0.0, 0.5];
    let got = dense_row(&[2.0, 4.0, 6.0], &weight, &[0.5, -1.0]);
    assert_eq!(values(&got), [28.5, 0.0]);
    // 28.5 + 1.5 and 0 + 2: mean 16, deviation 14.
    let got = dense_norm_row(&got, &[1.5, 2.0], &[1.0, 2.0], &[0.0, 1.0], 0.0);
    close(&values(&got), &[1.0, -1.0], 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(17), ..ProptestConfig::default() })]

    #[test]
    fn normalised_rows_have_mean_0_and_variance_1(x in prop::collection::vec(-50.0_f64..50.0, 8..200)) {
        prop_assume!(x.iter().any(|v| (v - x[0]).abs() > 1.0));
        let ones = vec![1.0_f32; x.len()];
        let zeros = vec![0.0_f32; x.len()];
        let row = values(&layer_norm(&x, 50.0, &ones, &zeros, 1e-12));
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        prop_assert!(mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-6, "{mean} {variance}");
    }

    #[test]
    fn attention_weights_are_positive_and_sum_to_1(
        query in prop::collection::vec(-5.0_f32..5.0, 4),
        keys in prop::collection::vec(-5.0_f32..5.0, 4 * 9),
    ) {
        // Values that pick out one key each, or all of them.
        let weight_of = |key: usize| {
            let mut rows = vec![0.0_f32; 4 * 9];
            rows[key * 4] = 1.0;
            attend(&query, &keys, &rows, 0.0)[0].value
        };
        let weights: Vec<f64> = (0..9).map(weight_of).collect();
        prop_assert!(weights.iter().all(|&w| w > 0.0));
        prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{weights:?}");
        let dot = |key: usize| -> f64 {
            query.iter().zip(&keys[key * 4..]).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum()
        };
        let ratio = (0.5 * (dot(1) - dot(0))).exp();
        prop_assert!((weights[1] / weights[0] / ratio - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_order_of_the_keys_changes_nothing(
        query in prop::collection::vec(-5.0_f32..5.0, 2),
        pairs in prop::collection::vec((-5.0_f32..5.0, -5.0_f32..5.0), 4),
    ) {
        let rows: Vec<[f32; 2]> = pairs.iter().map(|&(a, b)| [a, b]).collect();
        let forward = rows.concat();
        let backward: Vec<f32> = rows.iter().rev().flatten().copied().collect();
        let one = values(&attend(&query, &forward, &forward, 0.0));
        let other = values(&attend(&query, &backward, &backward, 0.0));
        prop_assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn pooling_agrees_with_the_model_crate(
        hidden in prop::collection::vec(-9.0_f32..9.0, 1..40),
        mode in prop::sample::select(MODES.to_vec()),
    ) {
        let width = 1 + hidden.len() % 5;
        let hidden = &hidden[..hidden.len() / width * width];
        prop_assume!(!hidden.is_empty());
        let mut row = vec![0.0; width];
        let spec = PoolingSpec { mode, normalize: false };
        pooling::pool_rows(&spec, hidden, width, &mut row).unwrap();
        let norm = pooling::normalize(&mut row);
        let got = pool(mode, hidden, width);
        prop_assert!((got[width].value - f64::from(norm)).abs() < 1e-5 * f64::from(norm).max(1.0));
        for (got, row) in got.iter().zip(&row) {
            prop_assert!((got.value - f64::from(*row)).abs() < 1e-4, "{got:?} {row}");
        }
        if norm > 1e-3 {
            let length: f64 = got[..width].iter().map(|x| x.value * x.value).sum();
            prop_assert!((length - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn a_row_of_zeros_pools_to_zeros() {
    for mode in MODES {
        let got = values(&pool(mode, &[0.0; 6], 3));
        assert_eq!(got, [0.0; 4], "{mode:?}");
    }
}
