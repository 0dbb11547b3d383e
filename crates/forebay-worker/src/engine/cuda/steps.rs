//! The four parts of the pipeline as steps of the stages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_arena::ClaimedSlot;
use forebay_cuda::{CopyIn, CopyOut, DeviceFault, EngineError, EngineErrorClass, Infer, Pool};
use forebay_protocol::{BatchTimes, ErrorClass, Fault};

use super::black_box::{BlackBox, Encoded};
use super::timeline::TimelineFile;
use super::times::Spent;
use super::{Rows, Staged, States, exit_of};
use crate::engine::{Injection, Step, StepError};

/// What one step passes to the next, with when the steps so far ran in their threads.
pub(crate) struct Passed<T> {
    pub(super) value: T,
    /// Batches since the start, counted by the first step.
    pub(super) batch: u64,
    pub(super) spans: ThreadSpans,
    /// How long the batch waited for a buffer of token states.
    pub(super) for_buffer: Duration,
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
    black_box: Arc<BlackBox>,
}

impl CopyInStep {
    pub(super) fn new(part: CopyIn, black_box: Arc<BlackBox>) -> Self {
        Self { part, batches: 0, black_box }
    }
}

impl Step<(), Staged> for CopyInStep {
    fn run(&mut self, slot: &mut ClaimedSlot, (): ()) -> Result<Staged, StepError> {
        let start = Instant::now();
        self.batches += 1;
        let (batch, number) = (self.batches, slot.slot());
        self.black_box.enters(number, batch, slot.rows(), slot.ids().len());
        let value = self
            .part
            .run(number, slot.ids(), slot.cu_seqlens())
            .map_err(|error| failed(&self.black_box, "copy-in", slot, &error))?;
        self.black_box.enqueued(number, "copy-in", None);
        let spans = ThreadSpans::default().with(0, start);
        Ok(Passed { value, batch, spans, for_buffer: Duration::ZERO })
    }
}

/// Encodes a batch.
pub(super) struct InferStep {
    part: Infer,
    computed_tokens: Option<u32>,
    black_box: Arc<BlackBox>,
}

impl InferStep {
    pub(super) fn new(part: Infer, black_box: Arc<BlackBox>) -> Self {
        Self { part, computed_tokens: None, black_box }
    }
}

impl Step<Staged, States> for InferStep {
    fn run(&mut self, slot: &mut ClaimedSlot, staged: Staged) -> Result<States, StepError> {
        let start = Instant::now();
        let Passed { value, batch, spans, .. } = staged;
        let value =
            self.part.run(value).map_err(|error| failed(&self.black_box, "infer", slot, &error))?;
        let encoded = Encoded { bucket: value.bucket(), computed: value.computed_tokens() };
        self.black_box.enqueued(slot.slot(), "infer", Some(encoded));
        self.computed_tokens = Some(encoded.computed);
        let for_buffer = value.waited();
        Ok(Passed { value, batch, spans: spans.with(1, start), for_buffer })
    }

    fn padded_tokens(&self) -> Option<u32> {
        self.computed_tokens
    }

    fn inject(&mut self, fault: Fault) -> Injection {
        let on_device = match fault {
            Fault::Trap => DeviceFault::Trap,
            Fault::IllegalAddress => DeviceFault::IllegalAddress,
            Fault::EndlessKernel => DeviceFault::EndlessKernel,
            Fault::DeviceOutOfMemory => DeviceFault::OutOfMemory,
            Fault::FlipWeightBit => DeviceFault::FlipWeightBit,
            // The worker's or the host's own.
            _ => return Injection::Imitate,
        };
        match self.part.inject(on_device) {
            true => Injection::Begun,
            false => Injection::Imitate,
        }
    }
}

/// Pools a batch.
pub(super) struct PoolStep {
    part: Pool,
    black_box: Arc<BlackBox>,
}

impl PoolStep {
    pub(super) fn new(part: Pool, black_box: Arc<BlackBox>) -> Self {
        Self { part, black_box }
    }
}

impl Step<States, Rows> for PoolStep {
    fn run(&mut self, slot: &mut ClaimedSlot, states: States) -> Result<Rows, StepError> {
        let start = Instant::now();
        let Passed { value, batch, spans, for_buffer } = states;
        let value =
            self.part.run(value).map_err(|error| failed(&self.black_box, "pool", slot, &error))?;
        self.black_box.enqueued(slot.slot(), "pool", None);
        Ok(Passed { value, batch, spans: spans.with(2, start), for_buffer })
    }
}

/// Brings the rows back and waits for them.
pub(super) struct CopyOutStep {
    part: CopyOut,
    timeline: Option<TimelineFile>,
    black_box: Arc<BlackBox>,
    /// When the rows of the latest batch were there, and where its time went.
    last_end: Option<Instant>,
    spent: Spent,
}

impl CopyOutStep {
    pub(super) fn new(
        part: CopyOut,
        timeline: Option<TimelineFile>,
        black_box: Arc<BlackBox>,
    ) -> Self {
        Self { part, timeline, black_box, last_end: None, spent: Spent::default() }
    }
}

impl Step<Rows, ()> for CopyOutStep {
    fn run(&mut self, slot: &mut ClaimedSlot, rows: Rows) -> Result<(), StepError> {
        let start = Instant::now();
        let Passed { value, batch, spans, for_buffer } = rows;
        let finished = self.part.run(value, || slot.output_mut());
        let times = finished.map_err(|error| failed(&self.black_box, "copy-out", slot, &error))?;
        self.black_box.leaves(slot.slot());
        let (end, infer_start) = (Instant::now(), spans.0[1].map_or(start, |(start, _)| start));
        let before_end = self.last_end.replace(end);
        self.spent = Spent::new(infer_start, for_buffer, before_end, end, &times);
        if let Some(timeline) = &mut self.timeline {
            let size = (slot.rows(), slot.ids().len());
            timeline.write(batch, size, &spans.with(3, start), &times);
        }
        Ok(())
    }

    fn times(&self, measured: BatchTimes) -> BatchTimes {
        self.spent.correct(measured)
    }

    fn finish(&mut self) {
        if let Some(timeline) = &mut self.timeline {
            timeline.flush();
        }
    }
}

/// What the host is told of a failure. One that ends the process carries all that is known of the
/// batches under way: it is the last thing that this process says.
fn failed(
    black_box: &BlackBox,
    stage: &'static str,
    slot: &ClaimedSlot,
    error: &EngineError,
) -> StepError {
    if let Some(exit) = exit_of(error) {
        let message = black_box.record(error, stage, slot.slot());
        return StepError::Fatal { exit, message };
    }
    black_box.leaves(slot.slot());
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
