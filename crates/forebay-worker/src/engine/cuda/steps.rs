//! The four parts of the pipeline as steps of the stages.

use std::time::{Duration, Instant};

use forebay_arena::ClaimedSlot;
use forebay_cuda::{CopyIn, CopyOut, EngineError, EngineErrorClass, Infer, Pool};
use forebay_protocol::ErrorClass;

use super::timeline::TimelineFile;
use super::{Rows, Staged, States, exit_of};
use crate::engine::{Step, StepError};

/// What one step passes to the next, with when the steps so far ran in their threads.
pub(crate) struct Passed<T> {
    pub(super) value: T,
    /// Batches since the start, counted by the first step.
    pub(super) batch: u64,
    pub(super) spans: ThreadSpans,
}

/// When each stage's thread had the batch in hand, in the order of the stages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ThreadSpans(pub(super) [Option<(Instant, Duration)>; 4]);

impl ThreadSpans {
    fn with(mut self, stage: usize, start: Instant) -> Self {
        self.0[stage] = Some((start, start.elapsed()));
        self
    }
}

/// Brings a batch to the device.
pub(super) struct CopyInStep {
    part: CopyIn,
    batches: u64,
}

impl CopyInStep {
    pub(super) fn new(part: CopyIn) -> Self {
        Self { part, batches: 0 }
    }
}

impl Step<(), Staged> for CopyInStep {
    fn run(&mut self, slot: &mut ClaimedSlot, (): ()) -> Result<Staged, StepError> {
        let start = Instant::now();
        self.batches += 1;
        let batch = self.batches;
        let value = self
            .part
            .run(slot.slot(), slot.ids(), slot.cu_seqlens())
            .map_err(|error| failed("copy-in", batch, slot, &error))?;
        Ok(Passed { value, batch, spans: ThreadSpans::default().with(0, start) })
    }
}

/// Encodes a batch.
pub(super) struct InferStep {
    part: Infer,
    computed_tokens: Option<u32>,
}

impl InferStep {
    pub(super) fn new(part: Infer) -> Self {
        Self { part, computed_tokens: None }
    }
}

impl Step<Staged, States> for InferStep {
    fn run(&mut self, slot: &mut ClaimedSlot, staged: Staged) -> Result<States, StepError> {
        let start = Instant::now();
        let Passed { value, batch, spans } = staged;
        let value = self.part.run(value).map_err(|error| failed("infer", batch, slot, &error))?;
        self.computed_tokens = Some(value.computed_tokens());
        Ok(Passed { value, batch, spans: spans.with(1, start) })
    }

    fn padded_tokens(&self) -> Option<u32> {
        self.computed_tokens
    }
}

/// Pools a batch.
pub(super) struct PoolStep {
    part: Pool,
}

impl PoolStep {
    pub(super) fn new(part: Pool) -> Self {
        Self { part }
    }
}

impl Step<States, Rows> for PoolStep {
    fn run(&mut self, slot: &mut ClaimedSlot, states: States) -> Result<Rows, StepError> {
        let start = Instant::now();
        let Passed { value, batch, spans } = states;
        let value = self.part.run(value).map_err(|error| failed("pool", batch, slot, &error))?;
        Ok(Passed { value, batch, spans: spans.with(2, start) })
    }
}

/// Brings the rows back and waits for them.
pub(super) struct CopyOutStep {
    part: CopyOut,
    timeline: Option<TimelineFile>,
}

impl CopyOutStep {
    pub(super) fn new(part: CopyOut, timeline: Option<TimelineFile>) -> Self {
        Self { part, timeline }
    }
}

impl Step<Rows, ()> for CopyOutStep {
    fn run(&mut self, slot: &mut ClaimedSlot, rows: Rows) -> Result<(), StepError> {
        let start = Instant::now();
        let Passed { value, batch, spans } = rows;
        let finished = self.part.run(value, || slot.output_mut());
        let times = finished.map_err(|error| failed("copy-out", batch, slot, &error))?;
        if let Some(timeline) = &mut self.timeline {
            let size = (slot.rows(), slot.ids().len());
            timeline.write(batch, size, &spans.with(3, start), &times);
        }
        Ok(())
    }
}

/// What the host is told of a failure. One that ends the process carries all that is known of the
/// batch: it is the last thing that this process says.
fn failed(stage: &str, batch: u64, slot: &ClaimedSlot, error: &EngineError) -> StepError {
    if let Some(exit) = exit_of(error) {
        let (number, rows, tokens) = (slot.slot(), slot.rows(), slot.ids().len());
        let message = format!(
            "{error}; stage {stage}, batch {batch} since the start, slot {number}, {rows} rows, \
             {tokens} tokens"
        );
        return StepError::Fatal { exit, message };
    }
    let class = match error.class() {
        EngineErrorClass::Input => ErrorClass::Input,
        EngineErrorClass::OutOfMemory => ErrorClass::OutOfMemory,
        EngineErrorClass::NonFinite => ErrorClass::NonFinite,
        EngineErrorClass::Internal => ErrorClass::Internal,
        EngineErrorClass::Retry
        | EngineErrorClass::Sticky
        | EngineErrorClass::DeviceLost
        | EngineErrorClass::Config => ErrorClass::Retry,
    };
    StepError::Batch { class, message: error.to_string() }
}
