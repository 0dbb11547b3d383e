//! The encoder in plain Rust from the model's own weights: what the engine must reproduce.
//!
//! Everything is f32 but for the sums over a row or over keys, which are f64. It is written to be
//! obviously right and fast enough for a few short texts on one core; nothing here is tuned
//! further, shared with the engine, or fit for serving.

use forebay_model::{
    Activation, EncoderConfig, EncoderWeights, Linear, ModelError, Norm, PoolingSpec, WeightType,
    WeightView, pooling,
};
use half::{bf16, f16};

use super::reference::activate;

/// Rows of x that share one pass over a weight row.
const ROWS_PER_PASS: usize = 4;

/// Pools the final states of packed texts: `[rows, hidden + 1]`, each row of Euclidean length 1
/// followed by the length that it had before.
///
/// `ids` holds the tokens of all texts and `cu` their rows + 1 boundaries; a text has at least one
/// token, at most [`EncoderConfig::position_limit`], and ids below the vocabulary.
///
/// # Errors
/// [`ModelError::TensorNotFinite`] for weights that hold NaN or infinities.
///
/// # Panics
/// If `ids` and `cu` break the rules above.
pub fn cpu_forward(
    config: &EncoderConfig,
    weights: &EncoderWeights<'_>,
    pooling_spec: &PoolingSpec,
    ids: &[u32],
    cu: &[u32],
) -> Result<Vec<f32>, ModelError> {
    let hidden = config.hidden;
    let texts: Vec<_> = cu.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect();
    let mut x = embed(config, weights, ids, &texts);
    normalize(&mut x, &weights.embedding_norm, config)?;
    for layer in &weights.layers {
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|part| linear(&x, part));
        let context = attention(&q?, &k?, &v?, config, &texts);
        add(&mut x, &linear(&context, &layer.attention_output)?);
        normalize(&mut x, &layer.attention_norm, config)?;
        let mut wide = linear(&x, &layer.intermediate)?;
        apply(config.activation, &mut wide);
        add(&mut x, &linear(&wide, &layer.output)?);
        normalize(&mut x, &layer.output_norm, config)?;
    }
    let mut out = Vec::with_capacity(texts.len() * (hidden + 1));
    let spec = PoolingSpec { mode: pooling_spec.mode, normalize: false };
    for text in texts {
        let mut row = vec![0.0; hidden];
        let states = &x[text.start * hidden..text.end * hidden];
        // A result that is not finite is an answer here: the row is then all NaN.
        let norm = match pooling::pool_rows(&spec, states, hidden, &mut row) {
            Ok(()) => pooling::normalize(&mut row),
            Err(_) => f32::NAN,
        };
        if norm.is_nan() {
            row.fill(f32::NAN);
        }
        out.extend_from_slice(&row);
        out.push(norm);
    }
    Ok(out)
}

/// Sum of word, position and type embeddings.
fn embed(
    config: &EncoderConfig,
    weights: &EncoderWeights<'_>,
    ids: &[u32],
    texts: &[std::ops::Range<usize>],
) -> Vec<f32> {
    let hidden = config.hidden;
    let token_type = table_row(&weights.token_type, 0, hidden);
    let mut x = Vec::with_capacity(ids.len() * hidden);
    for text in texts {
        for (place, &id) in ids[text.clone()].iter().enumerate() {
            let word = table_row(&weights.word, id as usize, hidden);
            let position = table_row(&weights.position, config.position_offset + place, hidden);
            let parts = word.iter().zip(&position).zip(&token_type);
            x.extend(parts.map(|((word, position), token_type)| word + position + token_type));
        }
    }
    x
}

/// One row of a table, without converting the others.
fn table_row(table: &WeightView<'_>, row: usize, width: usize) -> Vec<f32> {
    let run = |size: usize| &table.bytes[row * width * size..(row + 1) * width * size];
    match table.dtype {
        WeightType::F32 => {
            run(4).as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        }
        WeightType::F16 => {
            let (values, _) = run(2).as_chunks::<2>();
            values.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
        }
        WeightType::BF16 => {
            let (values, _) = run(2).as_chunks::<2>();
            values.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
        }
    }
}

/// x·weightᵀ + bias for all rows of x.
fn linear(x: &[f32], layer: &Linear<'_>) -> Result<Vec<f32>, ModelError> {
    let (weight, bias) = (layer.weight.to_f32()?, layer.bias.to_f32()?);
    let (n, k) = (bias.len(), weight.len() / bias.len());
    let mut out = vec![0.0; x.len() / k * n];
    for (rows, out) in x.chunks(ROWS_PER_PASS * k).zip(out.chunks_mut(ROWS_PER_PASS * n)) {
        for (column, (weight, &bias)) in weight.chunks_exact(k).zip(&bias).enumerate() {
            match rows.len() / k {
                ROWS_PER_PASS => {
                    let dots = dot_each::<ROWS_PER_PASS>(rows, weight);
                    for (row, dot) in dots.into_iter().enumerate() {
                        out[row * n + column] = dot + bias;
                    }
                }
                rest => {
                    for row in 0..rest {
                        let [dot] = dot_each::<1>(&rows[row * k..(row + 1) * k], weight);
                        out[row * n + column] = dot + bias;
                    }
                }
            }
        }
    }
    Ok(out)
}

/// The dot product of each of `R` rows with `weight`. Eight partial sums stay in vector registers
/// and keep the rounding error at an eighth of a running sum's.
fn dot_each<const R: usize>(rows: &[f32], weight: &[f32]) -> [f32; R] {
    let k = weight.len();
    let mut sums = [[0.0_f32; 8]; R];
    let (blocks, rest) = weight.as_chunks::<8>();
    for (row, sums) in rows.chunks_exact(k).zip(&mut sums) {
        for (x, w) in row.as_chunks::<8>().0.iter().zip(blocks) {
            // Spelled out: a loop over lanes makes a build without optimisation four times slower.
            sums[0] += x[0] * w[0];
            sums[1] += x[1] * w[1];
            sums[2] += x[2] * w[2];
            sums[3] += x[3] * w[3];
            sums[4] += x[4] * w[4];
            sums[5] += x[5] * w[5];
            sums[6] += x[6] * w[6];
            sums[7] += x[7] * w[7];
        }
        for (x, w) in row[k - rest.len()..].iter().zip(rest) {
            sums[0] += x * w;
        }
    }
    sums.map(|lanes| lanes.iter().sum())
}

/// Self-attention of every head within each text.
fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    config: &EncoderConfig,
    texts: &[std::ops::Range<usize>],
) -> Vec<f32> {
    let (hidden, d) = (config.hidden, config.head_dim());
    let scale = 1.0 / (d as f32).sqrt();
    let mut context = vec![0.0; q.len()];
    for text in texts {
        for head in 0..config.heads {
            let of = |token: usize| token * hidden + head * d..token * hidden + (head + 1) * d;
            for token in text.clone() {
                let query = &q[of(token)];
                let dot = |key: usize| -> f32 {
                    query.iter().zip(&k[of(key)]).map(|(q, k)| q * k).sum::<f32>() * scale
                };
                let logits: Vec<f32> = text.clone().map(dot).collect();
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f64> =
                    logits.iter().map(|&logit| f64::from(logit - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                let out = &mut context[of(token)];
                for (key, weight) in text.clone().zip(weights) {
                    let weight = (weight / total) as f32;
                    for (out, v) in out.iter_mut().zip(&v[of(key)]) {
                        *out += weight * v;
                    }
                }
            }
        }
    }
    context
}

fn apply(activation: Activation, x: &mut [f32]) {
    for x in x {
        *x = activate(activation, f64::from(*x)) as f32;
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Layer normalisation of every row, with sums in f64.
fn normalize(x: &mut [f32], norm: &Norm<'_>, config: &EncoderConfig) -> Result<(), ModelError> {
    let (gamma, beta) = (norm.gamma.to_f32()?, norm.beta.to_f32()?);
    let width = config.hidden as f64;
    for row in x.chunks_exact_mut(config.hidden) {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width;
        let scale = 1.0 / (variance + f64::from(config.layer_norm_eps)).sqrt();
        for ((x, gamma), beta) in row.iter_mut().zip(&gamma).zip(&beta) {
            *x = ((f64::from(*x) - mean) * scale) as f32 * gamma + beta;
        }
    }
    Ok(())
}
