//! Pool: token states to rows, and the buffer of token states back to the ring.

use std::sync::Arc;

use super::infer::States;
use super::settled;
use crate::edge::Stream;
use crate::engine::completion::Enqueued;
use crate::engine::error::EngineError;
use crate::engine::layers::Layers;
use crate::engine::memory::RINGS;
use crate::engine::pipeline::Shared;

/// A batch whose pooling has been enqueued.
#[derive(Debug)]
pub struct Rows {
    pub(crate) slot: u32,
    pub(crate) rows: u32,
    pub(crate) mapped: bool,
    pub(crate) work: Enqueued,
}

/// The third part of the pipeline.
pub struct Pool {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
}

impl Pool {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, EngineError> {
        Ok(Self { stream: Stream::new(&shared.loaded.context)?, shared })
    }

    /// Enqueues the pooling of the batch, then gives its buffer back.
    ///
    /// # Errors
    /// [`EngineError::Cuda`].
    pub fn run(&mut self, states: States) -> Result<Rows, EngineError> {
        let result = self.enqueue(&states);
        // The buffer is given back with `states`, after its event has been recorded.
        let encoded = &self.shared.events(states.slot)?.inferred;
        settled(result, &self.stream, &[encoded])
    }

    fn enqueue(&self, states: &States) -> Result<Rows, EngineError> {
        let States { slot, last, rows, mapped, work, .. } = *states;
        let shared = &*self.shared;
        let (events, ring) = (shared.events(slot)?, states.token.ring());
        self.stream.wait(&events.inferred)?;
        if shared.timed {
            events.pool_started.record(&self.stream)?;
        }
        let out = shared.rows_at(slot, last.first_row, mapped)?;
        Layers::pool(&shared.loaded, ring, last.input.rows, out, &self.stream)?;
        shared.pooled[ring % RINGS].record(&self.stream)?;
        events.pooled.record(&self.stream)?;
        Ok(Rows { slot, rows, mapped, work })
    }
}
