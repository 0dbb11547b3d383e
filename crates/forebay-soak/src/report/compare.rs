//! Two reports beside each other: what got worse.

use serde::Serialize;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Report;
use crate::error::SoakError;
use crate::run::Run;
use crate::stats::Interval;
use crate::verdict::Code;

/// A latency may grow by this share.
const LATENCY_SHARE: f64 = 0.10;
/// And by this much at any rate: what is smaller is noise.
const LATENCY_MS: f64 = 0.2;
/// A rate may fall by this share.
const RATE_SHARE: f64 = 0.05;
/// A share of good answers may fall by this.
const GOOD_SHARE: f64 = 0.005;

/// Intervals without faults that both runs must have for the noise to be known from them.
const INTERVALS_MIN: usize = 10;
/// Draws of the bootstrap, and the lowest of them that must still be a change for the worse: 95 of 100
/// are beyond it.
const DRAWS: usize = 400;
const LOWEST: usize = DRAWS / 20;
/// Neighbouring intervals that are drawn together, as they are alike.
const BLOCK: usize = 5;

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub name: &'static str,
    /// In the first report.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// Whether the second is worse by more than noise.
    pub is_worse: bool,
}

/// Two reports beside each other.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Each figure.
    pub rows: Vec<Row>,
    /// Why the figures may not be comparable.
    pub cautions: Vec<String>,
}

impl Comparison {
    /// Whether anything got worse.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.rows.iter().any(|row| row.is_worse)
    }
}

/// Compares the first run of each report. Latencies and rates are judged outside of the windows of
/// faults: what a fault costs depends on when it struck.
///
/// # Errors
/// A report has no run, or one that was interrupted or is void.
pub fn compare(before: &Report, after: &Report) -> Result<Comparison, SoakError> {
    let first = |report: &Report| {
        let Some(judged) = report.runs.first() else {
            let message = "a report has no run that could be compared".to_owned();
            return Err(SoakError::Usage(message));
        };
        if matches!(judged.verdict.code, Code::Overloaded | Code::Interrupted) {
            let words = judged.verdict.code.words();
            let message = format!("a report cannot be compared: its verdict is \"{words}\"");
            return Err(SoakError::Usage(message));
        }
        Ok(judged.run.clone())
    };
    let (one, other) = (first(before)?, first(after)?);
    let mut cautions = Vec::new();
    let mut differs = |what: &str, one: String, other: String| {
        if one != other {
            cautions.push(format!("{what}: {one} before, {other} after"));
        }
    };
    differs("machine", format!("{:?}", before.machine), format!("{:?}", after.machine));
    differs("model", before.model.clone(), after.model.clone());
    differs("target", one.target.clone(), other.target.clone());
    differs("profile", before.profile.name.clone(), after.profile.name.clone());
    if before.profile.name == after.profile.name {
        let text = |report: &Report| format!("{:?}", report.profile.load);
        differs("load", text(before), text(after));
    }
    differs("seed", before.seed.to_string(), after.seed.to_string());
    Ok(Comparison { rows: rows(&one, &other), cautions })
}

/// The intervals in which no fault lasted.
fn calm(run: &Run) -> Vec<&Interval> {
    let is_calm = |interval: &&Interval| {
        let end_s = interval.at_s + run.interval_s;
        let overlaps = run.fault_windows.iter().any(|window| {
            window.from_s < end_s && window.to_s.is_none_or(|to_s| to_s >= interval.at_s)
        });
        !overlaps && interval.served > 0
    };
    run.intervals.iter().filter(is_calm).collect()
}

/// Whether a figure of calm intervals grew by more than their noise: whether in 95 of 100 draws of them
/// its mean is higher. With too few of them nothing speaks against it.
fn grew(one: &Run, other: &Run, of: fn(&Interval) -> f64) -> bool {
    let values = |run: &Run| calm(run).into_iter().map(of).collect::<Vec<f64>>();
    let (before, after) = (values(one), values(other));
    if before.len().min(after.len()) < INTERVALS_MIN {
        return true;
    }
    // The same reports give the same comparison.
    let mut random = SmallRng::seed_from_u64(0);
    let mut mean = |values: &[f64]| {
        let blocks = values.len().div_ceil(BLOCK);
        let sum: f64 = (0..blocks)
            .flat_map(|_| {
                let start = random.random_range(0..=values.len() - BLOCK);
                &values[start..start + BLOCK]
            })
            .sum();
        sum / (blocks * BLOCK) as f64
    };
    let mut growths: Vec<f64> = (0..DRAWS).map(|_| mean(&after) - mean(&before)).collect();
    growths.sort_by(f64::total_cmp);
    growths[LOWEST] > 0.0
}

fn rows(one: &Run, other: &Run) -> Vec<Row> {
    let plain = |name, of: fn(&Run) -> f64| Row {
        name,
        before: of(one),
        after: of(other),
        is_worse: false,
    };
    let latency = |name, of: fn(&Run) -> f64, of_interval: fn(&Interval) -> f64| {
        let row = plain(name, of);
        let is_more =
            row.after > row.before * (1.0 + LATENCY_SHARE) && row.after > row.before + LATENCY_MS;
        Row { is_worse: is_more && grew(one, other, of_interval), ..row }
    };
    let share = |run: &Run| run.tallied.good as f64 / run.tallied.offered.max(1) as f64;
    let rate = |run: &Run| {
        let calm = calm(run);
        let good: u64 = calm.iter().map(|interval| interval.good).sum();
        good as f64 / (calm.len() as f64 * run.interval_s).max(1e-9)
    };
    let has_faults = !one.faults.is_empty() || !other.faults.is_empty();
    let heal = |run: &Run| {
        let healed = run.faults.iter().filter_map(|fault| fault.healed_ms);
        healed.fold(0.0, f64::max)
    };
    let growth = |run: &Run| {
        let slopes = run.growth.iter().filter_map(|growth| Some(growth.mib_per_hour?.value));
        slopes.fold(0.0, f64::max)
    };
    let broken = |run: &Run| run.broken.values().sum::<u64>() as f64;
    let (heals, grows) = ((heal(one), heal(other)), (growth(one), growth(other)));
    vec![
        plain("p50_ms", |run| run.tallied.from_due.p50_ms),
        plain("p99_ms", |run| run.tallied.from_due.p99_ms),
        plain("p999_ms", |run| run.tallied.from_due.p999_ms),
        latency("calm_p50_ms", |run| run.tallied.calm.p50_ms, |interval| interval.p50_ms),
        latency("calm_p99_ms", |run| run.tallied.calm.p99_ms, |interval| interval.p99_ms),
        latency("calm_p999_ms", |run| run.tallied.calm.p999_ms, |interval| interval.max_ms),
        Row {
            name: "calm_good_per_s",
            before: rate(one),
            after: rate(other),
            is_worse: rate(other) < rate(one) * (1.0 - RATE_SHARE)
                && grew(other, one, |interval| interval.good as f64),
        },
        Row {
            name: "good_share",
            before: share(one),
            after: share(other),
            // With faults it depends on when they struck; the verdict of the run has its objective.
            is_worse: !has_faults && share(other) < share(one) - GOOD_SHARE,
        },
        Row {
            name: "promises_broken",
            before: broken(one),
            after: broken(other),
            is_worse: broken(other) > broken(one),
        },
        // Where these are worse by themselves the verdict of the run says so.
        Row { name: "slowest_heal_ms", before: heals.0, after: heals.1, is_worse: false },
        Row { name: "growth_mib_per_hour", before: grows.0, after: grows.1, is_worse: false },
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::follow::FaultSeen;
    use crate::profile::Profile;
    use crate::stats::FaultTally;

    /// Thirty seconds of 100 requests each, with a 99th percentile that goes up and down by `noise`.
    fn run(p99_ms: f64, noise: f64, good: u64) -> Run {
        let interval = |at: u32| Interval {
            at_s: f64::from(at),
            offered: 100,
            served: 100,
            good,
            p99_ms: p99_ms + noise * (f64::from(at * 7 % 30) / 15.0 - 1.0),
            ..Interval::default()
        };
        let mut run = Run { measured_s: 30.0, interval_s: 1.0, ..Run::default() };
        run.intervals = (0..30).map(interval).collect();
        run.tallied.offered = 3000;
        run.tallied.good = good * 30;
        run.tallied.calm.p99_ms = p99_ms;
        run.tallied.from_due.p99_ms = p99_ms;
        run
    }

    fn worse(one: &Run, other: &Run) -> Vec<&'static str> {
        let rows = rows(one, other).into_iter().filter(|row| row.is_worse);
        rows.map(|row| row.name).collect()
    }

    #[test]
    fn what_got_worse_by_more_than_noise_is_named() {
        let none = [""; 0];
        assert_eq!(worse(&run(10.0, 1.0, 100), &run(10.9, 1.0, 100)), none);
        assert_eq!(worse(&run(10.0, 1.0, 100), &run(12.0, 1.0, 100)), ["calm_p99_ms"]);
        assert_eq!(worse(&run(1.0, 0.1, 100), &run(1.15, 0.1, 100)), none);
        assert_eq!(worse(&run(10.0, 40.0, 100), &run(12.0, 40.0, 100)), none);
        let fewer = worse(&run(10.0, 1.0, 100), &run(5.0, 1.0, 90));
        assert_eq!(fewer, ["calm_good_per_s", "good_share"]);
        let mut broken = run(10.0, 1.0, 100);
        broken.broken.insert("x".to_owned(), 1);
        assert_eq!(worse(&run(10.0, 1.0, 100), &broken), ["promises_broken"]);
    }

    #[test]
    fn when_faults_struck_is_no_change_for_the_worse() {
        let struck = |from_s: f64, to_s: f64| {
            let mut run = run(10.0, 1.0, 100);
            for interval in &mut run.intervals {
                if interval.at_s >= from_s && interval.at_s < to_s {
                    interval.p99_ms = 5000.0;
                    interval.good = 20;
                }
            }
            run.tallied.good = run.intervals.iter().map(|interval| interval.good).sum();
            run.tallied.from_due.p99_ms = 5000.0;
            run.faults = vec![FaultSeen::default()];
            run.fault_windows =
                vec![FaultTally { from_s, to_s: Some(to_s), ..FaultTally::default() }];
            run
        };
        let mut short = struck(3.0, 4.0);
        short.tallied.from_due.p99_ms = 50.0;
        assert_eq!(worse(&short, &struck(3.0, 12.0)), [""; 0]);
    }

    #[test]
    fn the_reports_of_the_repository_are_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reports");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let reports = files.filter(|path| path.extension().is_some_and(|name| name == "json"));
        let mut count = 0;
        for path in reports {
            let report = Report::read(&path).unwrap();
            let comparison = compare(&report, &report).unwrap();
            assert!(!comparison.is_worse(), "{}", path.display());
            count += 1;
        }
        assert!(count >= 3, "{count}");
    }

    #[test]
    fn the_profile_of_a_report_is_in_the_repository() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
        let report = Report::read(Path::new(&format!("{root}docs/reports/side.json"))).unwrap();
        let profile = Profile::load(&format!("{root}config/soak/side.toml")).unwrap();
        assert_eq!(report.profile, profile);
    }
}
