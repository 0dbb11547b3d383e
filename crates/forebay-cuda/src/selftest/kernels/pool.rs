//! The pooling kernel: one row of length 1 and its former norm for each sequence.

use forebay_model::PoolingMode;

use super::super::cases::{Batch, cases};
use super::super::executor::{Executor, PoolRun};
use super::super::output::{Output, padded};
use super::super::reference::{Expected, pool as expected_pool};
use super::super::report::{Failure, Item, Stored, Tally};
use super::super::values::{POISON, POISON_F32, decode_all, generator};
use super::{Scope, expect_rows, packed, padded_cu};
use crate::CudaError;

const MODES: [PoolingMode; 5] = [
    PoolingMode::Mean,
    PoolingMode::Cls,
    PoolingMode::Max,
    PoolingMode::LastToken,
    PoolingMode::MeanSqrtLen,
];

/// Tests the pooling kernel for a shape: the shape's mode in a quick run, otherwise all.
pub(in super::super) fn pool(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
) -> Result<Vec<Item>, CudaError> {
    let modes = MODES.into_iter().filter(|&mode| !scope.quick || mode == scope.shape.pooling);
    modes.map(|mode| pool_mode(scope, executor, mode)).collect()
}

fn pool_mode(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
    mode: PoolingMode,
) -> Result<Item, CudaError> {
    let Scope { shape, dtype, quick } = scope;
    let width = shape.hidden;
    let mut tally = Tally::new(format!("pool_{dtype}_h{width}, {mode:?}"));
    let mut rng = generator(15, "pool");
    for case in cases(quick, shape.positions) {
        let batch = &case.batch;
        for &values in &case.values {
            let name = format!("{}, {values:?}", batch.name);
            let x = values.matrix(&mut rng, dtype, batch.tokens(), width);
            let mut run = |tally: &mut Tally, batch: &Batch, x: &[u16]| {
                run(scope, executor, tally, mode, &name, batch, x)
            };
            let first = run(&mut tally, batch, &x)?;

            let sequences = batch.sequences();
            let step = sequences.len().div_ceil(scope.sampled());
            let sample: Vec<usize> = (0..sequences.len()).step_by(step).collect();
            let expected = |row: usize| -> Vec<Expected> {
                let tokens = &sequences[row];
                let hidden = decode_all(&x[tokens.start * width..tokens.end * width], dtype);
                expected_pool(mode, &hidden, width)
            };
            for (&row, expected) in sample.iter().zip(expect_rows(&sample, &expected)) {
                let got = first.row(row).iter().map(|&bits| f64::from(f32::from_bits(bits)));
                tally.compare(&name, &format!("row {row}"), Stored::Single, got, &expected);
            }

            let rows = batch.rows();
            let again = run(&mut tally, batch, &x)?;
            tally.same_bits(
                &name,
                "the same run again",
                width + 1,
                first.head(rows),
                again.head(rows),
            );
            for order in batch.arrangements(scope.alone()) {
                let other = batch.rearranged(&order);
                let moved = run(&mut tally, &other, &batch.gather(&x, width, &order))?;
                let home: Vec<u32> =
                    order.iter().flat_map(|&row| first.row(row)).copied().collect();
                tally.same_bits(&name, &other.name, width + 1, &home, moved.head(order.len()));
            }
            if let Some(row) = batch.lengths.iter().position(|&length| length == 1) {
                let mut bad = x.clone();
                bad[sequences[row].start * width + width / 2] = POISON;
                let output = run(&mut tally, batch, &bad)?;
                nan_stays_in_its_row(&mut tally, &name, row, rows, &first, &output);
            }
        }
    }
    Ok(tally.finish())
}

fn run(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
    tally: &mut Tally,
    mode: PoolingMode,
    name: &str,
    batch: &Batch,
    x: &[u16],
) -> Result<Output<u32>, CudaError> {
    let hidden = scope.shape.hidden;
    let x = padded(x, hidden, batch.bucket, POISON);
    let cu = padded_cu(batch);
    let run = PoolRun { batch: packed(batch, &cu), x: &x, mode };
    let mut out = Output::poisoned(batch.rows(), hidden + 1, POISON_F32);
    executor
        .pool(&run, &mut out)
        .map_err(|error| error.with(format!("{}, {name}", tally.name())))?;
    tally.count();
    tally.coverage(&format!("{name}, {}", batch.name), out.examine(batch.rows(), batch.rows()));
    Ok(out)
}

/// A NaN must reach the norm of its own row, where whoever reads the row looks for it, and no other.
fn nan_stays_in_its_row(
    tally: &mut Tally,
    name: &str,
    row: usize,
    rows: usize,
    clean: &Output<u32>,
    output: &Output<u32>,
) {
    let norm = output.row(row).last().copied().map(f32::from_bits);
    if !norm.is_some_and(f32::is_nan) {
        tally.fail(
            Failure::Value,
            name,
            format_args!("row {row} holds a NaN but its norm is {norm:?}"),
        );
    }
    if let Some(other) = (0..rows).find(|&o| o != row && output.row(o) != clean.row(o)) {
        tally.fail(
            Failure::Bits,
            name,
            format_args!("row {other} changed with a NaN in row {row}"),
        );
    }
}
