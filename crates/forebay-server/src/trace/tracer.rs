//! Which requests are traced, and the way of their notes into the queue.

use std::sync::Arc;

use forebay::config::TracingConfig;
use http::{Method, Request};
use tokio::sync::mpsc;

use super::context::{RemoteParent, TraceId};
use super::metrics::{Dropped, TraceMetrics};
use super::request::{Notes, RequestTrace};
use crate::guard::request_id::RequestId;

/// Begins traces.
pub(crate) struct Tracer {
    sample_ratio: f64,
    queue: mpsc::Sender<Notes>,
    metrics: &'static TraceMetrics,
}

impl Tracer {
    /// A tracer, and where the notes of its requests come out.
    pub(super) fn new(config: &TracingConfig) -> (Self, mpsc::Receiver<Notes>) {
        let (queue, queued) = mpsc::channel(config.queue_requests_max as usize);
        let metrics = TraceMetrics::get();
        (Self { sample_ratio: config.sample_ratio, queue, metrics }, queued)
    }

    /// The trace of a request, if it is to be traced: as its `traceparent` says, and without one by
    /// chance, but never what only asks how things are; and the id under which log lines can be found:
    /// a client that does not record its spans may still look for its id in the log.
    pub(crate) fn begin<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        id: &RequestId,
    ) -> (Option<Ending>, Option<TraceId>) {
        let parent = RemoteParent::of(request.headers());
        let (trace_id, sampled) = match &parent {
            Some(parent) => (parent.trace_id, parent.sampled),
            None => {
                let only_asks = matches!(*request.method(), Method::GET | Method::HEAD)
                    || crate::grpc::only_asks(request.uri().path());
                (TraceId::random(), !only_asks && rand::random::<f64>() < self.sample_ratio)
            }
        };
        let logged = (sampled || parent.is_some()).then_some(trace_id);
        let trace = sampled.then(|| {
            let trace = RequestTrace::new(request, id.as_str(), trace_id, parent);
            Ending { trace, tracer: Arc::clone(self) }
        });
        (trace, logged)
    }

    fn take(&self, notes: Notes) {
        match self.queue.try_send(notes) {
            Ok(()) => self.metrics.waiting.increment(1.0),
            Err(mpsc::error::TrySendError::Full(notes)) => {
                self.metrics.dropped(Dropped::Queue, notes.spans());
            }
            Err(mpsc::error::TrySendError::Closed(notes)) => {
                self.metrics.dropped(Dropped::End, notes.spans());
            }
        }
    }
}

/// A traced request; it ends when this is dropped, and is sent on if it was let in.
pub(crate) struct Ending {
    trace: RequestTrace,
    tracer: Arc<Tracer>,
}

impl Ending {
    /// What is noted of it.
    pub(crate) fn trace(&self) -> &RequestTrace {
        &self.trace
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let notes = self.trace.finish();
        if notes.is_let_in {
            self.tracer.take(notes);
        }
    }
}
