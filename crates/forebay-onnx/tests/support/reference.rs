//! The encoder once more, written for clarity: one text, f64, plain loops, straight from the
//! definition of the architecture (Vaswani et al. 2017; Devlin et al. 2019).

use super::{Geometry, Tensors};

/// Hidden states of one text, `[tokens][hidden]`.
pub(crate) fn encode(geometry: &Geometry, tensors: &Tensors, ids: &[u32]) -> Vec<Vec<f64>> {
    let padded_positions = geometry.model_type != "bert";
    let offset = if padded_positions { 2 } else { 0 };
    let word = matrix(tensors, "embeddings.word_embeddings.weight");
    let position = matrix(tensors, "embeddings.position_embeddings.weight");
    let token_type = matrix(tensors, "embeddings.token_type_embeddings.weight");
    let mut states: Vec<Vec<f64>> = ids
        .iter()
        .enumerate()
        .map(|(index, &id)| {
            let sum = add(&word[id as usize], &position[offset + index]);
            normalize(tensors, "embeddings", &add(&sum, &token_type[0]))
        })
        .collect();
    for layer in 0..geometry.layers {
        let prefix = format!("encoder.layer.{layer}");
        states = encode_layer(geometry, tensors, &prefix, &states);
    }
    states
}

fn encode_layer(
    geometry: &Geometry,
    tensors: &Tensors,
    prefix: &str,
    states: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let project = |name: &str| -> Vec<Vec<f64>> {
        let name = format!("{prefix}.attention.self.{name}");
        states.iter().map(|state| dense(tensors, &name, state)).collect()
    };
    let (queries, keys, values) = (project("query"), project("key"), project("value"));
    let head_dim = geometry.hidden / geometry.heads;
    let attended = queries.iter().map(|query| {
        let mut context = vec![0.0; geometry.hidden];
        for head in 0..geometry.heads {
            let range = head * head_dim..(head + 1) * head_dim;
            let scores: Vec<f64> = keys
                .iter()
                .map(|key| dot(&query[range.clone()], &key[range.clone()]))
                .map(|score| score / (head_dim as f64).sqrt())
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = shares.iter().sum();
            for (share, value) in shares.iter().zip(&values) {
                for index in range.clone() {
                    context[index] += share / total * value[index];
                }
            }
        }
        context
    });
    let block = |state: &Vec<f64>, context: Vec<f64>| {
        let output = dense(tensors, &format!("{prefix}.attention.output.dense"), &context);
        let state = normalize(tensors, &format!("{prefix}.attention.output"), &add(&output, state));
        let inner = dense(tensors, &format!("{prefix}.intermediate.dense"), &state);
        let inner: Vec<f64> =
            inner.into_iter().map(|value| activate(geometry.activation, value)).collect();
        let output = dense(tensors, &format!("{prefix}.output.dense"), &inner);
        normalize(tensors, &format!("{prefix}.output"), &add(&output, &state))
    };
    states.iter().zip(attended).map(|(state, context)| block(state, context)).collect()
}

pub(crate) fn activate(name: &str, x: f64) -> f64 {
    match name {
        "gelu" => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
        "gelu_new" => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        "relu" => x.max(0.0),
        other => panic!("no activation {other}"),
    }
}

/// 2/√π·e^(−x²)·Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!, whose terms all have one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

fn normalize(tensors: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let gamma = vector(tensors, &format!("{name}.LayerNorm.weight"));
    let beta = vector(tensors, &format!("{name}.LayerNorm.bias"));
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-12).sqrt();
    x.iter()
        .zip(gamma.iter().zip(&beta))
        .map(|(value, (gamma, beta))| (value - mean) * scale * gamma + beta)
        .collect()
}

fn dense(tensors: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let weight = matrix(tensors, &format!("{name}.weight"));
    let bias = vector(tensors, &format!("{name}.bias"));
    weight.iter().zip(bias).map(|(row, bias)| dot(row, x) + bias).collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn add(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left + right).collect()
}

fn vector(tensors: &Tensors, name: &str) -> Vec<f64> {
    tensors[name].1.iter().map(|&value| f64::from(value)).collect()
}

fn matrix(tensors: &Tensors, name: &str) -> Vec<Vec<f64>> {
    let columns = tensors[name].0[1];
    vector(tensors, name).chunks_exact(columns).map(<[f64]>::to_vec).collect()
}
