//! What is counted of spans on their way to the collector.

use std::sync::OnceLock;

use forebay::metrics::LabelValue;
use forebay::metrics::handles::{ByLabel, describe, plain};
use forebay::{metric_label, metric_list};
use metrics::{Counter, Gauge, Histogram};

metric_label! {
    /// Why spans did not reach the collector, or were not kept by it.
    pub(super) enum Dropped as "reason" {
        /// `tracing.queue_requests_max` requests were waiting.
        Queue = "queue",
        /// The collector could not be reached, refused the batch, or took too long.
        Export = "export",
        /// The collector took the batch, but not these spans of it.
        Rejected = "rejected",
        /// The daemon ended before they were sent.
        End = "end",
    }
}

metric_list! {
    /// Every metric of this module; they are recorded while there are traces.
    pub(crate) const TRACE_METRICS;
    EXPORTED = "forebay_spans_exported_total", Counter, Count, [],
        "Spans of traces that the collector has taken", watch "";
    DROPPED = "forebay_spans_dropped_total", Counter, Count, [Dropped::SET],
        "Spans of traces that will not be found, by why",
        watch "any rise: the collector is away or too slow, or `tracing.sample_ratio` is too high";
    WAITING = "forebay_traces_waiting", Gauge, Count, [],
        "Traced requests that wait to be sent to the collector",
        watch "near `tracing.queue_requests_max`";
    EXPORT_SECONDS = "forebay_trace_export_seconds", Histogram, Seconds, [],
        "Time until the collector answered, or was given up",
        watch "near `tracing.export_deadline_ms`";
}

/// The handles.
pub(super) struct TraceMetrics {
    pub(super) exported: Counter,
    dropped: ByLabel<Dropped, Counter>,
    pub(super) waiting: Gauge,
    pub(super) export_seconds: Histogram,
}

impl TraceMetrics {
    /// The handles of the recorder that is installed when this is first called.
    pub(super) fn get() -> &'static Self {
        static METRICS: OnceLock<TraceMetrics> = OnceLock::new();
        METRICS.get_or_init(Self::new)
    }

    fn new() -> Self {
        describe(TRACE_METRICS);
        Self {
            exported: plain(&EXPORTED),
            dropped: ByLabel::new(&DROPPED),
            waiting: plain(&WAITING),
            export_seconds: plain(&EXPORT_SECONDS),
        }
    }

    /// So many spans will not be found.
    pub(super) fn dropped(&self, reason: Dropped, spans: usize) {
        self.dropped.of(reason).increment(spans as u64);
    }
}
