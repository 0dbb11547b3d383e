//! Two reports beside each other: what got worse.

use serde::Serialize;

use super::Report;
use crate::error::SoakError;
use crate::run::Run;

/// A latency may grow by this share.
const LATENCY_SHARE: f64 = 0.10;
/// And by this much at any rate: what is smaller is noise.
const LATENCY_MS: f64 = 0.2;
/// A rate may fall by this share.
const RATE_SHARE: f64 = 0.05;
/// A share of good answers may fall by this.
const GOOD_SHARE: f64 = 0.005;

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

/// Compares the first run of each report.
///
/// # Errors
/// A report has no run.
pub fn compare(before: &Report, after: &Report) -> Result<Comparison, SoakError> {
    let first = |report: &Report| {
        let run = report.runs.first().map(|judged| judged.run.clone());
        run.ok_or_else(|| SoakError::Usage("a report has no run that could be compared".to_owned()))
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

fn rows(one: &Run, other: &Run) -> Vec<Row> {
    let latency = |name, of: fn(&Run) -> f64| {
        let (before, after) = (of(one), of(other));
        let is_worse = after > before * (1.0 + LATENCY_SHARE) && after > before + LATENCY_MS;
        Row { name, before, after, is_worse }
    };
    let share = |run: &Run| run.tallied.good as f64 / run.tallied.offered.max(1) as f64;
    let rate = |run: &Run| run.tallied.good as f64 / run.measured_s.max(1e-9);
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
        latency("p50_ms", |run| run.tallied.from_due.p50_ms),
        latency("p99_ms", |run| run.tallied.from_due.p99_ms),
        latency("p999_ms", |run| run.tallied.from_due.p999_ms),
        latency("calm_p99_ms", |run| run.tallied.calm.p99_ms),
        Row {
            name: "good_per_s",
            before: rate(one),
            after: rate(other),
            is_worse: rate(other) < rate(one) * (1.0 - RATE_SHARE),
        },
        Row {
            name: "good_share",
            before: share(one),
            after: share(other),
            is_worse: share(other) < share(one) - GOOD_SHARE,
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
    use super::*;

    fn run(p99_ms: f64, good: u64) -> Run {
        let mut run = Run { measured_s: 10.0, ..Run::default() };
        run.tallied.offered = 1000;
        run.tallied.good = good;
        run.tallied.from_due.p99_ms = p99_ms;
        run
    }

    fn worse(one: &Run, other: &Run) -> Vec<&'static str> {
        let rows = rows(one, other).into_iter().filter(|row| row.is_worse);
        rows.map(|row| row.name).collect()
    }

    #[test]
    fn what_got_worse_by_more_than_noise_is_named() {
        assert_eq!(worse(&run(10.0, 1000), &run(10.9, 996)), [""; 0]);
        assert_eq!(worse(&run(10.0, 1000), &run(11.2, 1000)), ["p99_ms"]);
        assert_eq!(worse(&run(1.0, 1000), &run(1.15, 1000)), [""; 0]);
        assert_eq!(worse(&run(10.0, 1000), &run(5.0, 900)), ["good_per_s", "good_share"]);
        let mut broken = run(10.0, 1000);
        broken.broken.insert("x".to_owned(), 1);
        assert_eq!(worse(&run(10.0, 1000), &broken), ["promises_broken"]);
    }
}
