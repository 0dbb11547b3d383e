//! What is counted of spans on their way to the collector.

use std::sync::OnceLock;

use forebay::metrics::names::{Kind, LabelSet, Metric, Unit};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, with_recorder};

/// Why spans did not reach the collector, or were not kept by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// `tracing.queue_requests_max` requests were waiting.
    Queue,
    /// The collector could not be reached, refused the batch, or took too long.
    Export,
    /// The collector took the batch, but not these spans of it.
    Rejected,
    /// The daemon ended before they were sent.
    End,
}

const REASONS: [&str; 4] = ["queue", "export", "rejected", "end"];

const EXPORTED: Metric = Metric {
    name: "forebay_spans_exported_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    help: "Spans of traces that the collector has taken",
    watch: "",
};
const DROPPED: Metric = Metric {
    name: "forebay_spans_dropped_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[LabelSet { name: "reason", values: &REASONS }],
    help: "Spans of traces that will not be found, by why",
    watch: "any rise: the collector is away or too slow, or `tracing.sample_ratio` is too high",
};
const WAITING: Metric = Metric {
    name: "forebay_traces_waiting",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Traced requests that wait to be sent to the collector",
    watch: "near `tracing.queue_requests_max`",
};
const EXPORT_SECONDS: Metric = Metric {
    name: "forebay_trace_export_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time until the collector answered, or was given up",
    watch: "near `tracing.export_deadline_ms`",
};

/// Every metric of this module; they are recorded while there are traces.
pub(crate) const TRACE_METRICS: &[Metric] = &[EXPORTED, DROPPED, WAITING, EXPORT_SECONDS];

/// The handles.
pub(super) struct TraceMetrics {
    pub(super) exported: Counter,
    dropped: [Counter; REASONS.len()],
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
        let metadata = Metadata::new("forebay", Level::INFO, None);
        with_recorder(|recorder| {
            for Metric { name, kind, help, .. } in TRACE_METRICS {
                let (name, help) = ((*name).into(), (*help).into());
                match kind {
                    Kind::Counter => recorder.describe_counter(name, None, help),
                    Kind::Gauge => recorder.describe_gauge(name, None, help),
                    Kind::Histogram => recorder.describe_histogram(name, None, help),
                }
            }
            let dropped = |reason: &&'static str| {
                let label = Label::from_static_parts("reason", reason);
                let key = Key::from_parts(DROPPED.name, vec![label]);
                recorder.register_counter(&key, &metadata)
            };
            Self {
                exported: recorder.register_counter(&EXPORTED.name.into(), &metadata),
                dropped: REASONS.each_ref().map(dropped),
                waiting: recorder.register_gauge(&WAITING.name.into(), &metadata),
                export_seconds: recorder.register_histogram(&EXPORT_SECONDS.name.into(), &metadata),
            }
        })
    }

    /// So many spans will not be found.
    pub(super) fn dropped(&self, reason: Dropped, spans: usize) {
        // One handle per reason.
        self.dropped[reason as usize].increment(spans as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_where_their_words_are() {
        let all = [Dropped::Queue, Dropped::Export, Dropped::Rejected, Dropped::End];
        for (reason, word) in all.into_iter().zip(REASONS) {
            assert_eq!(REASONS[reason as usize], word);
            assert_eq!(format!("{reason:?}").to_lowercase(), word);
        }
    }
}
