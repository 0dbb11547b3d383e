//! Known answers on the way: which worker is to run a canary batch, and what follows from one.

use std::time::{Duration, Instant};

use super::Core;
use crate::dispatch::port::{WorkerId, WorkerNews, WorkerPort};

/// A canary batch that came back.
pub(crate) struct CanaryDone {
    pub(crate) worker: WorkerId,
    /// What was wrong with it.
    pub(crate) verdict: Result<(), String>,
    /// Embeddings that the worker has handed out since its last good canary.
    pub(crate) replies: u64,
    pub(crate) tokens: usize,
    pub(crate) service: Duration,
}

impl<W: WorkerPort> Core<W> {
    /// A worker shall run a canary batch as soon as it has a free slot.
    pub(crate) fn run_canary(&mut self, id: WorkerId) {
        self.news.push(WorkerNews::Canary { id, verdict: Ok(()), replies: 0 });
    }

    /// A canary batch came back.
    pub(crate) fn canary_done(&mut self, done: CanaryDone, _now: Instant) {
        let CanaryDone { worker: id, verdict, replies, .. } = done;
        self.news.push(WorkerNews::Canary { id, verdict, replies });
    }
}
