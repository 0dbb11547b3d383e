//! Settings of the way of a request: lanes, admission, tokenizing, batching, reply; and of what is
//! reported about it.

use std::path::PathBuf;
use std::time::Duration;

use super::declare::Allowed::{Choice, Integer, Number, Path, Switch};
use super::declare::group;
use super::value::{LaneWait, LogFormat, LogLevel, thread_count};
use crate::priority::Priority;

group! {
    /// The bounded lanes between stages.
    LanesConfig as "lanes" {
        /// How a stage waits for work: "park" sleeps, "spin" polls first (lower latency, busy
        /// core).
        wait: LaneWait = LaneWait::Park, "", Choice(LaneWait::WORDS);
        /// How long "spin" polls before it sleeps.
        spin_us: u32 = 50, "us", Integer(0, 1_000);
        /// Tokenized groups of texts that may wait for the batcher.
        batcher_batches: u32 = 64, "batches", Integer(1, 4_096);
    }
}

group! {
    /// How much may be waiting, for each priority class; what goes beyond is refused at once.
    AdmissionConfig as "admission" {
        /// Requests of class control that are accepted and not yet answered.
        control_requests_max: u32 = 256, "requests", Integer(1, 1_048_576);
        /// Requests of class interactive that are accepted and not yet answered.
        interactive_requests_max: u32 = 4_096, "requests", Integer(1, 1_048_576);
        /// Requests of class bulk that are accepted and not yet answered.
        bulk_requests_max: u32 = 16_384, "requests", Integer(1, 1_048_576);
        /// Text of those control requests; counted in whole KiB per request.
        control_text_bytes_queued_max: u32 = 4_194_304, "bytes", Integer(1_024, 4_294_967_295);
        /// Text of those interactive requests; counted in whole KiB per request.
        interactive_text_bytes_queued_max: u32 = 33_554_432, "bytes", Integer(1_024, 4_294_967_295);
        /// Text of those bulk requests; counted in whole KiB per request.
        bulk_text_bytes_queued_max: u32 = 67_108_864, "bytes", Integer(1_024, 4_294_967_295);
        /// Expected time in the runtime above which control requests are refused: what the workers
        /// that serve are measured to compute within it may be under way. 0 sets no such limit.
        control_wait_ms_max: u32 = 1_000, "ms", Integer(0, 3_600_000);
        /// The same for interactive requests, which come after control.
        interactive_wait_ms_max: u32 = 5_000, "ms", Integer(0, 3_600_000);
        /// The same for bulk requests, which come last: where capacity drops they are shed first.
        bulk_wait_ms_max: u32 = 60_000, "ms", Integer(0, 3_600_000);
        /// Shortest time that a refusal asks the caller to wait, so that refused callers do not
        /// spin.
        retry_after_min_ms: u32 = 5, "ms", Integer(0, 60_000);
        /// How long accepted requests wait for a worker to come back while nothing serves.
        down_grace_ms: u32 = 60_000, "ms", Integer(0, 600_000);
    }
}

group! {
    /// Text to token ids.
    TokenizeConfig as "tokenize" {
        /// Tokenizer threads; 0 takes one per core up to 4, and half the cores, at most 16, where
        /// there are more than 8.
        threads: u32 = 0, "threads", Integer(0, 64);
        /// Longest text that is accepted; checked before any work is spent on it.
        text_bytes_max: u32 = 1_048_576, "bytes", Integer(1, 1_073_741_824);
        /// Cut a text that is longer than the model's limit (counted and reported) instead of
        /// refusing it; a request can say otherwise.
        truncate: bool = true, "", Switch;
    }
}

group! {
    /// How requests are put together for a worker. For a GPU, cuda.tokens_max and cuda.rows_max
    /// take the place of tokens_max and rows_max.
    BatchConfig as "batch" {
        /// Most tokens in a batch; it also sets the size of the memory shared with a worker.
        tokens_max: u32 = 16_384, "tokens", Integer(64, 1_048_576);
        /// The size that batches may shrink to when they take longer than the target.
        tokens_min: u32 = 512, "tokens", Integer(1, 1_048_576);
        /// Most texts in a batch; it also sets the size of the memory shared with a worker.
        rows_max: u32 = 512, "rows", Integer(1, 65_536);
        /// How long requests wait for company while every worker is busy; class control and an idle
        /// worker never wait. Where a worker computes batches side by side they wait for a quarter of
        /// the time that they will take if that is longer, but no longer than a batch should take.
        max_wait_ms: u32 = 2, "ms", Integer(0, 1_000);
        /// Time that a batch should take while class control or interactive waits: shorter lets
        /// the next one in sooner, longer wastes less.
        duration_target_ms: u32 = 25, "ms", Integer(1, 60_000);
        /// The same while only class bulk waits: an urgent request that comes late finds no more
        /// than this and what is queued in the worker in front of it.
        bulk_duration_target_ms: u32 = 100, "ms", Integer(1, 60_000);
        /// After this wait an interactive request gets a share of the batches that control would
        /// fill.
        interactive_ageing_ms: u32 = 200, "ms", Integer(1, 3_600_000);
        /// The same for a bulk request, so that it never starves; also its handicap against
        /// interactive.
        bulk_ageing_ms: u32 = 2_000, "ms", Integer(1, 3_600_000);
    }
}

group! {
    /// What is checked before an answer leaves.
    ReplyConfig as "reply" {
        /// How late after its deadline a request may still be told that the deadline has passed.
        deadline_slack_ms: u32 = 5, "ms", Integer(0, 10_000);
        /// How far from 1 the length of a normalised embedding may be before it counts as corrupt.
        norm_tolerance: f64 = 0.001, "", Number(0.000001, 0.1);
    }
}

group! {
    /// Where measurements go; docs/metrics.md lists them.
    MetricsConfig as "metrics" {
        /// File that is rewritten with all metrics in Prometheus text format.
        #[serde(with = "super::value::optional_path_text")]
        prometheus_file: Option<PathBuf> = None, "", Path("writing none");
        /// How often that file is rewritten.
        prometheus_interval_ms: u32 = 10_000, "ms", Integer(100, 3_600_000);
    }
}

group! {
    /// What the program logs, to standard error. An embedding application uses its own subscriber.
    LogConfig as "log" {
        /// Least severe event that is logged.
        level: LogLevel = LogLevel::Warn, "", Choice(LogLevel::WORDS);
        /// "text" for people, "json" for collectors.
        format: LogFormat = LogFormat::Text, "", Choice(LogFormat::WORDS);
    }
}

impl TokenizeConfig {
    /// Tokenizer threads that there are: [`TokenizeConfig::threads`], or what 0 takes.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        thread_count(self.threads, threads_for)
    }
}

/// Tokenizer threads for a machine of `cores`. One encodes some 150,000 short texts a second and a
/// GPU embeds a million; the other half of a large machine is for workers, replies and callers.
fn threads_for(cores: usize) -> usize {
    cores.clamp(1, 4).max((cores / 2).min(16))
}

/// Bounds of one priority class at admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// Requests accepted and not yet answered.
    pub requests_max: u32,
    /// Bytes of their text.
    pub text_bytes_queued_max: u32,
}

impl ClassLimits {
    /// The bound on text in whole KiB, rounded up: the granularity in which it is counted.
    #[must_use]
    pub const fn text_kib_queued_max(self) -> u32 {
        self.text_bytes_queued_max.div_ceil(1_024)
    }
}

impl AdmissionConfig {
    /// The expected time in the runtime above which a class is refused, by [`Priority::index`];
    /// `None` for no such limit.
    #[must_use]
    pub fn waits_max(&self) -> [Option<Duration>; 3] {
        [self.control_wait_ms_max, self.interactive_wait_ms_max, self.bulk_wait_ms_max]
            .map(|ms| (ms > 0).then(|| Duration::from_millis(u64::from(ms))))
    }

    /// The bounds of one priority class.
    #[must_use]
    pub const fn limits(&self, priority: Priority) -> ClassLimits {
        let (requests_max, text_bytes_queued_max) = match priority {
            Priority::Control => (self.control_requests_max, self.control_text_bytes_queued_max),
            Priority::Interactive => {
                (self.interactive_requests_max, self.interactive_text_bytes_queued_max)
            }
            Priority::Bulk => (self.bulk_requests_max, self.bulk_text_bytes_queued_max),
        };
        ClassLimits { requests_max, text_bytes_queued_max }
    }
}

#[cfg(test)]
mod tests {
    use super::threads_for;

    #[test]
    fn small_machines_tokenize_on_every_core_and_large_ones_on_half() {
        let of = [1, 2, 4, 8, 14, 16, 32, 128].map(threads_for);
        assert_eq!(of, [1, 2, 4, 4, 7, 8, 16, 16]);
    }
}
