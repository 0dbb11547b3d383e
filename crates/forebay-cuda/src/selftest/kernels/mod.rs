//! One check for each kernel, and what they have in common.
//!
//! Every check runs its kernel on a set of batches and values and requires, of each run: results
//! within the tolerance of the f64 reference, for a sample of rows; every real row written and
//! nothing else; the same bits when run again; and the same bits for every sequence when the
//! sequences are packed in other orders or alone. The rows behind the real ones hold NaN on the
//! way in, so that a kernel which reads them shows it. The checks know no device: they run
//! whatever [`Executor`] they are given.

mod attention;
mod embed_norm;
mod gemm;
mod pool;
mod tokenwise;

pub(super) use attention::attention;
pub(super) use embed_norm::embed_norm;
pub(super) use gemm::gemms;
pub(super) use pool::pool;
pub(super) use tokenwise::{bias_activation, residual_norm};

use super::cases::Batch;
use super::executor::{Executor, Packed};
use super::output::{Output, padded};
use super::reference::Expected;
use super::report::Tally;
use super::shape::Shape;
use super::values::POISON;
use crate::{CudaError, Dtype};

/// What a check is to cover.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The sizes.
    pub(super) shape: &'a Shape,
    /// The type of activations and matrices.
    pub(super) dtype: Dtype,
    /// Whether to run few cases.
    pub(super) quick: bool,
}

impl Scope<'_> {
    /// Rows of a batch for which the reference is computed.
    fn sampled(&self) -> usize {
        if self.quick { 40 } else { 96 }
    }

    /// Sequences that are also run alone.
    fn alone(&self) -> usize {
        if self.quick { 2 } else { 5 }
    }

    /// A subject as most are: results in a buffer of their own, only real rows written, the same bits
    /// in any company.
    fn subject<'b>(
        &self,
        case: String,
        batch: &'b Batch,
        inputs: Vec<Matrix>,
        out_width: usize,
    ) -> Subject<'b> {
        Subject {
            case,
            batch,
            dtype: self.dtype,
            inputs,
            out_width,
            in_place: None,
            whole_tiles: false,
            invariant: true,
            sampled: self.sampled(),
            alone: self.alone(),
        }
    }
}

/// A token matrix `[tokens, width]`.
struct Matrix {
    bits: Vec<u16>,
    width: usize,
}

/// A kernel that turns token rows into token rows, set up for one batch.
struct Subject<'a> {
    case: String,
    batch: &'a Batch,
    dtype: Dtype,
    inputs: Vec<Matrix>,
    out_width: usize,
    /// The input that the output holds before the run.
    in_place: Option<usize>,
    /// Whether rows between the real tokens and the bucket may be written.
    whole_tiles: bool,
    /// Whether bits must not depend on the company of a sequence.
    invariant: bool,
    /// Rows for which the reference is computed.
    sampled: usize,
    /// Sequences that are also run alone.
    alone: usize,
}

/// Runs a subject's kernel on padded inputs.
type RunKernel<'a> = dyn FnMut(&mut dyn Executor, Packed<'_>, &[Vec<u16>], &mut Output<u16>) -> Result<(), CudaError>
    + 'a;

impl Subject<'_> {
    /// All requirements on one batch.
    fn check(
        &self,
        executor: &mut dyn Executor,
        tally: &mut Tally,
        run: &mut RunKernel<'_>,
        expected: &(dyn Fn(usize) -> Vec<Expected> + Sync),
    ) -> Result<(), CudaError> {
        let identity: Vec<usize> = (0..self.batch.rows()).collect();
        let first = self.run(executor, tally, run, self.batch, &identity)?;
        let sample = self.batch.sample(self.sampled);
        for (&token, expected) in sample.iter().zip(expect_rows(&sample, expected)) {
            let place = format!("row {token}");
            tally.compare_half(&self.case, &place, self.dtype, first.row(token), &expected);
        }
        let tokens = self.batch.tokens();
        let again = self.run(executor, tally, run, self.batch, &identity)?;
        let what = "the same run again";
        tally.same_bits(&self.case, what, self.out_width, first.head(tokens), again.head(tokens));
        if !self.invariant {
            return Ok(());
        }
        for order in self.batch.arrangements(self.alone) {
            let other = self.batch.rearranged(&order);
            let output = self.run(executor, tally, run, &other, &order)?;
            let home = self.batch.gather(first.head(tokens), self.out_width, &order);
            let moved = output.head(other.tokens());
            tally.same_bits(&self.case, &other.name, self.out_width, &home, moved);
        }
        Ok(())
    }

    /// One run with the sequences in another order.
    fn run(
        &self,
        executor: &mut dyn Executor,
        tally: &mut Tally,
        run: &mut RunKernel<'_>,
        batch: &Batch,
        order: &[usize],
    ) -> Result<Output<u16>, CudaError> {
        let inputs: Vec<Vec<u16>> = self
            .inputs
            .iter()
            .map(|Matrix { bits, width }| {
                let rows = self.batch.gather(bits, *width, order);
                padded(&rows, *width, batch.bucket, POISON)
            })
            .collect();
        let mut output = match self.in_place {
            Some(input) => {
                let content = &inputs[input][..batch.tokens() * self.out_width];
                Output::holding(batch.bucket, self.out_width, POISON, content)
            }
            None => Output::poisoned(batch.bucket, self.out_width, POISON),
        };
        let cu = padded_cu(batch);
        run(executor, packed(batch, &cu), &inputs, &mut output)
            .map_err(|error| error.with(format!("{}, {}", tally.name(), self.case)))?;
        tally.count();
        let allowed = if self.whole_tiles { batch.bucket } else { batch.tokens() };
        tally.coverage(
            &format!("{}, {}", self.case, batch.name),
            output.examine(batch.tokens(), allowed),
        );
        Ok(output)
    }
}

/// Starts of the sequences, then values that show up wherever they are used.
fn padded_cu(batch: &Batch) -> Vec<u32> {
    let mut cu = batch.cu();
    cu.extend([u32::MAX; 32]);
    cu
}

/// The sizes of a batch.
fn packed<'a>(batch: &Batch, cu: &'a [u32]) -> Packed<'a> {
    Packed { cu, tokens: batch.tokens(), rows: batch.rows(), bucket: batch.bucket }
}

/// The reference for each row of a sample, on up to four threads.
fn expect_rows(
    sample: &[usize],
    expected: &(dyn Fn(usize) -> Vec<Expected> + Sync),
) -> Vec<Vec<Expected>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let chunk = sample.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = sample
            .chunks(chunk)
            .map(|rows| {
                scope.spawn(move || rows.iter().map(|&row| expected(row)).collect::<Vec<_>>())
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| match part.join() {
                Ok(rows) => rows,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests;
