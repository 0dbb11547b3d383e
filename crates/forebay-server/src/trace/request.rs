//! What is noted of one traced request while it is answered: ids, times and counts, never a text.
//!
//! The trace of the request that a task answers is that task's [`current`] one, so that what is
//! measured deep in a handler finds its way here without every function handing it on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use forebay::{Embedding, Level};
use http::{Method, Request, StatusCode, Version};
use tonic::Code;

use super::context::{RemoteParent, SpanId, TraceId};

/// Batches of one request that have spans of their own; those beyond share the last one.
const BATCH_SPANS_MAX: usize = 31;

tokio::task_local! {
    static CURRENT: RequestTrace;
}

/// The trace of the request that this task answers, if it is traced.
pub(crate) fn current() -> Option<RequestTrace> {
    CURRENT.try_with(RequestTrace::clone).ok()
}

/// Polls a future as part of a trace, if there is one.
pub(crate) async fn scoped<F: Future>(trace: Option<RequestTrace>, future: F) -> F::Output {
    match trace {
        Some(trace) => CURRENT.scope(trace, future).await,
        None => future.await,
    }
}

/// One traced request. Clones are the same.
#[derive(Clone)]
pub(crate) struct RequestTrace(Arc<Mutex<Notes>>);

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Pattern of the path; `None` for a path that is no route.
    pub(crate) pattern: Option<&'static str>,
    /// Its dialect.
    pub(crate) dialect: &'static str,
}

/// A time during which something was done for some of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
    pub(super) texts: usize,
    pub(super) tokens: usize,
}

impl Window {
    fn widen(window: &mut Option<Self>, other: Self) {
        match window {
            None => *window = Some(other),
            Some(window) => window.merge(other),
        }
    }

    fn merge(&mut self, other: Self) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.texts += other.texts;
        self.tokens += other.tokens;
    }
}

/// A batch in its worker, as far as texts of this request were in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchRun {
    pub(super) window: Window,
    /// All texts of the batch, and their tokens.
    pub(super) batch_texts: usize,
    pub(super) batch_tokens: usize,
    /// Several batches share this.
    pub(super) shared: bool,
}

/// Everything that is known of a request.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent: Option<RemoteParent>,
    /// The same moment on both clocks.
    pub(super) begun: (SystemTime, Instant),
    pub(super) ended: Option<Instant>,
    /// Whether the guards let it in, for somebody whom they know.
    pub(super) is_let_in: bool,
    pub(super) request_id: String,
    pub(super) method: &'static str,
    pub(super) version: &'static str,
    pub(super) route: Option<Route>,
    pub(super) status: Option<StatusCode>,
    /// Status of a call of gRPC.
    pub(super) grpc_status: Option<Code>,
    /// Word for what went wrong.
    pub(super) problem: Option<&'static str>,
    pub(super) level: Option<Level>,
    pub(super) priority: Option<&'static str>,
    pub(super) texts: usize,
    pub(super) tokens: usize,
    pub(super) tokenize: Option<Window>,
    pub(super) queue: Option<Window>,
    pub(super) batches: Vec<BatchRun>,
}

impl Notes {
    /// Spans that these make.
    pub(super) fn spans(&self) -> usize {
        let others = [self.tokenize.is_some(), self.queue.is_some()];
        1 + others.into_iter().filter(|there| *there).count() + self.batches.len()
    }

    /// A moment as nanoseconds of Unix time.
    pub(super) fn unix_ns(&self, at: Instant) -> u64 {
        let (system, instant) = self.begun;
        let begun = system.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let after = at.saturating_duration_since(instant);
        u64::try_from((begun + after).as_nanos()).unwrap_or(u64::MAX)
    }

    /// One text has its embedding.
    fn text(&mut self, submitted_at: Instant, row: &Embedding) {
        let at = |after: Duration| submitted_at.checked_add(after).unwrap_or(submitted_at);
        let (times, tokens) = (&row.times, row.tokens);
        let window = |from, to| Window { from, to, texts: 1, tokens };
        let tokenized = at(times.until_tokenized);
        let began = at(times.until_tokenized.saturating_sub(times.tokenize));
        let sent = at(times.tokenize + times.queue);
        let inferred = at(times.tokenize + times.queue + times.infer);
        self.texts += 1;
        self.tokens += tokens;
        Window::widen(&mut self.tokenize, window(began, tokenized));
        Window::widen(&mut self.queue, window(tokenized.min(sent), sent));
        let run = BatchRun {
            window: window(sent, inferred),
            batch_texts: times.batch_texts,
            batch_tokens: times.batch_tokens,
            shared: false,
        };
        let same = |other: &&mut BatchRun| {
            !other.shared
                && (other.window.from, other.batch_tokens) == (run.window.from, run.batch_tokens)
        };
        let is_full = self.batches.len() >= BATCH_SPANS_MAX;
        if let Some(known) = self.batches.iter_mut().rev().find(same) {
            known.window.merge(run.window);
        } else if let Some(last) = self.batches.last_mut().filter(|_| is_full) {
            last.shared = true;
            last.window.merge(run.window);
        } else {
            self.batches.push(run);
        }
    }
}

impl RequestTrace {
    pub(super) fn new<B>(
        request: &Request<B>,
        request_id: &str,
        trace_id: TraceId,
        parent: Option<RemoteParent>,
    ) -> Self {
        Self(Arc::new(Mutex::new(Notes {
            trace_id,
            span_id: SpanId::random(),
            parent,
            begun: (SystemTime::now(), Instant::now()),
            ended: None,
            is_let_in: false,
            request_id: request_id.to_owned(),
            method: method(request.method()),
            version: version(request.version()),
            route: None,
            status: None,
            grpc_status: None,
            problem: None,
            level: None,
            priority: None,
            texts: 0,
            tokens: 0,
            tokenize: None,
            queue: None,
            batches: Vec::new(),
        })))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nobody panics with half a note.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guards let it in, for somebody whom they know. Nothing else goes to a collector: anybody
    /// could fill the queue with it.
    pub(crate) fn let_in(&self) {
        self.notes().is_let_in = true;
    }

    /// Where the request goes.
    pub(crate) fn route(&self, route: Route) {
        self.notes().route = Some(route);
    }

    /// The status of its answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.notes().status = Some(status);
    }

    /// The status of a call of gRPC.
    pub(crate) fn called(&self, code: Code) {
        self.notes().grpc_status = Some(code);
    }

    /// The level while it was answered.
    pub(crate) fn level(&self, level: Level) {
        self.notes().level = Some(level);
    }

    /// Why it has no good answer.
    pub(crate) fn problem(&self, code: &'static str) {
        self.notes().problem = Some(code);
    }

    /// Class of its texts.
    pub(crate) fn priority(&self, priority: &'static str) {
        self.notes().priority = Some(priority);
    }

    /// These texts, submitted together, have their embeddings.
    pub(crate) fn texts<'a>(
        &self,
        submitted_at: Instant,
        rows: impl IntoIterator<Item = &'a Embedding>,
    ) {
        let mut notes = self.notes();
        rows.into_iter().for_each(|row| notes.text(submitted_at, row));
    }

    /// Everything noted, at the end.
    pub(super) fn finish(&self) -> Notes {
        let mut notes = self.notes();
        notes.ended = Some(Instant::now());
        notes.clone()
    }
}

/// The method, if it is one of those that the conventions list.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests;
