//! The attention kernel: softmax over exactly the keys of a token's own sequence.

use rand::Rng;
use rand::rngs::SmallRng;

use super::super::cases::{Batch, cases, for_attention};
use super::super::executor::{AttentionRun, Executor};
use super::super::reference::{Expected, attention_row};
use super::super::report::{Item, Tally};
use super::super::values::{Values, decode_all, encode, generator, normal, roundoff, underflow};
use super::{Matrix, Scope};
use crate::{CudaError, Dtype};

/// Tests the attention kernel for a shape.
pub(in super::super) fn attention(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
) -> Result<Item, CudaError> {
    let Scope { shape, dtype, quick } = scope;
    let (hidden, heads, d) = (shape.hidden, shape.heads, shape.head_dim());
    let mut tally = Tally::new(format!("attention_{dtype}_d{d}, {heads} heads"));
    let mut rng = generator(12, "attention");
    for case in for_attention(cases(quick, shape.positions)) {
        let batch = &case.batch;
        for &values in &case.values {
            let qkv = queries_keys_values(values, &mut rng, dtype, batch, hidden);
            let exact = decode_all(&qkv, dtype);
            let expected = |token: usize| expected_row(&exact, dtype, batch, token, hidden, d);
            let case = format!("{}, {values:?}", batch.name);
            let inputs = vec![Matrix { bits: qkv.clone(), width: 3 * hidden }];
            let subject = scope.subject(case, batch, inputs, hidden);
            subject.check(
                executor,
                &mut tally,
                &mut |executor, batch, inputs, out| {
                    let run = AttentionRun { heads, batch, qkv: &inputs[0] };
                    executor.attention(&run, out)
                },
                &expected,
            )?;
        }
    }
    Ok(tally.finish())
}

/// Queries, keys and values of a batch, `[tokens, 3·hidden]`.
fn queries_keys_values(
    values: Values,
    rng: &mut SmallRng,
    dtype: Dtype,
    batch: &Batch,
    hidden: usize,
) -> Vec<u16> {
    let mut qkv = Vec::with_capacity(batch.tokens() * 3 * hidden);
    for sequence in batch.sequences() {
        let chosen = rng.random_range(sequence.clone());
        for token in sequence {
            // What the row's queries and keys are centred on: all logits of a sequence are close
            // to query centre times key centre times √d, but for the chosen key.
            let centres = match values {
                Values::HugeLogit => Some((2.0, if token == chosen { 20.0 } else { 0.0 })),
                Values::NegativeLogits => Some((20.0, -20.0)),
                _ => None,
            };
            match centres {
                Some((query, key)) => {
                    for centre in [query, key, 0.0] {
                        qkv.extend((0..hidden).map(|_| encode(centre + normal(rng), dtype)));
                    }
                }
                // Outliers among queries and keys would only make logits that no result survives.
                None if values == Values::Outliers => {
                    qkv.extend(Values::Normal.matrix(rng, dtype, 2, hidden));
                    qkv.extend(values.matrix(rng, dtype, 1, hidden));
                }
                // Shifted by a row for each token, so that signs alternate between keys as well.
                None if values == Values::Alternating => {
                    let rows = values.matrix(rng, dtype, 4, hidden);
                    let shift = token % 2 * hidden;
                    for _ in 0..3 {
                        qkv.extend_from_slice(&rows[shift..shift + hidden]);
                    }
                }
                None => qkv.extend(values.matrix(rng, dtype, 3, hidden)),
            }
        }
    }
    qkv
}

/// The context row of one token, all heads, from the exact values of `[tokens, 3·hidden]`.
fn expected_row(
    qkv: &[f32],
    dtype: Dtype,
    batch: &Batch,
    token: usize,
    hidden: usize,
    d: usize,
) -> Vec<Expected> {
    let part = |token: usize, part: usize, head: usize| {
        let start = (token * 3 + part) * hidden + head * d;
        &qkv[start..start + d]
    };
    let sequence = batch.sequence_of(token);
    (0..hidden / d)
        .flat_map(|head| {
            let all = |which| sequence.clone().map(|key| part(key, which, head)).collect();
            let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) = (all(1), all(2));
            let query = part(token, 0, head);
            attention_row(query, &keys, &values, roundoff(dtype), underflow(dtype))
        })
        .collect()
}
