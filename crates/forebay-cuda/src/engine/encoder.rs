//! The encoder on one stream: embedding, then the layers as one captured graph.
//!
//! The embedding kernel takes the batch's own addresses and sizes, so it is launched by itself; all
//! that follows reads sizes from the device and is the same for every batch of a bucket. Products
//! are measured and graphs captured when a bucket is first used, which makes that batch slow once;
//! a worker has all of it done before its first batch.

use std::sync::Arc;

use super::buckets::Buckets;
use super::error::{EngineError, InputError};
use super::graphs::{GraphKey, Graphs};
use super::layers::{Activations, Input, Layers, Watch};
use super::loading::Loaded;
use super::memory::{MemoryReport, RINGS};
use crate::edge::Stream;
use crate::gemm::PlanCounts;

/// The encoder. One thread uses it, with one stream.
pub(crate) struct Encoder {
    layers: Layers,
    graphs: Graphs,
    buckets: Buckets,
}

impl Encoder {
    pub(crate) fn new(layers: Layers, graphs_max: u32) -> Self {
        let tokens_max = layers.loaded().workspace.plan().tokens_max;
        // Every bucket has a graph for each buffer of token states.
        let buckets = Buckets::up_to(tokens_max, graphs_max as usize / RINGS);
        Self { layers, graphs: Graphs::default(), buckets }
    }

    pub(crate) fn loaded(&self) -> &Arc<Loaded> {
        self.layers.loaded()
    }

    /// Who computes the products, for logs and reports.
    pub(crate) fn products_name(&self) -> &'static str {
        self.layers.products().paths().name()
    }

    /// Tokens really computed for a batch of `tokens` in `bucket`: library products compute all of
    /// the bucket, everything else stops at the real count.
    pub(crate) fn computed_tokens(&self, tokens: u32, bucket: u32) -> u32 {
        if self.layers.products().paths().library() { bucket } else { tokens }
    }

    /// What happened to the library's product plans; `None` if no product is the library's.
    pub(crate) fn plan_counts(&self) -> Option<PlanCounts> {
        self.layers.products().plan_counts()
    }

    /// Where the memory goes now.
    pub(crate) fn report(&self) -> MemoryReport {
        let (graphs, bytes) = self.graphs.held();
        self.loaded().workspace.plan().report(graphs, bytes)
    }

    /// Enqueues the whole encoder for `input` on `stream`, leaving the token states in buffer
    /// `ring`. Returns the bucket it ran in.
    ///
    /// # Errors
    /// [`EngineError::Input`] for more tokens than the largest bucket; [`EngineError::Cuda`].
    pub(crate) fn run(
        &mut self,
        ring: usize,
        input: &Input,
        stream: &Stream,
    ) -> Result<u32, EngineError> {
        let bucket = self.bucket_of(input)?;
        self.prepare(ring, bucket, stream)?;
        self.layers.embed(ring, input, stream)?;
        if self.graphs.launch(GraphKey { ring, bucket }, stream)? {
            Ok(bucket)
        } else {
            Err(EngineError::Pipeline("a graph vanished between capture and launch"))
        }
    }

    /// As [`run`](Self::run) does, without a graph.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub(crate) fn run_eager(
        &mut self,
        ring: usize,
        input: &Input,
        stream: &Stream,
    ) -> Result<(), EngineError> {
        self.run_watched(ring, input, stream, &mut |_| Ok(()))
    }

    /// Enqueues the encoder without a graph and shows every activation to `watch`.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and what `watch` returns.
    pub(crate) fn run_watched(
        &mut self,
        ring: usize,
        input: &Input,
        stream: &Stream,
        watch: &mut Watch<'_>,
    ) -> Result<(), EngineError> {
        let bucket = self.bucket_of(input)?;
        self.layers.prepare(ring, bucket, stream)?;
        self.layers.embed(ring, input, stream)?;
        // The layers read its sizes before they wait for a kernel in front of them, as in a graph.
        stream.synchronize()?;
        let width = self.loaded().geometry.hidden;
        let at = self.loaded().workspace.ring(ring).states;
        watch(Activations { layer: 0, what: "embeddings", at, width })?;
        Ok(self.layers.run(ring, bucket, stream, watch)?)
    }

    /// Captures the graphs of all buckets for `rings` buffers.
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare).
    pub(crate) fn prepare_all(&mut self, rings: usize, stream: &Stream) -> Result<(), EngineError> {
        for bucket in self.buckets.capacities().to_vec() {
            for ring in 0..rings.min(RINGS) {
                self.prepare(ring, bucket, stream)?;
            }
        }
        Ok(())
    }

    /// Measures products and captures the graph of `bucket` for buffer `ring`, if that has not been
    /// done. Overwrites the buffer and the scratch memory.
    ///
    /// # Errors
    /// [`EngineError::Cuda`].
    fn prepare(&mut self, ring: usize, bucket: u32, stream: &Stream) -> Result<(), EngineError> {
        let key = GraphKey { ring, bucket };
        if self.graphs.contains(key) {
            return Ok(());
        }
        self.layers.prepare(ring, bucket, stream)?;
        let (graphs, layers) = (&mut self.graphs, &self.layers);
        graphs.capture(&layers.loaded().context, stream, key, |stream| {
            layers.run(ring, bucket, stream, &mut |_| Ok(()))
        })?;
        Ok(())
    }

    fn bucket_of(&self, input: &Input) -> Result<u32, EngineError> {
        let plan = self.loaded().workspace.plan();
        match self.buckets.holding(input.tokens) {
            Some(bucket) if input.rows <= plan.rows_max => Ok(bucket),
            _ => Err(EngineError::Input(InputError::Slot {
                slot: 0,
                rows: input.rows as usize,
                tokens: input.tokens as usize,
                slots: 1,
                rows_max: plan.rows_max,
                tokens_max: plan.tokens_max,
            })),
        }
    }
}
