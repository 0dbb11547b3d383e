//! Every metric of the runtime, declared once: name, kind, unit, labels, meaning and what to watch
//! for. `docs/metrics.md` is this list as a table, and a test keeps the two equal. Nothing is
//! recorded here.
//!
//! Names follow the Prometheus conventions: base units at the end, `_total` for counters. Counters
//! of the `metrics` crate are whole numbers, so times that add up are counted in microseconds.

use super::labels::{
    AnswerDropped, CanaryVerdict, LabelValue, Outcome, RefusedBy, ReplyCheck, RestartCause, Stage,
    Unserved,
};
use crate::batch::SealReason;
use crate::priority::Priority;

/// How the values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; starts at 0 with the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution in buckets.
    Histogram,
}

/// What a metric is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things that are counted; the name says which.
    Count,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Microseconds,
    /// Tokens.
    Tokens,
    /// Rows: one text each.
    Rows,
    /// A share from 0 to 1.
    Ratio,
    /// Bytes.
    Bytes,
    /// Degrees Celsius.
    Celsius,
    /// Watts.
    Watts,
}

/// A label of a metric with the values that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelSet {
    /// The label's name.
    pub name: &'static str,
    /// Every value; empty if they are known only at run time, such as the configured devices.
    pub values: &'static [&'static str],
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [LabelSet],
    /// What it says.
    pub help: &'static str,
    /// What an operator should look out for; empty if it only explains others.
    pub watch: &'static str,
}

/// The label that names a rung of the ladder by its device, such as `cpu` or `cuda:0`.
pub const RUNG: LabelSet = LabelSet { name: "rung", values: &[] };

/// Declares metrics, each as a constant, and the list of them.
///
/// For a crate beside this one that has metrics of its own.
#[macro_export]
macro_rules! metric_list {
    (
        $(#[doc = $doc:literal])+
        $vis:vis const $LIST:ident;
        $(
            $CONST:ident = $name:literal, $kind:ident, $unit:ident, [$($label:expr),*],
            $help:literal, watch $watch:literal;
        )+
    ) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            $vis const $CONST: $crate::metrics::names::Metric = $crate::metrics::names::Metric {
                name: $name,
                kind: $crate::metrics::names::Kind::$kind,
                unit: $crate::metrics::names::Unit::$unit,
                labels: &[$($label),*],
                help: $help,
                watch: $watch,
            };
        )+

        $(#[doc = $doc])+
        $vis const $LIST: &[$crate::metrics::names::Metric] = &[$($CONST),+];
    };
}

metric_list! {
    /// Every metric, in the order of the documentation.
    pub const ALL;
    REQUESTS = "forebay_requests_total", Counter, Count, [Priority::SET, Outcome::SET],
        "Requests that ended, by how; a refused one ends at once",
        watch "any rise of `internal`, `worker_lost` or `poison`; \
            `deadline` or `overloaded` above a few percent";
    ACCEPTED = "forebay_requests_accepted_total", Counter, Count, [Priority::SET],
        "Requests that were let in; each of them ends exactly once", watch "";
    REFUSED = "forebay_requests_refused_total", Counter, Count, [Priority::SET, RefusedBy::SET],
        "Requests that were not let in, by the limit that refused them",
        watch "a steady rate: the load is above what the machine can serve";
    IN_FLIGHT = "forebay_requests_in_flight", Gauge, Count, [Priority::SET],
        "Requests accepted and not yet ended",
        watch "stays above 0 while `forebay_requests_total` stands still";
    REQUEST_SECONDS = "forebay_request_seconds", Histogram, Seconds, [Priority::SET],
        "Time from acceptance to the answer, whatever it was",
        watch "high quantiles of `control` near its deadlines";
    STAGE_SECONDS = "forebay_stage_seconds", Histogram, Seconds, [Stage::SET],
        "Time that a request or batch spent in a stage",
        watch "the stage that grows when latency grows";
    BLOCKED = "forebay_stage_blocked_microseconds_total", Counter, Microseconds, [Stage::SET],
        "Time that a stage waited for room in the next one",
        watch "near 1,000,000 per second: the stage after it is the bottleneck";
    QUEUE_ROWS = "forebay_queue_rows", Gauge, Rows, [Priority::SET],
        "Tokenized texts that wait for a batch", watch "near the class's limit for long";
    QUEUE_TOKENS = "forebay_queue_tokens", Gauge, Tokens, [Priority::SET],
        "Tokens of those texts", watch "";
    UNSERVED = "forebay_requests_unserved_total", Counter, Count, [Unserved::SET],
        "Accepted requests that were dropped before any model work was spent on them",
        watch "a steady rate of `expired`: deadlines are shorter than the queue";
    TRUNCATIONS = "forebay_truncations_total", Counter, Rows, [],
        "Texts that were cut to the model's limit",
        watch "a share that surprises: the end of those texts is not in their embedding";
    BATCHES = "forebay_batches_total", Counter, Count, [SealReason::SET],
        "Batches sealed, by what ended the wait for more", watch "";
    BATCH_ROWS = "forebay_batch_rows", Histogram, Rows, [],
        "Texts in a batch", watch "";
    BATCH_TOKENS = "forebay_batch_tokens", Histogram, Tokens, [],
        "Tokens in a batch", watch "";
    BATCH_WAIT_SECONDS = "forebay_batch_wait_seconds", Histogram, Seconds, [],
        "How long the oldest text of a batch had waited when the batch was sealed", watch "";
    BATCH_FILL_RATIO = "forebay_batch_fill_ratio", Histogram, Ratio, [],
        "Tokens in a batch as a share of what it was allowed to have", watch "";
    TOKENS = "forebay_tokens_total", Counter, Tokens, [],
        "Tokens of texts that were computed", watch "";
    PADDING_TOKENS = "forebay_padding_tokens_total", Counter, Tokens, [],
        "Tokens that were computed only to fill up shorter texts",
        watch "more than a tenth of `forebay_tokens_total`";
    LEVEL = "forebay_level", Gauge, Count, [],
        "Service level: 0 down, 1 CPU, 1 + n for n GPUs",
        watch "0 for any time; below the usual level";
    SLOTS = "forebay_slots", Gauge, Count, [RUNG],
        "Slots of a serving worker; 0 while it does not serve",
        watch "0 on a rung that should serve";
    SLOTS_FREE = "forebay_slots_free", Gauge, Count, [RUNG],
        "Slots of a serving worker that hold no batch",
        watch "always all of them under load: something before the workers is the bottleneck";
    QUARANTINED = "forebay_rung_quarantined", Gauge, Count, [RUNG],
        "1 while a rung is only probed because its worker failed too often", watch "1";
    WORKER_RESTARTS = "forebay_worker_restarts_total", Counter, Count, [RUNG, RestartCause::SET],
        "Workers that were replaced, by why", watch "any rise";
    WORKER_START_SECONDS = "forebay_worker_start_seconds", Histogram, Seconds, [RUNG],
        "Time from the start of a worker process until it served",
        watch "near `worker.start_deadline_ms`";
    BATCHES_RERUN = "forebay_batches_rerun_total", Counter, Count, [],
        "Batches that were sent a second time because their worker was lost or late",
        watch "any rise";
    REQUEUED = "forebay_requests_requeued_total", Counter, Rows, [],
        "Texts that were put back to be computed again after their worker was lost or late",
        watch "";
    HEDGED = "forebay_requests_hedged_total", Counter, Rows, [],
        "Texts that were given to a second worker because their batch was late",
        watch "a steady rate: a device is slow, or `hedge.floor_ms` is short for this machine";
    RERUNS_REFUSED = "forebay_reruns_refused_total", Counter, Rows, [],
        "Texts that were not computed again because the budget for second runs was used up",
        watch "any rise: devices fail faster than the others can make good";
    CANARIES = "forebay_canaries_total", Counter, Count, [RUNG, CanaryVerdict::SET],
        "Batches of known answers that came back, by what they showed", watch "any `wrong`";
    ADMISSION_LIMIT = "forebay_admission_limit", Gauge, Rows, [Priority::SET],
        "Requests that may be under way now: the configured number, or what the workers that serve \
            compute within the class's longest wait",
        watch "far below the configured number: capacity is short";
    SUSPECTS = "forebay_suspects_total", Counter, Rows, [],
        "Texts that were in a worker when it died and therefore run alone",
        watch "a rise with `outcome=\"poison\"`: texts that kill their worker";
    ANSWERS_DROPPED = "forebay_answers_dropped_total", Counter, Count, [AnswerDropped::SET],
        "Answers of workers that were not used", watch "`duplicate` or `stale` without a restart";
    REPLY_CHECK_FAILURES = "forebay_reply_check_failures_total", Counter, Count, [ReplyCheck::SET],
        "Answers that were refused because they are not embeddings",
        watch "any rise: memory or a device is faulty, or the model is";
    EVENTS = "forebay_events_total", Counter, Count, [],
        "Events that were recorded", watch "";
    EVENTS_WAITING = "forebay_events_waiting", Gauge, Count, [],
        "Events that are not in the log on disk yet", watch "stays above 0: the disk is slow or full";
    EVENTS_LOST = "forebay_events_lost_total", Counter, Count, [],
        "Events that waited too long for the disk and will not be in the log",
        watch "any rise: the log says how many are missing, and where";
    EVENT_LOG_FAILURES = "forebay_event_log_failures_total", Counter, Count, [],
        "Times that the log could not be written", watch "any rise: the disk is full or failing";
    DEVICE_TEMPERATURE = "forebay_device_temperature_celsius", Gauge, Celsius, [RUNG],
        "Temperature of a GPU", watch "near its slowdown temperature";
    DEVICE_POWER = "forebay_device_power_watts", Gauge, Watts, [RUNG],
        "Power that a GPU draws", watch "";
    DEVICE_MEMORY_USED = "forebay_device_memory_used_bytes", Gauge, Bytes, [RUNG],
        "Memory of a GPU in use, by any process", watch "a steady rise";
    DEVICE_UTILISATION = "forebay_device_utilisation_ratio", Gauge, Ratio, [RUNG],
        "Share of the last sampling period in which a kernel ran on a GPU", watch "";
    DEVICE_CLOCKS_EVENT_REASONS = "forebay_device_clocks_event_reasons", Gauge, Count, [RUNG],
        "Why clocks of a GPU are lowered, as NVML's bits",
        watch "64 (hardware thermal slowdown) or 128 (power brake) in it";
    DEVICE_RECOVERY_ACTION = "forebay_device_recovery_action", Gauge, Count, [RUNG],
        "What the driver wants done with a GPU: 0 nothing, 1 reset, 2 reboot, others as in NVML",
        watch "anything but 0";
    DEVICE_XIDS = "forebay_device_xids_total", Counter, Count, [RUNG],
        "Errors (Xids) of a GPU that the driver has reported", watch "any rise";
    DEVICE_NONSENSE = "forebay_device_nonsense_total", Counter, Count, [RUNG],
        "Values reported of a GPU that cannot be and are taken as unknown", watch "any rise";
    MONITOR_RESTARTS = "forebay_monitor_restarts_total", Counter, Count, [],
        "Processes that watch the devices and were replaced, as they ended or did not report in time",
        watch "any rise: NVML hangs or crashes";
    MONITOR_STUCK = "forebay_monitor_stuck", Gauge, Count, [],
        "1 while such a process has been killed and does not end",
        watch "1: the driver hangs; the devices are unknown";
    MONITOR_LAST_REPORT = "forebay_monitor_last_report_timestamp_seconds", Gauge, Seconds, [],
        "When the devices were last heard of, in Unix time",
        watch "`time()` minus this above `health.report_deadline_ms`";
}
