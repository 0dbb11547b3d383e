//! Every kernel's result in f64, with the error that f32 arithmetic on the device may add.
//!
//! Inputs are the exact values of the device's inputs, so an [`Expected`] is the mathematical
//! result of the kernel plus a bound (`slack`) on what a correct implementation loses before the
//! last rounding: sums in f32, and roundings to 16 bits inside a fused kernel. The bounds follow
//! the usual forward analysis: a sum of n terms loses at most about n/16 unit roundoffs of the sum
//! of magnitudes, because every kernel adds at least 16 partial sums in parallel; a product loses
//! one. The rounding of the stored result itself is added by the comparison. Nothing here knows
//! about batches or devices.

use forebay_model::{Activation, PoolingMode};

/// Unit roundoff of single precision.
pub(super) const F32_ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// Absolute error an activation kernel may make in its own formula: the approximation of the error
/// function or of tanh, and the cancellation in 1 + erf.
const ACTIVATION_ERROR: f64 = 2e-6;

/// Smallest norm that a row is divided by, as in PyTorch's `normalize`.
const NORM_MIN: f64 = 1e-12;

/// A result before it is rounded for storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expected {
    /// The mathematical result.
    pub(super) value: f64,
    /// What a correct kernel may be off by before the last rounding.
    pub(super) slack: f64,
}

/// Layer normalisation of one row: (x − mean)/√(variance + ε)·γ + β with the biased variance.
/// `magnitude` is the largest sum of magnitudes of the terms that make up one x: sums and their
/// cancellation in x − mean cost a multiple of its roundoff.
pub(super) fn layer_norm(
    x: &[f64],
    magnitude: f64,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) -> Vec<Expected> {
    let width = x.len() as f64;
    let mean = x.iter().sum::<f64>() / width;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    // Error of x − mean in units of the deviation: three additions, and a mean over `width` terms.
    let shift = (8.0 + width / 32.0) * F32_ROUNDOFF * magnitude * scale;
    x.iter()
        .zip(gamma.iter().zip(beta))
        .map(|(x, (&gamma, &beta))| {
            let (gamma, beta) = (f64::from(gamma), f64::from(beta));
            let unit = (x - mean) * scale;
            let value = unit * gamma + beta;
            let slack = gamma.abs()
                * (shift * (1.0 + unit.abs()) + 64.0 * F32_ROUNDOFF * unit.abs())
                + 4.0 * F32_ROUNDOFF * (value.abs() + beta.abs());
            Expected { value, slack }
        })
        .collect()
}

/// One query of one head: softmax(q·Kᵀ/√d)·V. `keys` and `values` are the rows of the query's own
/// sequence, `[length][d]`. `roundoff` and `underflow` belong to the 16-bit type: the weights are
/// rounded to it before they meet V.
pub(super) fn attention_row(
    query: &[f32],
    keys: &[&[f32]],
    values: &[&[f32]],
    roundoff: f64,
    underflow: f64,
) -> Vec<Expected> {
    let d = query.len();
    let scale = 1.0 / (d as f64).sqrt();
    let dots: Vec<(f64, f64)> = keys
        .iter()
        .map(|key| {
            let products = query.iter().zip(*key).map(|(&q, &k)| f64::from(q) * f64::from(k));
            products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()))
        })
        .collect();
    let max = dots.iter().fold(f64::NEG_INFINITY, |max, dot| max.max(dot.0)) * scale;
    let size_max = dots.iter().fold(0.0_f64, |max, dot| max.max(dot.1)) * scale;
    // The tensor cores may truncate while they add, once for each block of 8 products.
    let dot_error = (d as f64 / 8.0 + 8.0) * 2.0 * F32_ROUNDOFF;
    let weights: Vec<(f64, f64)> = dots
        .iter()
        .map(|&(dot, size)| {
            let logit_error = dot_error * (size * scale + size_max);
            ((dot * scale - max).exp(), logit_error.exp_m1() + 8.0 * F32_ROUNDOFF)
        })
        .collect();
    let total: f64 = weights.iter().map(|weight| weight.0).sum();
    let mut out = vec![Expected { value: 0.0, slack: 0.0 }; d];
    for (weight, row) in weights.iter().zip(values) {
        for (out, &v) in out.iter_mut().zip(*row) {
            out.value += weight.0 / total * f64::from(v);
        }
    }
    // One addition for every 8 keys, in f32 and truncated.
    let adding = (keys.len() as f64 / 8.0 + 16.0) * 2.0 * F32_ROUNDOFF;
    for (&(weight, error), row) in weights.iter().zip(values) {
        let rounding = weight * (roundoff + adding) + underflow;
        for (out, &v) in out.iter_mut().zip(*row) {
            let v = f64::from(v);
            out.slack += (weight * error * (v - out.value).abs() + rounding * v.abs()) / total;
        }
    }
    for out in &mut out {
        out.slack += 8.0 * F32_ROUNDOFF * out.value.abs();
    }
    out
}

/// The activation of the feed-forward block in f64.
pub(super) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        // erfc keeps the digits that 1 + erf loses for negative x.
        Activation::GeluErf => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            // 1 + tanh(y) = 2/(1 + e^(−2y)), without cancellation.
            x / (1.0 + (-2.0 * inner).exp())
        }
        Activation::Relu => x.max(0.0),
    }
}

/// The activation of a value that is itself only known within its slack.
pub(super) fn activated(activation: Activation, x: Expected) -> Expected {
    let value = activate(activation, x.value);
    // No activation here is steeper than 1.13.
    let slack = 1.13 * x.slack + 16.0 * F32_ROUNDOFF * value.abs();
    let own = if activation == Activation::Relu { 0.0 } else { ACTIVATION_ERROR };
    Expected { value, slack: slack + own }
}

/// x + bias, then the activation.
pub(super) fn bias_activation(activation: Activation, x: f32, bias: f32) -> Expected {
    let sum = f64::from(x) + f64::from(bias);
    activated(activation, Expected { value: sum, slack: 2.0 * F32_ROUNDOFF * sum.abs() })
}

/// One row of a·weightᵀ + bias, with `weight` `[n, k]` and f32 accumulation on tensor cores.
pub(super) fn dense_row(a: &[f32], weight: &[f32], bias: &[f32]) -> Vec<Expected> {
    let k = a.len();
    let adding = (k as f64 / 16.0 + 8.0) * 2.0 * F32_ROUNDOFF;
    weight
        .chunks_exact(k)
        .zip(bias)
        .map(|(row, &bias)| {
            let mut sums = [0.0_f64; 8];
            let mut sizes = [0.0_f64; 8];
            for (a, w) in a.chunks(8).zip(row.chunks(8)) {
                for (lane, (&a, &w)) in a.iter().zip(w).enumerate() {
                    let product = f64::from(a) * f64::from(w);
                    sums[lane] += product;
                    sizes[lane] += product.abs();
                }
            }
            let value = sums.iter().sum::<f64>() + f64::from(bias);
            let size = sizes.iter().sum::<f64>();
            Expected { value, slack: adding * size + 4.0 * F32_ROUNDOFF * value.abs() }
        })
        .collect()
}

/// The result of a dense row added to `residual` and normalised: what the fused product with
/// residual and layer normalisation gives.
pub(super) fn dense_norm_row(
    dense: &[Expected],
    residual: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) -> Vec<Expected> {
    let sum: Vec<f64> =
        dense.iter().zip(residual).map(|(dense, &r)| dense.value + f64::from(r)).collect();
    let magnitude = dense
        .iter()
        .zip(residual)
        .map(|(dense, r)| dense.value.abs() + f64::from(r.abs()))
        .fold(0.0, f64::max);
    let slack = dense.iter().map(|dense| dense.slack).fold(0.0, f64::max);
    let mut out = layer_norm(&sum, magnitude, gamma, beta, eps);
    let mean = sum.iter().sum::<f64>() / sum.len() as f64;
    let variance = sum.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / sum.len() as f64;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    for ((out, x), &gamma) in out.iter_mut().zip(&sum).zip(gamma) {
        let unit = ((x - mean) * scale).abs();
        out.slack += f64::from(gamma.abs()) * 2.0 * slack * scale * (1.0 + unit);
    }
    out
}

/// Pooling of one sequence `[tokens, width]` into width + 1 values: the row of Euclidean length 1,
/// then the norm it had.
pub(super) fn pool(mode: PoolingMode, hidden: &[f32], width: usize) -> Vec<Expected> {
    let tokens = hidden.len() / width;
    let adding = (tokens as f64 / 2.0 + 16.0) * F32_ROUNDOFF;
    let divisor = match mode {
        PoolingMode::Mean => tokens as f64,
        PoolingMode::MeanSqrtLen => (tokens as f64).sqrt(),
        PoolingMode::Cls | PoolingMode::Max | PoolingMode::LastToken => 1.0,
    };
    let mut row: Vec<Expected> = (0..width)
        .map(|column| {
            let values = || hidden[column..].iter().step_by(width).map(|&x| f64::from(x));
            let exact = |value| Expected { value, slack: 0.0 };
            match mode {
                PoolingMode::Cls => exact(f64::from(hidden[column])),
                PoolingMode::LastToken => exact(f64::from(hidden[(tokens - 1) * width + column])),
                PoolingMode::Max => exact(values().fold(f64::NEG_INFINITY, f64::max)),
                PoolingMode::Mean | PoolingMode::MeanSqrtLen => Expected {
                    value: values().sum::<f64>() / divisor,
                    slack: adding * values().map(f64::abs).sum::<f64>() / divisor,
                },
            }
        })
        .collect();
    let norm = row.iter().map(|x| x.value * x.value).sum::<f64>().sqrt();
    let norm_slack = row.iter().map(|x| x.slack * x.slack).sum::<f64>().sqrt()
        + (width as f64 / 32.0 + 16.0) * F32_ROUNDOFF * norm;
    let divisor = norm.max(NORM_MIN);
    for x in &mut row {
        let value = x.value / divisor;
        let slack = (x.slack + value.abs() * norm_slack) / divisor;
        *x = Expected { value, slack: slack + 8.0 * F32_ROUNDOFF * value.abs() };
    }
    row.push(Expected { value: norm, slack: norm_slack });
    row
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
