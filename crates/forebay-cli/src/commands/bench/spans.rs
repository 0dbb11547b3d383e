//! The host's own part of a timeline: a listener for the runtime's tracing spans that keeps when
//! each began and ended. It changes nothing and, when it is full, counts what it leaves out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Spans that are kept at most, some tens of megabytes.
const SPANS_MAX: usize = 200_000;

/// One span of the host on the system's monotonic clock, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HostSpan {
    pub(super) name: &'static str,
    pub(super) start_us: f64,
    pub(super) duration_us: f64,
    /// Its numbers, such as rows and tokens.
    pub(super) fields: Vec<(&'static str, u64)>,
}

/// Listens to spans from when it is made.
#[derive(Clone, Debug)]
pub(crate) struct SpanRecorder {
    kept: Arc<Mutex<Kept>>,
    /// An instant and the monotonic clock at that instant, in microseconds.
    anchor: (Instant, f64),
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<HostSpan>,
    left_out: u64,
}

/// When a span began, with its fields.
struct Begun {
    at: Instant,
    fields: Vec<(&'static str, u64)>,
}

struct Numbers(Vec<(&'static str, u64)>);

impl Visit for Numbers {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value));
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl SpanRecorder {
    /// Starts to listen once it is given to the log.
    pub(super) fn new() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3;
        Self { kept: Arc::default(), anchor: (Instant::now(), now_us) }
    }

    /// What it heard of spans that have ended, and how many it left out.
    pub(super) fn take(&self) -> (Vec<HostSpan>, u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut kept.spans), kept.left_out)
    }

    /// This listener for a registry, hearing the runtime's spans and nothing else.
    pub(crate) fn layer<S>(self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let heard = |metadata: &Metadata<'_>| {
            metadata.is_span()
                && *metadata.level() <= Level::DEBUG
                && metadata.target().starts_with("forebay")
        };
        self.with_filter(filter_fn(heard).with_max_level_hint(LevelFilter::DEBUG)).boxed()
    }

    fn keep(&self, name: &'static str, begun: &Begun, ended: Instant) {
        let start_us = self.anchor.1 + begun.at.duration_since(self.anchor.0).as_secs_f64() * 1e6;
        let duration_us = ended.duration_since(begun.at).as_secs_f64() * 1e6;
        let fields = begun.fields.clone();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.spans.len() < SPANS_MAX {
            kept.spans.push(HostSpan { name, start_us, duration_us, fields });
        } else {
            kept.left_out += 1;
        }
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for SpanRecorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Numbers(Vec::new());
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Begun { at: Instant::now(), fields: fields.0 });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let ended = Instant::now();
        let Some(span) = context.span(&id) else { return };
        let extensions = span.extensions();
        if let Some(begun) = extensions.get::<Begun>() {
            self.keep(span.name(), begun, ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn spans_of_the_runtime_are_kept_with_their_numbers_and_others_are_not() {
        let recorder = SpanRecorder::new();
        let subscriber = tracing_subscriber::registry().with(recorder.clone().layer());
        tracing::subscriber::with_default(subscriber, || {
            let outer =
                tracing::debug_span!(target: "forebay::batch", "batch", rows = 3_u64, word = "x");
            tracing::debug!(target: "forebay::batch", parent: &outer, "an event");
            tracing::debug_span!(target: "forebay", "reply").in_scope(|| {});
            drop(tracing::trace_span!(target: "forebay", "too fine"));
            drop(tracing::debug_span!(target: "another", "foreign"));
            drop(outer);
        });
        let (spans, left_out) = recorder.take();
        let names: Vec<&str> = spans.iter().map(|span| span.name).collect();
        assert_eq!((names, left_out), (vec!["reply", "batch"], 0));
        let (inner, outer) = (&spans[0], &spans[1]);
        assert_eq!(outer.fields, [("rows", 3)]);
        assert!(outer.start_us <= inner.start_us);
        assert!(outer.start_us + outer.duration_us >= inner.start_us + inner.duration_us - 1e-2);
    }
}
