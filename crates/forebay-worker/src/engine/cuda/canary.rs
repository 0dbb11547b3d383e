//! The canary: known answers through all four parts of the pipeline before the host hears that the
//! worker is ready. A device that computes wrong numbers must never serve.
//!
//! The answers are computed on the CPU from the same weights, in a thread of their own while the
//! device gets ready.

use forebay_arena::WorkerArena;
use forebay_cuda::selftest::KnownAnswer;
use forebay_cuda::{CudaError, Dtype, EngineError, Pipeline};
use forebay_model::{EncoderWeights, ModelError, ModelFolder};
use forebay_protocol::WorkerExit;

use super::{exit_of, fatal, start_failed};
use crate::engine::StepError;

/// The slot in which the canary runs: any, as none is in use yet.
const SLOT: u32 = 0;

/// Computes what the model in `folder` must answer, without the device.
///
/// # Errors
/// Weights that cannot be read or computed with.
pub(super) fn answers(folder: &ModelFolder, tokens_max: usize) -> Result<KnownAnswer, ModelError> {
    let weights = folder.weights()?;
    let config = folder.encoder();
    let encoder = EncoderWeights::from(&weights, config)?;
    let pooling = folder.pooling();
    KnownAnswer::compute(config, &encoder, pooling, tokens_max.min(folder.tokens_max()), true)
}

/// Runs the texts of `known` through `pipeline` and compares; what came out, for people.
///
/// # Errors
/// [`StepError::Fatal`]: [`WorkerExit::CanaryMismatch`] for wrong numbers, and the exit of the CUDA
/// failure otherwise.
pub(super) fn run(
    pipeline: &mut Pipeline,
    arena: &WorkerArena,
    known: &KnownAnswer,
) -> Result<String, StepError> {
    let dtype: Dtype = pipeline.info.precision;
    // What the engine says beyond a CUDA error is kept aside, as the test only knows the latter.
    let mut said: Option<EngineError> = None;
    let mut engine = |ids: &[u32], cu: &[u32]| {
        encode(pipeline, arena, ids, cu).map_err(|error| match error {
            EngineError::Cuda(error) => error,
            other => {
                let error = CudaError::usage("canary", other.to_string());
                said = Some(other);
                error
            }
        })
    };
    let result = known.check(dtype, &mut engine);
    match (result, said) {
        (Ok(item), _) if item.passed => {
            let (error, allowed) = (item.max_error, item.tolerance);
            Ok(format!("passed, error {error:.1e} of {allowed:.1e} allowed"))
        }
        (Ok(item), _) => Err(fatal(
            WorkerExit::CanaryMismatch,
            &format!("{}: {}; the device must not serve", item.name, item.detail),
        )),
        (Err(_), Some(error)) if exit_of(&error).is_none() => {
            Err(fatal(WorkerExit::CanaryMismatch, &error))
        }
        (Err(_), Some(error)) => Err(start_failed(&error)),
        (Err(error), None) => Err(start_failed(&error.into())),
    }
}

/// One batch through the four parts, in this thread.
fn encode(
    pipeline: &mut Pipeline,
    arena: &WorkerArena,
    ids: &[u32],
    cu: &[u32],
) -> Result<Vec<f32>, EngineError> {
    let mut slot = arena
        .rehearse(SLOT, ids, cu)
        .map_err(|_| EngineError::Pipeline("the canary does not fit a slot"))?;
    let staged = pipeline.copy_in.run(SLOT, slot.ids(), slot.cu_seqlens())?;
    let states = pipeline.infer.run(staged)?;
    let rows = pipeline.pool.run(states)?;
    pipeline.copy_out.run(rows, || slot.output_mut())?;
    Ok(slot.output_mut().to_vec())
}
