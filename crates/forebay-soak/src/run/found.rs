//! What a run found: figures, looks, and what the checker says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::faults::FaultSeen;
use crate::heartbeat::Beats;
use crate::observer::{DeviceSample, LevelChange};
use crate::samples::{Restart, Sample};
use crate::stats::{Drift, FaultTally, Growth, Interval, Spread, Tallied};

/// What a run found. Times are seconds since the measured part began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// The target.
    pub target: String,
    /// Whether it was broken off.
    pub interrupted: bool,
    /// Length of the measured part in seconds.
    pub measured_s: f64,
    /// The counts and latencies.
    pub tallied: Tallied,
    /// How late the harness itself was.
    #[serde(default)]
    pub beats: Beats,
    /// The same over time.
    pub intervals: Vec<Interval>,
    /// Length of an interval in seconds.
    pub interval_s: f64,
    /// The level at which every worker serves; `None` if the target is none that tells.
    pub best_level: Option<String>,
    /// The level at the end.
    pub level_at_end: Option<String>,
    /// The level over time.
    pub levels: Vec<LevelChange>,
    /// Seconds in each level.
    pub level_s: BTreeMap<String, f64>,
    /// Faults that were planned; those that healing left no time for were not injected.
    pub faults_planned: usize,
    /// The faults, and what was seen of each.
    pub faults: Vec<FaultSeen>,
    /// What came of requests while each was not over.
    pub fault_windows: Vec<FaultTally>,
    /// How long it took until faults were noticed.
    #[serde(default)]
    pub detected: Option<Spread>,
    /// Until the level was lower.
    #[serde(default)]
    pub demoted: Option<Spread>,
    /// Until everything was back.
    #[serde(default)]
    pub healed: Option<Spread>,
    /// Workers that took the place of others.
    #[serde(default)]
    pub restarts: Vec<Restart>,
    /// Memory and counters of the target's processes.
    pub samples: Vec<Sample>,
    /// What its devices showed.
    pub devices: Vec<DeviceSample>,
    /// The growth of each process.
    pub growth: Vec<Growth>,
    /// Whether processes were seen at rest both before the load and after it.
    #[serde(default)]
    pub seen_at_rest: bool,
    /// Counters that changed from rest to rest.
    pub drifts: Vec<Drift>,
    /// Energy of 1,000 texts in joules, where devices show what they draw.
    pub joules_per_1k_texts: Option<f64>,
    /// Requests that the checker saw, warm-up included.
    pub checked_requests: u64,
    /// Texts that the checker saw, warm-up included.
    pub checked_texts: u64,
    /// How often each promise is broken.
    pub broken: BTreeMap<String, u64>,
    /// The first break, in words.
    pub counter_example: Option<String>,
    /// The request of the first break.
    pub counter_example_request: Option<u64>,
    /// Different vectors that came.
    pub vectors: u64,
    /// More than may be kept.
    pub too_many_vectors: bool,
    /// Why the history is not whole or was not judged, if so.
    #[serde(default)]
    pub not_judged: Option<String>,
}
