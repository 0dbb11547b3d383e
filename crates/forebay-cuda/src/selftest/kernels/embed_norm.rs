//! The embedding kernel: which rows of the tables it adds for each token, and how it normalises.
//!
//! Rows of the tables that no token of the batch may use hold NaN: those in front of the position
//! offset, those after the longest sequence, and the id behind the last real token.

use rand::Rng;

use super::super::cases::cases;
use super::super::executor::{EmbedNormOut, EmbedNormRun, Executor, Norm};
use super::super::output::Output;
use super::super::reference::{Expected, layer_norm};
use super::super::report::{Failure, Item, Tally};
use super::super::values::{POISON, POISON_F32, decode_all, generator, normals};
use super::{Matrix, Scope};
use crate::CudaError;

/// Rows of the word table; the last is NaN and belongs to ids behind the batch.
const VOCAB: usize = 512;

/// Tests the embedding kernel for a shape.
pub(in super::super) fn embed_norm(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
) -> Result<Item, CudaError> {
    let Scope { shape, dtype, quick } = scope;
    let hidden = shape.hidden;
    let mut tally = Tally::new(format!("embed_norm_{dtype}_h{hidden}"));
    let mut rng = generator(11, "embed_norm");
    let gamma = normals(&mut rng, hidden, 1.0, 0.3);
    let beta = normals(&mut rng, hidden, 0.0, 0.3);
    for case in cases(quick, shape.positions) {
        let longest = case.batch.lengths.iter().max().copied().unwrap_or(0) as usize;
        for (index, &values) in case.values.iter().enumerate() {
            // The constants of BERT and of RoBERTa in turn.
            let (eps, offset) = if index % 2 == 0 { (1e-12, 0) } else { (1e-5, 2) };
            let mut word = values.matrix(&mut rng, dtype, VOCAB, hidden);
            word[(VOCAB - 1) * hidden..].fill(POISON);
            let mut position = values.matrix(&mut rng, dtype, offset + longest + 8, hidden);
            position[..offset * hidden].fill(POISON);
            position[(offset + longest) * hidden..].fill(POISON);
            let token_type = values.matrix(&mut rng, dtype, 1, hidden);
            let ids: Vec<u16> =
                (0..case.batch.tokens()).map(|_| rng.random_range(0..VOCAB as u16 - 1)).collect();

            let batch = &case.batch;
            let tables = [&word, &position, &token_type].map(|table| decode_all(table, dtype));
            let expected = |token: usize| -> Vec<Expected> {
                let place = token - batch.sequence_of(token).start + offset;
                let rows = [usize::from(ids[token]), place, 0].map(|row| row * hidden);
                let terms = |column: usize| {
                    [0, 1, 2].map(|table| f64::from(tables[table][rows[table] + column]))
                };
                let sums: Vec<f64> = (0..hidden).map(|c| terms(c).iter().sum()).collect();
                let size = |column| terms(column).iter().map(|term| term.abs()).sum::<f64>();
                let magnitude = (0..hidden).map(size).fold(0.0, f64::max);
                layer_norm(&sums, magnitude, &gamma, &beta, eps)
            };
            let case = format!("{}, {values:?}", batch.name);
            let inputs = vec![Matrix { bits: ids.clone(), width: 1 }];
            let subject = scope.subject(case, batch, inputs, hidden);
            let mut side_effects: Vec<String> = Vec::new();
            subject.check(
                executor,
                &mut tally,
                &mut |executor, packed, inputs, out| {
                    let id =
                        |&id: &u16| u32::from(if id == POISON { VOCAB as u16 - 1 } else { id });
                    let ids: Vec<u32> = inputs[0].iter().map(id).collect();
                    let run = EmbedNormRun {
                        batch: packed,
                        ids: &ids,
                        word: &word,
                        position: &position,
                        token_type: &token_type,
                        norm: Norm { gamma: &gamma, beta: &beta, eps },
                        position_offset: offset as u32,
                    };
                    let mut all = EmbedNormOut {
                        x: out.clone(),
                        cu: Output::poisoned(packed.rows + 1, 1, POISON_F32),
                        sizes: Output::poisoned(2, 1, POISON_F32),
                    };
                    executor.embed_norm(&run, &mut all)?;
                    side_effects.extend(wrong_side_effect(&run, &all));
                    *out = all.x;
                    Ok(())
                },
                &expected,
            )?;
            for what in side_effects {
                tally.fail(Failure::Coverage, &subject.case, what);
            }
        }
    }
    Ok(tally.finish())
}

/// What is wrong with the copy of the row starts and with the sizes.
fn wrong_side_effect(run: &EmbedNormRun<'_>, out: &EmbedNormOut) -> Option<String> {
    let rows = run.batch.rows;
    if let Err(what) = out.cu.examine(rows + 1, rows + 1) {
        return Some(format!("the copy of cu_seqlens: {what}"));
    }
    let copied = out.cu.head(rows + 1);
    if let Some(index) = copied.iter().zip(run.batch.cu).position(|(copy, cu)| copy != cu) {
        let (copy, cu) = (copied[index], run.batch.cu[index]);
        return Some(format!("the copy of cu_seqlens has {copy} at {index} for {cu}"));
    }
    let expected = [run.batch.tokens as u32, rows as u32];
    (out.sizes.head(2) != expected || out.sizes.examine(2, 2).is_err())
        .then(|| format!("sizes are {:?} for {expected:?}, or written outside", out.sizes.head(2)))
}
