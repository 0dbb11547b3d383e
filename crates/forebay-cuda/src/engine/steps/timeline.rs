//! Device times of a batch's steps, on one time axis for all batches.
//!
//! CUDA gives the time between two events in milliseconds as a single-precision number, which is
//! good to a microsecond for some seconds only. So the zero of the axis is moved along: spans are
//! measured from a base event that is never old, and the base's own place is kept in double
//! precision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::CudaError;
use crate::edge::{Context, Event, Stream};
use crate::engine::completion::Completion;
use crate::engine::error::EngineError;
use crate::engine::pipeline::SlotEvents;

/// A base older than this is replaced.
const BASE_AGE_MAX: Duration = Duration::from_secs(4);

/// When a step ran on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageSpan {
    /// Its start in microseconds since the engine was opened.
    pub start_us: f64,
    /// How long it took in microseconds; 0 for a step that had nothing to do.
    pub us: f64,
}

/// When the steps of one batch ran on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageTimes {
    /// Copy of the input; empty if kernels read it in place.
    pub copy_in: StageSpan,
    /// Encoder.
    pub infer: StageSpan,
    /// Pooling.
    pub pool: StageSpan,
    /// Copy of the rows; empty if the pooling wrote them in place.
    pub copy_out: StageSpan,
}

/// The time axis.
pub(crate) struct Timeline {
    base: Event,
    next: Event,
    base_us: f64,
    recorded: Instant,
    zero: Instant,
}

impl Timeline {
    /// Starts the axis on `stream`.
    pub(crate) fn new(context: &Arc<Context>, stream: &Stream) -> Result<Self, CudaError> {
        let (base, next) = (Event::new(context, true)?, Event::new(context, true)?);
        base.record(stream)?;
        stream.synchronize()?;
        let zero = Instant::now();
        Ok(Self { base, next, base_us: 0.0, recorded: zero, zero })
    }

    /// When the axis began, on the host's clock, to within the time a wait takes to return.
    pub(crate) fn zero(&self) -> Instant {
        self.zero
    }

    /// Reads the spans of a batch that is complete. `stream` is idle.
    pub(crate) fn read(
        &mut self,
        events: &SlotEvents,
        mapped: bool,
        stream: &Stream,
        completion: &Completion,
    ) -> Result<StageTimes, EngineError> {
        let span = |start: &Event, end: &Event| -> Result<StageSpan, CudaError> {
            let start_us = self.base_us + self.base.elapsed_us(start)?;
            Ok(StageSpan { start_us, us: start.elapsed_us(end)? })
        };
        let infer = span(&events.infer_started, &events.inferred)?;
        let pool = span(&events.pool_started, &events.pooled)?;
        let (copy_in, copy_out) = if mapped {
            let end_us = pool.start_us + pool.us;
            (
                StageSpan { start_us: infer.start_us, us: 0.0 },
                StageSpan { start_us: end_us, us: 0.0 },
            )
        } else {
            (span(&events.copy_started, &events.copied)?, span(&events.out_started, &events.done)?)
        };
        if self.recorded.elapsed() > BASE_AGE_MAX {
            self.next.record(stream)?;
            completion.wait(&self.next, "a time mark")?;
            self.base_us += self.base.elapsed_us(&self.next)?;
            std::mem::swap(&mut self.base, &mut self.next);
            self.recorded = Instant::now();
        }
        Ok(StageTimes { copy_in, infer, pool, copy_out })
    }
}
