//! Infer: token ids to token states, in the next free buffer of the ring.
//!
//! The wait for a buffer is on the host: a batch that is not enqueued yet cannot delay another one.
//! A buffer is free once the pooling of its last batch has been enqueued; the stream then waits for
//! that pooling by an event.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::copy_in::{Staged, StagedChunk};
use super::{finish, settled};
use crate::edge::{Stream, give_up};
use crate::engine::completion::{Completion, Enqueued, STUCK_AFTER};
use crate::engine::encoder::Encoder;
use crate::engine::error::EngineError;
use crate::engine::faults::{DeviceFault, DeviceFaults};
use crate::engine::layers::Layers;
use crate::engine::memory::{MemoryReport, RINGS};
use crate::engine::pipeline::Shared;
use crate::gemm::PlanCounts;

/// The right to use one buffer of token states. Dropping it gives it back, so that no failure on
/// the way can lose a buffer.
#[derive(Debug)]
pub struct RingToken {
    ring: usize,
    give_back: SyncSender<usize>,
}

impl RingToken {
    pub(crate) fn new(ring: usize, give_back: SyncSender<usize>) -> Self {
        Self { ring, give_back }
    }

    pub(crate) fn ring(&self) -> usize {
        self.ring
    }
}

impl Drop for RingToken {
    fn drop(&mut self) {
        // There is room for every token, so this fails only at the pipeline's end.
        if self.give_back.try_send(self.ring).is_err() {
            tracing::debug!(ring = self.ring, "the ring is closed");
        }
    }
}

/// A batch whose token states have been enqueued.
#[derive(Debug)]
pub struct States {
    pub(crate) slot: u32,
    pub(crate) token: RingToken,
    /// The chunk whose states are in the buffer: the last one. Those before it are pooled already.
    pub(crate) last: StagedChunk,
    /// Rows of the whole batch.
    pub(crate) rows: u32,
    pub(crate) mapped: bool,
    /// The whole batch, as the wait for its end knows it.
    pub(crate) work: Enqueued,
    computed_tokens: u32,
    bucket: u32,
    waited: Duration,
}

impl States {
    /// The bucket that the last device batch of it ran in.
    #[must_use]
    pub fn bucket(&self) -> u32 {
        self.bucket
    }

    /// How long the batch waited for a free buffer of token states.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Tokens really computed, those included that only fill a bucket.
    #[must_use]
    pub fn computed_tokens(&self) -> u32 {
        self.computed_tokens
    }
}

/// The second part of the pipeline.
pub struct Infer {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    encoder: Encoder,
    tokens: Receiver<usize>,
    give_back: SyncSender<usize>,
    faults: Option<DeviceFaults>,
}

impl Infer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        encoder: Encoder,
        tokens: Receiver<usize>,
        give_back: SyncSender<usize>,
        faults: Option<DeviceFaults>,
    ) -> Result<Self, EngineError> {
        let stream = Stream::new(&shared.loaded.context)?;
        Ok(Self { shared, stream, encoder, tokens, give_back, faults })
    }

    /// Brings `fault` about with the next batch; says whether that is possible, which it is in an
    /// engine that was opened for it.
    pub fn inject(&mut self, fault: DeviceFault) -> bool {
        let faults = self.faults.as_mut().map(|faults| faults.ask(fault));
        faults.is_some()
    }

    /// Waits for a free buffer, then enqueues the encoder for the batch.
    ///
    /// # Errors
    /// [`EngineError::Cuda`]; [`EngineError::Stuck`] if no buffer becomes free.
    pub fn run(&mut self, staged: Staged) -> Result<States, EngineError> {
        let (slot, start) = (staged.slot, Instant::now());
        let result = self.free_buffer().and_then(|token| {
            let waited = start.elapsed();
            self.enqueue(staged, token, waited)
        });
        settled(result, &self.stream, &[&self.shared.events(slot)?.copied])
    }

    fn free_buffer(&self) -> Result<RingToken, EngineError> {
        match self.tokens.recv_timeout(STUCK_AFTER) {
            Ok(ring) => Ok(RingToken::new(ring, self.give_back.clone())),
            Err(RecvTimeoutError::Timeout) => {
                let what = "the pooling of an earlier batch";
                Err(EngineError::Stuck { what, seconds: STUCK_AFTER.as_secs() })
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(EngineError::Pipeline("no buffer can become free any more"))
            }
        }
    }

    fn enqueue(
        &mut self,
        staged: Staged,
        token: RingToken,
        waited: Duration,
    ) -> Result<States, EngineError> {
        let shared = Arc::clone(&self.shared);
        let Staged { slot, chunks, mapped } = staged;
        let (events, ring) = (shared.events(slot)?, token.ring());
        let Some((&last, before)) = chunks.split_last() else {
            return Err(EngineError::Pipeline("a batch without a chunk"));
        };
        if let Some(faults) = &mut self.faults {
            faults.before_batch(&shared.loaded, &self.stream)?;
        }
        self.stream.wait(&shared.pooled[ring % RINGS])?;
        if !mapped {
            self.stream.wait(&events.copied)?;
        }
        if shared.timed {
            events.infer_started.record(&self.stream)?;
        }
        let mut computed_tokens = 0;
        for chunk in before {
            computed_tokens += self.encode(ring, chunk)?.1;
            let out = shared.rows_at(slot, chunk.first_row, mapped)?;
            let rows = chunk.input.rows;
            Layers::pool(&shared.loaded, ring, rows, out, &self.stream)?;
        }
        let (bucket, computed) = self.encode(ring, &last)?;
        computed_tokens += computed;
        events.inferred.record(&self.stream)?;
        let rows = last.first_row + last.input.rows;
        let tokens = chunks.iter().map(|chunk| chunk.input.tokens).sum();
        let work = Enqueued::now(tokens);
        Ok(States { slot, token, last, rows, mapped, work, computed_tokens, bucket, waited })
    }

    /// Enqueues the encoder for one chunk; gives the bucket and the tokens really computed.
    fn encode(&mut self, ring: usize, chunk: &StagedChunk) -> Result<(u32, u32), EngineError> {
        let bucket = self.encoder.run(ring, &chunk.input, &self.stream)?;
        Ok((bucket, self.encoder.computed_tokens(chunk.input.tokens, bucket)))
    }

    /// Measures products and captures graphs of every bucket, so that no batch is slow later. Must
    /// precede the first batch.
    ///
    /// # Errors
    /// The device's failure.
    pub fn prepare_all(&mut self) -> Result<(), EngineError> {
        self.encoder.prepare_all(RINGS, &self.stream)?;
        Ok(self.stream.synchronize()?)
    }

    /// Where the device memory goes now.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        self.encoder.report()
    }

    /// What happened to the library's product plans; `None` if no product is the library's.
    #[must_use]
    pub fn plan_counts(&self) -> Option<PlanCounts> {
        self.encoder.plan_counts()
    }
}

impl Drop for Infer {
    /// The last batches may still be computed when this part ends: their code must not be unloaded
    /// under them.
    fn drop(&mut self) {
        if let Err(error) = finish(&self.stream, Completion::new(0)) {
            tracing::debug!(%error, "the last batches were not waited for");
            // What cannot be waited for must not be unloaded under it.
            if matches!(error, EngineError::Stuck { .. }) {
                give_up(&error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_dropped_token_is_free_again_and_a_closed_ring_is_no_panic() {
        let (give_back, tokens) = sync_channel(RINGS);
        for ring in 0..RINGS {
            drop(RingToken::new(ring, give_back.clone()));
        }
        for _ in 0..5 {
            let first = RingToken::new(tokens.try_recv().unwrap(), give_back.clone());
            let second = RingToken::new(tokens.try_recv().unwrap(), give_back.clone());
            assert_ne!(first.ring(), second.ring());
            assert!(tokens.try_recv().is_err(), "more tokens than buffers");
            drop(second);
            drop(first);
        }
        let last = RingToken::new(tokens.try_recv().unwrap(), give_back);
        drop(tokens);
        drop(last);
    }
}
