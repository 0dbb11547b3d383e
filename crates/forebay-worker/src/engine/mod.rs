//! What a stage asks of an engine: one step each, with the claimed slot in hand.

mod cpu;
mod cuda;

use std::collections::BTreeMap;

use forebay_arena::ClaimedSlot;
use forebay_protocol::{BatchTimes, ErrorClass, Fault, WorkerExit};

pub use cpu::open_cpu_engine;
pub use cuda::cuda_engine_options;
pub(crate) use cuda::open_cuda_engine;

/// One of the four steps of an engine. `In` is what the step before it left, `Out` what it leaves.
///
/// A step runs on its stage's thread only and may own a stream, buffers or a session.
pub trait Step<In, Out>: Send + 'static {
    /// Runs the step for the batch in `slot`.
    ///
    /// # Errors
    /// [`StepError`]; a batch error is reported to the host, a fatal one ends the process.
    fn run(&mut self, slot: &mut ClaimedSlot, input: In) -> Result<Out, StepError>;

    /// Runs once after the last batch, before the host hears that the stage has ended. A process
    /// that ends in any other way does not get here.
    fn finish(&mut self) {}

    /// Tokens that the latest run really computed, padding included; `None` if the step computes
    /// exactly the tokens it is given.
    fn padded_tokens(&self) -> Option<u32> {
        None
    }

    /// Where the time of the latest batch went. `measured` is what the stages know, which is how
    /// long their steps ran; the last step corrects it where the steps only start the work. Asked
    /// of the last step only, after a run that succeeded.
    fn times(&self, measured: BatchTimes) -> BatchTimes {
        measured
    }

    /// Told a step that encodes, before each batch: whether the batch runs beside others, and has
    /// only its share of the cores. A step that knows no shares computes it as any other.
    fn runs_beside(&mut self, _: bool) {}

    /// Asked of a step that encodes, before it runs a batch: brings `fault` about with this batch
    /// if the step has a device on which it can happen. Only a worker that has faults enabled asks.
    fn inject(&mut self, _: Fault) -> Injection {
        Injection::Imitate
    }
}

/// What became of a fault that a step was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// It happens on the device, with the batch that comes next.
    Begun,
    /// It cannot happen there; the worker does what comes nearest.
    Imitate,
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// This batch failed; the next one may succeed.
    #[error("{class}: {message}")]
    Batch {
        /// What the host decides by.
        class: ErrorClass,
        /// What a person reads.
        message: String,
    },
    /// The process cannot go on.
    #[error("{}: {message}", exit.name())]
    Fatal {
        /// The code to exit with.
        exit: WorkerExit,
        /// What a person reads.
        message: String,
    },
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Engine and version, such as `onnxruntime 1.31.1`.
    pub engine: String,
    /// The device it runs on.
    pub device: String,
    /// Arithmetic of the encoder.
    pub precision: String,
    /// Length of one embedding.
    pub width: u32,
    /// Batches that it computes side by side, each with its share of the cores: 1 for an engine that
    /// makes no difference between batches.
    pub side_by_side: u32,
    /// What else there is to say of it, by name, such as where its kernels come from.
    pub details: BTreeMap<String, String>,
}

/// An engine, opened: four steps joined by the types `Staged` (input where the encoder can read
/// it), `States` (token states) and `Rows` (pooled rows).
///
/// What the host reads in the end stands in the slot's output area: for each row the embedding
/// scaled to unit length, then the length (L2 norm) it had before.
pub struct Engine<Staged, States, Rows> {
    /// What it says of itself.
    pub info: EngineInfo,
    /// Slot to staged input.
    pub copy_in: Box<dyn Step<(), Staged>>,
    /// Staged input to token states; one thread each. At least one.
    pub infer: Vec<Box<dyn Step<Staged, States>>>,
    /// Token states to pooled rows.
    pub pool: Box<dyn Step<States, Rows>>,
    /// Pooled rows to the slot.
    pub copy_out: Box<dyn Step<Rows, ()>>,
}
