//! Copy-out: rows to the slot, and the only wait for the device.

use std::sync::Arc;
use std::time::Instant;

use super::pool::Rows;
use super::settled;
use super::timeline::{StageTimes, Timeline};
use crate::edge::Stream;
use crate::engine::completion::Completion;
use crate::engine::error::EngineError;
use crate::engine::pipeline::Shared;
use crate::engine::rows::check_norms;

/// The last part of the pipeline.
pub struct CopyOut {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    timeline: Option<Timeline>,
    completion: Completion,
}

impl CopyOut {
    pub(crate) fn new(shared: Arc<Shared>, completion: Completion) -> Result<Self, EngineError> {
        let stream = Stream::new(&shared.loaded.context)?;
        let timeline = match shared.timed {
            true => Some(Timeline::new(&shared.loaded.context, &stream)?),
            false => None,
        };
        Ok(Self { stream, shared, timeline, completion })
    }

    /// When the time axis of [`StageTimes`] began, on the host's clock; now if no time is kept.
    #[must_use]
    pub fn time_zero(&self) -> Instant {
        self.timeline.as_ref().map_or_else(Instant::now, Timeline::zero)
    }

    /// Copies the rows of the batch into its slot, waits for them and checks them. `output` gives
    /// the slot's output rows as the host sees them; it is called once they are complete, as no
    /// reference to them may exist before. Times are zero unless the engine keeps them.
    ///
    /// # Errors
    /// [`EngineError::NonFinite`] if a row is not finite; [`EngineError::Stuck`] if the device does
    /// not finish; [`EngineError::Cuda`], also for work enqueued by the parts before.
    pub fn run<'o>(
        &mut self,
        rows: Rows,
        output: impl FnOnce() -> &'o mut [f32],
    ) -> Result<StageTimes, EngineError> {
        let finished = self.finish(&rows);
        let pooled = &self.shared.events(rows.slot)?.pooled;
        settled(finished, &self.stream, &[pooled])?;
        let row_values = self.shared.layout.row_values as usize;
        check_norms(output(), row_values)?;
        match &mut self.timeline {
            Some(timeline) => {
                let events = self.shared.events(rows.slot)?;
                timeline.read(events, rows.mapped, &self.stream, &self.completion)
            }
            None => Ok(StageTimes::default()),
        }
    }

    fn finish(&mut self, rows: &Rows) -> Result<(), EngineError> {
        let Shared { loaded, host, layout, timed, .. } = &*self.shared;
        let events = self.shared.events(rows.slot)?;
        if rows.mapped {
            // The rows are in place already.
            return self.completion.wait_for(&events.pooled, rows.work, "a batch");
        }
        let Some(at) = loaded.workspace.slot(rows.slot) else {
            return Err(EngineError::Pipeline("a slot that was not planned"));
        };
        self.stream.wait(&events.pooled)?;
        if *timed {
            events.out_started.record(&self.stream)?;
        }
        let bytes = rows.rows as usize * layout.row_values as usize * size_of::<f32>();
        let offset = layout.at(rows.slot) + layout.output_offset;
        host.copy_out(at.rows, offset, bytes, &self.stream)?;
        events.done.record(&self.stream)?;
        self.completion.wait_for(&events.done, rows.work, "a batch")
    }
}
