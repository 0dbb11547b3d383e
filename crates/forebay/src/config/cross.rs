//! Rules between keys: combinations that are each in range and still cannot work together.

use super::Config;
use crate::priority::Priority;

/// Two settings that contradict each other.
pub(super) struct Clash {
    /// Both keys, the one to change first.
    pub(super) keys: [&'static str; 2],
    pub(super) message: String,
}

/// Every contradiction in `config`.
pub(super) fn clashes(config: &Config) -> Vec<Clash> {
    let Config { admission, tokenize, batch, supervisor, health, limits, .. } = config;
    let mut found = Vec::new();
    let mut at_most = |keys: [&'static str; 2], values: [u32; 2], why: &str| {
        let [key, limit_key] = keys;
        let [value, limit] = values;
        if value > limit {
            let message = format!(
                "`{key}` is {value} and `{limit_key}` is {limit}; the first must not be larger: \
                 {why}"
            );
            found.push(Clash { keys, message });
        }
    };
    at_most(
        ["batch.tokens_min", "batch.tokens_max"],
        [batch.tokens_min, batch.tokens_max],
        "batches shrink from the one to the other",
    );
    at_most(
        ["batch.duration_target_ms", "batch.bulk_duration_target_ms"],
        [batch.duration_target_ms, batch.bulk_duration_target_ms],
        "batches are shorter while somebody urgent waits",
    );
    at_most(
        ["supervisor.backoff_min_ms", "supervisor.backoff_max_ms"],
        [supervisor.backoff_min_ms, supervisor.backoff_max_ms],
        "the wait grows from the one to the other",
    );
    at_most(
        ["supervisor.backoff_min_ms", "supervisor.backoff_alone_max_ms"],
        [supervisor.backoff_min_ms, supervisor.backoff_alone_max_ms],
        "the second bounds the wait also where it is shortest",
    );
    at_most(
        ["supervisor.dwell_min_ms", "supervisor.dwell_max_ms"],
        [supervisor.dwell_min_ms, supervisor.dwell_max_ms],
        "a probation grows from the one to the other",
    );
    at_most(
        ["supervisor.backoff_min_ms", "supervisor.restart_window_ms"],
        [supervisor.backoff_min_ms, supervisor.restart_window_ms],
        "restarts further apart than the window would never be counted together",
    );
    at_most(
        ["health.interval_ms", "health.report_deadline_ms"],
        [health.interval_ms, health.report_deadline_ms],
        "every report would be late",
    );
    at_most(
        ["health.backoff_min_ms", "health.backoff_max_ms"],
        [health.backoff_min_ms, health.backoff_max_ms],
        "the wait grows from the one to the other",
    );
    at_most(
        ["batch.interactive_ageing_ms", "batch.bulk_ageing_ms"],
        [batch.interactive_ageing_ms, batch.bulk_ageing_ms],
        "interactive goes before bulk",
    );
    at_most(
        ["limits.body_bytes_max", "limits.body_bytes_under_way_max"],
        [limits.body_bytes_max, limits.body_bytes_under_way_max],
        "the largest body could never be read",
    );
    for (key, priority) in [
        ("admission.control_text_bytes_queued_max", Priority::Control),
        ("admission.interactive_text_bytes_queued_max", Priority::Interactive),
        ("admission.bulk_text_bytes_queued_max", Priority::Bulk),
    ] {
        at_most(
            ["tokenize.text_bytes_max", key],
            [tokenize.text_bytes_max, admission.limits(priority).text_bytes_queued_max],
            "the longest text could never be accepted",
        );
    }
    let probes = &supervisor.quarantine_probe_ms;
    let mut pairs = probes.iter().zip(probes.iter().skip(1));
    if let Some((longer, shorter)) = pairs.find(|(longer, shorter)| longer > shorter) {
        let key = "supervisor.quarantine_probe_ms";
        let message = format!(
            "`{key}` goes from {longer} down to {shorter} ms; waits must not become shorter"
        );
        found.push(Clash { keys: [key, key], message });
    }
    found
}
