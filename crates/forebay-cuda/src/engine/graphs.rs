//! Captured graphs by buffer and bucket.
//!
//! A graph is captured once, at the start of a worker, and kept. There are no more than buckets for
//! each buffer of token states, and buckets are chosen so that this is within the limit.

use std::collections::HashMap;

use crate::CudaError;
use crate::edge::{Context, Graph, Stream};

/// Which graph: the buffer of token states it reads and writes, and its capacity in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GraphKey {
    pub ring: usize,
    pub bucket: u32,
}

struct Captured {
    graph: Graph,
    bytes: u64,
}

/// The graphs of one encoder.
#[derive(Default)]
pub(crate) struct Graphs {
    captured: HashMap<GraphKey, Captured>,
}

impl Graphs {
    /// Whether this graph has been captured.
    pub(crate) fn contains(&self, key: GraphKey) -> bool {
        self.captured.contains_key(&key)
    }

    /// Captures what `work` enqueues and keeps it.
    ///
    /// # Errors
    /// The driver's failure, or that of `work`.
    pub(crate) fn capture(
        &mut self,
        context: &Context,
        stream: &Stream,
        key: GraphKey,
        work: impl FnOnce(&Stream) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let (before, _) = context.memory_free()?;
        let graph = Graph::capture(stream, work)?;
        let (after, _) = context.memory_free()?;
        // Other processes allocate and free on the same device, so this can only be an estimate.
        let bytes = before.saturating_sub(after);
        tracing::debug!(?key, nodes = graph.nodes(), bytes, "captured a graph");
        self.captured.insert(key, Captured { graph, bytes });
        Ok(())
    }

    /// Launches a graph on `stream`; false if it has not been captured.
    ///
    /// # Errors
    /// The driver's failure.
    pub(crate) fn launch(&self, key: GraphKey, stream: &Stream) -> Result<bool, CudaError> {
        match self.captured.get(&key) {
            Some(captured) => captured.graph.launch(stream).map(|()| true),
            None => Ok(false),
        }
    }

    /// Number of graphs kept and the bytes they were measured to take.
    pub(crate) fn held(&self) -> (u64, u64) {
        let bytes = self.captured.values().map(|captured| captured.bytes).sum();
        (self.captured.len() as u64, bytes)
    }
}
