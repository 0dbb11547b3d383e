//! The result of a run, put together from what was measured, recorded and judged. Each part names all
//! of its fields here, so that none is forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::follow::FaultSeen;
use crate::heartbeat::Beats;
use crate::observer::{DeviceSample, LevelChange};
use crate::recorder::Recorded;
use crate::samples::{self, Restart, Sample};
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
    /// From the end of each until everything was back.
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

/// What was seen of the target and of the harness.
pub(super) struct Measured {
    pub(super) target: String,
    pub(super) interrupted: bool,
    pub(super) measured_s: f64,
    pub(super) beats: Beats,
    pub(super) best_level: Option<String>,
    pub(super) level_at_end: Option<String>,
    pub(super) levels: Vec<LevelChange>,
    pub(super) faults_planned: usize,
    pub(super) faults: Vec<FaultSeen>,
    pub(super) samples: Vec<Sample>,
    pub(super) devices: Vec<DeviceSample>,
    pub(super) growth: Vec<Growth>,
    pub(super) seen_at_rest: bool,
    pub(super) drifts: Vec<Drift>,
}

/// What the checker says; nothing, if it failed, but why.
pub(super) type Checked = Result<forebay_checker::Verdict, String>;

impl Run {
    /// The whole; `history` is the name of the history, for the counter-example.
    pub(super) fn of(
        measured: Measured,
        recorded: Recorded,
        checked: Checked,
        history: &str,
    ) -> Self {
        let Measured {
            target,
            interrupted,
            measured_s,
            beats,
            best_level,
            level_at_end,
            levels,
            faults_planned,
            faults,
            samples,
            devices,
            growth,
            seen_at_rest,
            drifts,
        } = measured;
        let Recorded { tallied, intervals, interval_s, windows, too_many_vectors, history_failed } =
            recorded;
        // The figures of a night are not thrown away for it, but nothing is proved.
        let not_judged = history_failed.or(checked.as_ref().err().cloned());
        let mut verdict = checked.unwrap_or_default();
        if not_judged.is_some() {
            // What its end would say is not in it, and that is known.
            verdict.broken.remove(forebay_checker::WHOLE);
            verdict.broken.remove(forebay_checker::FORM);
        }
        let first = verdict.first();
        let words = |first: &forebay_checker::CounterExample| {
            format!("{} ({history}:{}): {}", first.promise, first.line, first.what)
        };
        let counts = verdict.broken.iter().map(|(name, broken)| ((*name).to_owned(), broken.count));
        Self {
            target,
            interrupted,
            measured_s,
            joules_per_1k_texts: energy(&devices, tallied.texts),
            tallied,
            beats,
            intervals,
            interval_s,
            best_level,
            level_at_end,
            level_s: level_seconds(&levels, measured_s),
            levels,
            faults_planned,
            detected: Spread::of(faults.iter().filter_map(|fault| fault.detected_ms)),
            demoted: Spread::of(faults.iter().filter_map(|fault| fault.demoted_ms)),
            healed: Spread::of(faults.iter().filter_map(|fault| fault.healed_ms)),
            faults,
            fault_windows: windows,
            restarts: samples::restarts(&samples),
            samples,
            devices,
            growth,
            seen_at_rest,
            drifts,
            checked_requests: verdict.counts.requests,
            checked_texts: verdict.counts.texts,
            broken: counts.collect(),
            counter_example: first.map(words),
            counter_example_request: first.and_then(|first| first.request),
            vectors: verdict.counts.vectors,
            too_many_vectors,
            not_judged,
        }
    }
}

fn level_seconds(levels: &[LevelChange], end_s: f64) -> BTreeMap<String, f64> {
    let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
    let ends = levels.iter().skip(1).map(|change| change.at_s).chain([end_s]);
    for (change, end) in levels.iter().zip(ends) {
        *seconds.entry(change.level.clone()).or_default() += (end - change.at_s).max(0.0);
    }
    seconds
}

/// Joules per 1,000 texts: power over time, all devices together.
fn energy(devices: &[DeviceSample], texts: u64) -> Option<f64> {
    let mut last: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut joules = 0.0;
    for sample in devices.iter().filter(|sample| sample.name.ends_with("power_watts")) {
        let now = (sample.at_s, sample.value);
        if let Some((at_s, watts)) = last.insert(&sample.device, now) {
            joules += (sample.at_s - at_s) * (watts + sample.value) / 2.0;
        }
    }
    (texts > 0 && joules > 0.0).then(|| joules * 1000.0 / texts as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_levels_adds_up_and_energy_is_power_over_time() {
        let change = |at_s, level: &str| LevelChange { at_s, level: level.to_owned() };
        let levels = [change(0.0, "cpu"), change(4.0, "down"), change(5.0, "cpu")];
        let seconds = level_seconds(&levels, 10.0);
        assert_eq!((seconds["cpu"], seconds["down"]), (9.0, 1.0));
        let sample = |at_s, value| DeviceSample {
            at_s,
            name: "forebay_device_power_watts".to_owned(),
            device: "cuda:0".to_owned(),
            value,
        };
        let joules = energy(&[sample(0.0, 100.0), sample(2.0, 300.0)], 4000).unwrap();
        assert!((joules - 100.0).abs() < 1e-9, "{joules}");
        assert_eq!(energy(&[], 5), None);
    }
}
