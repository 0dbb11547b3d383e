//! Settings that are times, as [`Duration`]s and under their names without the unit.

use std::time::Duration;

use super::{
    AdmissionConfig, BatchConfig, CudaConfig, HealthConfig, LanesConfig, MetricsConfig,
    ReplyConfig, ShutdownConfig, SupervisorConfig, WorkerConfig,
};

/// `method: key` pairs of one group.
macro_rules! milliseconds {
    ($Group:ident { $($method:ident: $key:ident),+ $(,)? }) => {
        impl $Group {
            $(
                #[doc = concat!("`", stringify!($key), "` as a duration.")]
                #[must_use]
                pub const fn $method(&self) -> Duration {
                    Duration::from_millis(self.$key as u64)
                }
            )+
        }
    };
}

milliseconds!(WorkerConfig {
    start_deadline: start_deadline_ms,
    drain_deadline: drain_deadline_ms,
});
milliseconds!(CudaConfig { probe_deadline: probe_deadline_ms });
milliseconds!(AdmissionConfig { retry_after_min: retry_after_min_ms, down_grace: down_grace_ms });
milliseconds!(BatchConfig {
    max_wait: max_wait_ms,
    duration_target: duration_target_ms,
    bulk_duration_target: bulk_duration_target_ms,
    interactive_ageing: interactive_ageing_ms,
    bulk_ageing: bulk_ageing_ms,
});
milliseconds!(ReplyConfig { deadline_slack: deadline_slack_ms });
milliseconds!(SupervisorConfig {
    backoff_min: backoff_min_ms,
    backoff_max: backoff_max_ms,
    backoff_alone_max: backoff_alone_max_ms,
    restart_window: restart_window_ms,
    dwell_min: dwell_min_ms,
    dwell_max: dwell_max_ms,
    lapse: lapse_ms,
    lapse_gap: lapse_gap_ms,
    clean: clean_ms,
    kill_grace: kill_grace_ms,
    reap_deadline: reap_deadline_ms,
});
milliseconds!(HealthConfig {
    start_deadline: start_deadline_ms,
    report_deadline: report_deadline_ms,
    xid_recent: xid_recent_ms,
    backoff_min: backoff_min_ms,
    backoff_max: backoff_max_ms,
    reap_deadline: reap_deadline_ms,
});
milliseconds!(ShutdownConfig { drain: drain_ms });
milliseconds!(MetricsConfig { prometheus_interval: prometheus_interval_ms });

impl WorkerConfig {
    /// Time that a batch of `tokens` tokens may take before its worker counts as hung.
    #[must_use]
    pub const fn batch_deadline(&self, tokens: u64) -> Duration {
        let extra_ms = (self.batch_deadline_ms_per_1k_tokens as u64).saturating_mul(tokens) / 1_000;
        Duration::from_millis((self.batch_deadline_ms as u64).saturating_add(extra_ms))
    }
}

impl LanesConfig {
    /// How long a stage polls before it sleeps: zero unless `wait` is `spin`.
    #[must_use]
    pub const fn spin(&self) -> Duration {
        match self.wait {
            super::LaneWait::Park => Duration::ZERO,
            super::LaneWait::Spin => Duration::from_micros(self.spin_us as u64),
        }
    }
}

impl SupervisorConfig {
    /// Wait before probe number `nth` (from 0) of a quarantined rung; the last wait repeats.
    #[must_use]
    pub fn quarantine_probe(&self, nth: usize) -> Duration {
        let listed = self.quarantine_probe_ms.get(nth).or(self.quarantine_probe_ms.last());
        // An empty list does not pass `Config::validate`; the longest back-off stands in for it.
        Duration::from_millis(u64::from(*listed.unwrap_or(&self.backoff_max_ms)))
    }
}
