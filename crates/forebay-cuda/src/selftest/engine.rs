//! The self-test of an opened engine: what must hold for any model, whatever its weights.
//!
//! The same text gives the same row in whatever batch it comes, thousands of random batches leave
//! the device's memory as it was, and a replayed graph computes what the kernels compute one by one.
//! The engine is seen through a trait, so that each check is itself tested without a device.

use super::endurance::endurance;
use super::invariance::invariance;
use super::report::{Failure, SelftestReport, Tally};
use super::texts::{Batch, random_batch_of};
use super::values::generator;
use crate::{CudaEngine, Dtype, EngineError};

/// Most of everything in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Token ids are below this.
    pub vocab: u32,
    /// Tokens of one text.
    pub row_tokens_max: u32,
    /// Tokens of one device batch; longer requests are split.
    pub tokens_max: u32,
    /// Texts of one device batch.
    pub rows_max: u32,
}

/// Device memory at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Not used by anybody.
    pub free: u64,
    /// Used by captured graphs, of which there is a limited number.
    pub graphs: u64,
}

/// An engine under test.
pub(super) trait Subject {
    /// Arithmetic of matrices and activations.
    fn dtype(&self) -> Dtype;
    /// Whether every product is computed by Forebay's own kernels, whose bits do not depend on the
    /// size of a batch; a library may compute larger batches in another order.
    fn is_native(&self) -> bool;
    fn limits(&self) -> Limits;
    /// Rows of `width + 1` values.
    fn width(&self) -> usize;
    fn encode(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError>;
    /// The same without graphs.
    fn encode_eager(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError>;
    /// Captures every graph that may be needed and that there is room for.
    fn prepare_all(&mut self) -> Result<(), EngineError>;
    fn memory(&self) -> Result<Memory, EngineError>;
}

impl Subject for CudaEngine {
    fn dtype(&self) -> Dtype {
        self.precision().0
    }

    fn is_native(&self) -> bool {
        self.origins().1 == "native"
    }

    fn limits(&self) -> Limits {
        let (geometry, report) = (self.geometry(), self.report());
        Limits {
            vocab: geometry.vocab,
            row_tokens_max: geometry.row_tokens_max,
            tokens_max: report.tokens_max,
            rows_max: self.rows_max(),
        }
    }

    fn width(&self) -> usize {
        Self::width(self)
    }

    fn encode(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError> {
        Self::encode(self, batch.ids(), batch.cu())
    }

    fn encode_eager(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError> {
        Self::encode_eager(self, batch.ids(), batch.cu())
    }

    fn prepare_all(&mut self) -> Result<(), EngineError> {
        Self::prepare_all(self)
    }

    fn memory(&self) -> Result<Memory, EngineError> {
        Ok(Memory { free: self.memory_free()?, graphs: self.report().graphs_bytes })
    }
}

/// Tests an engine: with `quick` two hundred random batches, otherwise ten thousand, which takes
/// seconds. No other process should use the device meanwhile, since memory that it takes looks like
/// memory that is lost.
///
/// # Errors
/// The engine's own failure. Wrong results are no error: they are in the report.
pub fn run_engine(engine: &mut CudaEngine, quick: bool) -> Result<SelftestReport, EngineError> {
    let origins = vec![engine.origins().0.to_owned()];
    check(engine, quick).map(|items| SelftestReport { items, origins })
}

fn check(subject: &mut dyn Subject, quick: bool) -> Result<Vec<super::Item>, EngineError> {
    subject.prepare_all()?;
    let mut items = vec![invariance(subject, quick)?, graphs(subject)?];
    items.extend(endurance(subject, quick)?);
    Ok(items)
}

/// Rows as bits; `None` and a failure if one is not finite.
pub(super) fn bits(
    tally: &mut Tally,
    case: &str,
    rows: Result<Vec<f32>, EngineError>,
) -> Result<Option<Vec<u32>>, EngineError> {
    tally.count();
    match rows {
        Ok(rows) => Ok(Some(rows.into_iter().map(f32::to_bits).collect())),
        Err(error @ EngineError::NonFinite { .. }) => {
            tally.fail(Failure::Value, case, error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Replayed graphs and launches one by one, bit by bit, in buckets of every size.
fn graphs(subject: &mut dyn Subject) -> Result<super::Item, EngineError> {
    let (dtype, limits) = (subject.dtype(), subject.limits());
    let stride = subject.width() + 1;
    let mut tally = Tally::new(format!("graphs against single launches in {dtype}"));
    let most = limits.tokens_max;
    for tokens in [1, 16, 17, 100, 333, 1000, most / 2 + 1, most] {
        let case = format!("{tokens} tokens");
        let mut rng = generator(u64::from(tokens), "graphs");
        let batch = random_batch_of(&mut rng, &limits, tokens.min(most));
        let replayed = subject.encode(&batch);
        let replayed = bits(&mut tally, &case, replayed)?;
        let eager = subject.encode_eager(&batch);
        let eager = bits(&mut tally, &case, eager)?;
        if let (Some(replayed), Some(eager)) = (replayed, eager) {
            tally.same_bits(&case, "replayed against eager", stride, &replayed, &eager);
        }
    }
    Ok(tally.finish())
}

#[cfg(test)]
mod tests {
    use super::super::fake_engine::{FakeEngine, Fault};
    use super::*;

    fn items(fault: Option<Fault>, quick: bool) -> Vec<super::super::Item> {
        check(&mut FakeEngine::new(fault), quick).unwrap()
    }

    #[test]
    fn a_right_engine_passes_every_check() {
        for quick in [true, false] {
            let items = items(None, quick);
            assert!(items.len() == 4 && items.iter().all(|item| item.passed), "{items:#?}");
        }
    }

    #[test]
    fn every_fault_is_found_by_the_check_that_is_for_it() {
        for (fault, name, said) in [
            (Fault::Place, "any batch", "row"),
            (Fault::Eager, "graphs", "replayed against eager"),
            (Fault::Leak, "memory", "bytes"),
            (Fault::Unsteady, "random batches", "the same batch later"),
            (Fault::Short, "random batches", "length"),
            (Fault::NonFinite, "random batches", "not a finite number"),
        ] {
            let items = items(Some(fault), true);
            let failed: Vec<_> = items.iter().filter(|item| !item.passed).collect();
            let found =
                failed.iter().any(|item| item.name.contains(name) && item.detail.contains(said));
            assert!(found, "{fault:?}: {items:#?}");
        }
    }

    #[test]
    fn a_library_may_round_otherwise_but_not_compute_otherwise() {
        let item = |fault| {
            let mut engine = FakeEngine::new(Some(fault));
            engine.is_native = false;
            check(&mut engine, true).unwrap().swap_remove(0)
        };
        let rounded = item(Fault::Place);
        assert!(rounded.passed && rounded.name.contains("cosine"), "{rounded:?}");
        assert!(rounded.max_error > 0.0 && rounded.tolerance == 1e-3, "{rounded:?}");
        assert!(!item(Fault::Neighbour).passed);
    }

    #[test]
    fn what_the_engine_cannot_do_ends_the_test() {
        let error = check(&mut FakeEngine::new(Some(Fault::Fails)), true).unwrap_err();
        assert!(matches!(error, EngineError::Pipeline("the fake failed")), "{error}");
    }
}
