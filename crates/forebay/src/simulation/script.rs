//! What a seed stands for: which rungs there are, how fast they are, and the numbers by which the
//! runtime goes, small enough that a history of seconds comes to everything that takes minutes in
//! service.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use crate::batch::BatchPolicy;
use crate::config::{AdmissionConfig, Device, HedgeConfig, SupervisorConfig};
use crate::dispatch::core::CoreSettings;
use crate::supervisor::Limits;

/// How late an answer to a deadline may be.
pub(super) const SLACK: Duration = Duration::from_millis(5);
/// How long accepted texts wait while nothing serves.
pub(super) const GRACE: Duration = Duration::from_millis(800);
/// From one check of the known answers to the next.
pub(super) const CANARY_INTERVAL: Duration = Duration::from_millis(700);
/// Time for a process to end by itself, and then to be reaped.
pub(super) const KILL_GRACE: Duration = Duration::from_millis(100);
pub(super) const REAP_DEADLINE: Duration = Duration::from_millis(1_000);
/// Time within which the best level is back after the last fault: two probes, the longest probation
/// and what starts take.
pub(super) const HEAL: Duration = Duration::from_secs(60);

/// One rung.
#[derive(Debug, Clone, Copy)]
pub(super) struct RungScript {
    pub(super) device: Device,
    pub(super) tokens_per_ms: usize,
    pub(super) slots: usize,
    pub(super) side_by_side: u32,
}

/// The ladder of this history, best rung first.
pub(super) fn rungs(random: &mut SmallRng) -> Vec<RungScript> {
    let gpus = [0, 1, 2, 2, 2, 3][random.random_range(0..6)];
    let mut rungs: Vec<RungScript> = (0..gpus)
        .map(|index| RungScript {
            device: Device::Cuda(index),
            tokens_per_ms: random.random_range(200..2_000),
            slots: random.random_range(2..5),
            side_by_side: 1,
        })
        .collect();
    if rungs.is_empty() || random.random_bool(0.9) {
        let tokens_per_ms = random.random_range(10..60);
        let side_by_side = random.random_range(1..=2);
        rungs.push(RungScript { device: Device::Cpu, tokens_per_ms, slots: 3, side_by_side });
    }
    rungs
}

/// What the ladder goes by.
pub(super) fn limits() -> Limits {
    let restarts = SupervisorConfig {
        backoff_min_ms: 50,
        backoff_max_ms: 1_000,
        restarts_max: 5,
        restart_window_ms: 10_000,
        quarantine_probe_ms: vec![1_000, 2_000],
        dwell_min_ms: 100,
        dwell_max_ms: 1_600,
        probation_batches: 4,
        clean_ms: 20_000,
        ..SupervisorConfig::default()
    };
    Limits { restarts, canary_interval: CANARY_INTERVAL }
}

fn batch_policy(entries_max: usize) -> BatchPolicy {
    BatchPolicy {
        tokens_max: 512,
        rows_max: 24,
        max_wait: Duration::from_millis(2),
        interactive_ageing: Duration::from_millis(20),
        bulk_ageing: Duration::from_millis(100),
        entries_max,
        duration_target: Duration::from_millis(10),
        bulk_duration_target: Duration::from_millis(40),
        tokens_min: 8,
    }
}

/// What the dispatcher goes by.
pub(super) fn core_settings(hedge: HedgeConfig, entries_max: usize) -> CoreSettings {
    CoreSettings {
        batch: batch_policy(entries_max),
        hedge,
        waits_max: admission().waits_max(),
        down_grace: GRACE,
        deadline_slack: SLACK,
    }
}

/// How much runs a second time.
pub(super) fn hedging(random: &mut SmallRng) -> HedgeConfig {
    HedgeConfig {
        samples_min: 4,
        floor_ms: 20,
        rerun_min: if random.random_bool(0.1) { 4 } else { 4_096 },
        rerun_window_ms: 1_000,
        ..HedgeConfig::default()
    }
}

/// What the gate goes by.
pub(super) fn admission() -> AdmissionConfig {
    AdmissionConfig {
        control_requests_max: 16,
        interactive_requests_max: 96,
        bulk_requests_max: 192,
        control_wait_ms_max: 1_000,
        interactive_wait_ms_max: 2_000,
        bulk_wait_ms_max: 4_000,
        ..AdmissionConfig::default()
    }
}
