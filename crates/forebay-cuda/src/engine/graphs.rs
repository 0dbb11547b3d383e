//! Captured graphs by buffer and bucket, bounded in number.
//!
//! A graph is captured when a bucket is first used. When the cache is full the one that was not
//! used for the longest time is dropped, which is counted: an engine that keeps dropping graphs
//! should be given room for more. The driver lets a dropped graph finish if it still runs.

use crate::CudaError;
use crate::edge::{Context, Graph, Stream};

/// Values by key, at most `capacity` of them, the latest used first.
#[derive(Debug)]
pub(crate) struct LatestUsed<K, V> {
    capacity: usize,
    entries: Vec<(K, V)>,
    dropped: u64,
}

impl<K: PartialEq, V> LatestUsed<K, V> {
    /// An empty cache for at least one value.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), entries: Vec::new(), dropped: 0 }
    }

    /// The value of `key`, which becomes the latest used.
    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        let index = self.entries.iter().position(|(known, _)| known == key)?;
        self.entries[..=index].rotate_right(1);
        self.entries.first().map(|(_, value)| value)
    }

    /// Adds a value as the latest used, dropping the oldest if there is no room.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.entries.len() == self.capacity {
            self.entries.pop();
            self.dropped += 1;
        }
        self.entries.insert(0, (key, value));
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Values dropped for want of room so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }
}

/// Which graph: the buffer of token states it reads and writes, and its capacity in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GraphKey {
    pub ring: usize,
    pub bucket: u32,
}

struct Captured {
    graph: Graph,
    bytes: u64,
}

/// The graphs of one encoder.
pub(crate) struct Graphs {
    cache: LatestUsed<GraphKey, Captured>,
}

impl Graphs {
    /// Room for `graphs_max` graphs.
    pub(crate) fn new(graphs_max: u32) -> Self {
        Self { cache: LatestUsed::new(graphs_max as usize) }
    }

    /// Most graphs kept.
    pub(crate) fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Whether this graph has been captured; it becomes the latest used.
    pub(crate) fn contains(&mut self, key: GraphKey) -> bool {
        self.cache.get(&key).is_some()
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
        let dropped = self.cache.dropped();
        self.cache.insert(key, Captured { graph, bytes });
        if self.cache.dropped() > dropped {
            tracing::debug!(dropped = self.cache.dropped(), "dropped the oldest graph");
        }
        Ok(())
    }

    /// Launches a graph on `stream`; false if it has not been captured.
    ///
    /// # Errors
    /// The driver's failure.
    pub(crate) fn launch(&mut self, key: GraphKey, stream: &Stream) -> Result<bool, CudaError> {
        match self.cache.get(&key) {
            Some(captured) => captured.graph.launch(stream).map(|()| true),
            None => Ok(false),
        }
    }

    /// Number of graphs kept and the bytes they were measured to take.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.cache.values().map(|captured| captured.bytes).sum())
    }

    /// Graphs dropped for want of room so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.cache.dropped()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn the_oldest_is_dropped_and_counted() {
        let mut cache = LatestUsed::new(2);
        cache.insert(1, 'a');
        cache.insert(2, 'b');
        assert_eq!(cache.get(&1), Some(&'a'));
        cache.insert(3, 'c');
        assert_eq!(cache.get(&2), None);
        assert_eq!((cache.dropped(), cache.len()), (1, 2));
        assert_eq!(cache.get(&1), Some(&'a'));
        assert_eq!(cache.get(&3), Some(&'c'));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(0x16af),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// The cache holds exactly the `capacity` keys that were used last.
        #[test]
        fn the_latest_keys_are_held(
            capacity in 1..6_usize,
            uses in prop::collection::vec(0..8_u32, 0..60),
        ) {
            let mut cache = LatestUsed::new(capacity);
            let mut order: Vec<u32> = Vec::new();
            let mut inserted = 0;
            for key in uses {
                let known = order.iter().take(capacity).any(|&other| other == key);
                prop_assert_eq!(cache.get(&key), known.then_some(&key));
                if !known {
                    cache.insert(key, key);
                    inserted += 1;
                }
                order.retain(|&other| other != key);
                order.insert(0, key);
            }
            prop_assert_eq!(cache.len(), order.len().min(capacity));
            prop_assert_eq!(cache.dropped(), inserted - cache.len() as u64);
        }
    }
}
