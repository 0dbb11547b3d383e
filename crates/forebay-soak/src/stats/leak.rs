//! Whether a process grows: by its memory under equal load, and by what it has at rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::slope::{Slope, slope};
use crate::profile::Leak;
use crate::samples::{Sample, counters};

const MIB_KIB: f64 = 1024.0;
const HOUR_S: f64 = 3600.0;
/// Thirty days.
const MONTH_H: f64 = 720.0;

/// How the memory of one process went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// What the process does.
    pub role: String,
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the system was.
    pub started: u64,
    /// First and last moment that were judged, in seconds since the run began.
    pub from_s: f64,
    /// See `from_s`.
    pub to_s: f64,
    /// Samples that were judged.
    pub samples: usize,
    /// Memory at the end, in MiB.
    pub last_mib: f64,
    /// Its slope in MiB per hour; `None` if there were too few samples.
    pub mib_per_hour: Option<Slope>,
    /// The same of the second half of these samples alone.
    pub late_mib_per_hour: Option<Slope>,
    /// The slope from which on it would be a leak, in MiB per hour.
    #[serde(default)]
    pub limit_mib_per_hour: f64,
    /// Whether that is a leak.
    pub is_leak: bool,
}

/// What growth is held against.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Requests in a second of the load.
    pub requests_per_s: f64,
    /// The machine's memory in MiB.
    pub memory_mib: f64,
}

impl Scale {
    /// The slope from which on memory leaks, for a process that was judged for so long.
    #[must_use]
    pub fn limit_mib_per_hour(&self, rules: &Leak, judged_s: f64) -> f64 {
        let per_hour = rules.growth_bytes_per_request_max * self.requests_per_s * HOUR_S;
        let by_request = per_hour / (MIB_KIB * 1024.0);
        let by_memory = rules.growth_ram_share_max * self.memory_mib / MONTH_H;
        let visible = rules.growth_mib_min * HOUR_S / judged_s.max(1.0);
        by_request.min(by_memory).max(visible).min(rules.growth_mib_per_hour_max)
    }
}

/// The growth of each process in the measured time.
#[must_use]
pub fn growth(
    samples: &[Sample],
    [from_s, to_s]: [f64; 2],
    rules: &Leak,
    scale: Scale,
    seed: u64,
) -> Vec<Growth> {
    let mut processes: BTreeMap<(&str, u64, u32), Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.at_s >= from_s && sample.at_s <= to_s) {
        processes.entry((&sample.role, sample.started, sample.pid)).or_default().push(sample);
    }
    let one = |((role, started, pid), samples): ((&str, u64, u32), Vec<&Sample>)| {
        // The share of its own samples, so that one that began late settles for as long a share.
        let settled = (samples.len() as f64 * rules.settle_share).ceil() as usize;
        let judged = samples.get(settled..).unwrap_or_default();
        // Resident memory: the share of what is shared goes up and down with other processes.
        let points: Vec<(f64, f64)> =
            judged.iter().map(|s| (s.at_s / HOUR_S, s.rss_kib as f64 / MIB_KIB)).collect();
        let (from_s, to_s) = (at_s(judged.first()), at_s(judged.last()));
        let enough =
            judged.len() >= rules.samples_min.max(3) as usize && to_s - from_s >= rules.seconds_min;
        let found = if enough { slope(&points, seed) } else { None };
        let late = points.get(points.len() / 2..).filter(|_| enough);
        let late = late.and_then(|points| slope(points, seed));
        // What has grown once, as the largest batch so far was larger than those before, is no leak.
        let grows = |slope: Option<Slope>, mib_per_hour_max: f64| {
            slope.is_some_and(|slope| slope.low > 0.0 && slope.value > mib_per_hour_max)
        };
        let max = scale.limit_mib_per_hour(rules, to_s - from_s);
        Growth {
            role: role.to_owned(),
            pid,
            started,
            from_s,
            to_s,
            samples: judged.len(),
            last_mib: samples.last().map_or(0.0, |sample| sample.rss_kib as f64 / MIB_KIB),
            mib_per_hour: found,
            late_mib_per_hour: late,
            limit_mib_per_hour: max,
            is_leak: grows(found, max) && grows(late, max / 2.0),
        }
    };
    processes.into_iter().map(one).collect()
}

fn at_s(sample: Option<&&Sample>) -> f64 {
    sample.map_or(0.0, |sample| sample.at_s)
}

/// A counter that is not the same at rest after the run as before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// What the processes do.
    pub role: String,
    /// What is counted.
    pub counter: String,
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
    /// Whether that is more than is allowed.
    pub is_leak: bool,
}

/// Counters of processes at rest that are not what they were. What is gone after is no leak; what was
/// not there before is one from its first descriptor on.
#[must_use]
pub fn drifts(before: &[Sample], after: &[Sample], rules: &Leak) -> Vec<Drift> {
    let (mut before, after) = (counters(before), counters(after));
    if before.is_empty() {
        // Nothing was seen, which is told apart.
        return Vec::new();
    }
    let one = |((role, counter), after): ((String, &'static str), u64)| {
        let before = before.remove(&(role.clone(), counter)).unwrap_or(0);
        drift(role, counter, before, after, rules)
    };
    after.into_iter().filter_map(one).collect()
}

/// A counter, if it is not what it was.
#[must_use]
pub fn drift(role: String, counter: &str, before: u64, after: u64, rules: &Leak) -> Option<Drift> {
    let allowed = rules.drift_max.get(counter).copied().unwrap_or(0);
    let is_leak = after > before.saturating_add(allowed);
    let counter = counter.to_owned();
    (after != before).then_some(Drift { role, counter, before, after, is_leak })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { requests_per_s: 100.0, memory_mib: 8192.0 };

    fn sample(role: &str, pid: u32, at_s: f64, pss_kib: u64) -> Sample {
        let (role, started) = (role.to_owned(), u64::from(pid));
        Sample {
            at_s,
            role,
            pid,
            started,
            rss_kib: pss_kib,
            pss_kib,
            fds: 9,
            threads: 3,
            mappings: 50,
        }
    }

    #[test]
    fn each_process_is_judged_by_itself() {
        // One that grows by 1 MiB a second, and a worker that is restarted twice, each time as large
        // as before.
        let samples: Vec<Sample> = (0..90)
            .flat_map(|at| {
                let noise = u64::from(at * 7919 % 13_u32);
                let host = sample("host", 1, f64::from(at), 100_000 + 1024 * u64::from(at) + noise);
                [host, sample("worker cpu", 10 + at / 30, f64::from(at), 50_000 + noise)]
            })
            .collect();
        let rules = Leak::default();
        let found = growth(&samples, [0.0, 90.0], &rules, SCALE, 1);
        assert_eq!(found.len(), 4);
        let host = found.iter().find(|growth| growth.role == "host").unwrap();
        let slope = host.mib_per_hour.unwrap();
        assert!((slope.value / 3600.0 - 1.0).abs() < 0.01 && host.is_leak, "{host:?}");
        assert_eq!(host.from_s, 14.0);
        let step = |at: u32| 100_000 + 1024 * u64::from(at.min(45));
        let stepped: Vec<Sample> = (0..90)
            .map(|at| sample("host", 1, f64::from(at), step(at) + u64::from(at % 7)))
            .collect();
        let once = growth(&stepped, [0.0, 90.0], &rules, SCALE, 1);
        assert!(once[0].mib_per_hour.unwrap().value > 600.0 && !once[0].is_leak, "{once:?}");
        for worker in found.iter().filter(|growth| growth.role != "host") {
            assert!(worker.mib_per_hour.is_some() && !worker.is_leak, "{worker:?}");
        }
        for rules in
            [Leak { samples_min: 80, ..rules.clone() }, Leak { seconds_min: 80.0, ..rules }]
        {
            let short = growth(&samples, [0.0, 90.0], &rules, SCALE, 1);
            assert!(short.iter().all(|growth| growth.mib_per_hour.is_none() && !growth.is_leak));
        }
    }

    #[test]
    fn a_leak_is_one_at_any_rate_that_can_be_seen() {
        let rules = Leak::default();
        let limit = |requests_per_s, memory_mib, judged_s| {
            Scale { requests_per_s, memory_mib }.limit_mib_per_hour(&rules, judged_s)
        };
        let near = |one: f64, other: f64| (one - other).abs() < 0.01 * other;
        // A KiB each request is four times what is allowed, however few there are.
        for rate in [10.0, 30.0, 100.0] {
            let leak = rate * 3600.0 / 1024.0;
            assert!(near(limit(rate, 1e9, 1e9), leak / 4.0), "{rate}");
        }
        // A month of it may take a twentieth of the memory.
        assert!(near(limit(1e6, 14_400.0, 1e9), 1.0));
        // In a minute no less than 2 MiB can be told from a heap that takes what it needs.
        assert!(near(limit(30.0, 14_400.0, 60.0), 120.0));
        // What is too much by itself is so in the shortest run.
        assert_eq!(limit(1e6, 1e9, 1.0), rules.growth_mib_per_hour_max);
        // 20 MiB in an hour, which the slope alone would let pass.
        let slow = |at: u32| 100_000 + 340 * u64::from(at) / 60 + u64::from(at % 7);
        let samples: Vec<Sample> =
            (0..3600).step_by(10).map(|at| sample("host", 1, f64::from(at), slow(at))).collect();
        let found = growth(&samples, [0.0, 3600.0], &rules, SCALE, 1);
        assert!(found[0].mib_per_hour.unwrap().value < 600.0 && found[0].is_leak, "{found:?}");
    }

    #[test]
    fn each_longer_profile_sees_a_kibibyte_per_request_at_low_rates() {
        // In a minute that is less than what heaps take at once.
        for name in ["gate", "hour", "night"] {
            let profile = crate::Profile::load(name).unwrap();
            let judged_s = profile.duration_s * (1.0 - profile.leak.settle_share);
            let requests_per_s = 15.0;
            let scale = Scale { requests_per_s, memory_mib: 262_144.0 };
            let limit = scale.limit_mib_per_hour(&profile.leak, judged_s);
            let leak = requests_per_s * HOUR_S / MIB_KIB;
            assert!(limit < leak, "{name}: {limit} {leak}");
        }
    }

    #[test]
    fn counters_must_return_but_for_what_is_allowed() {
        let before = [sample("host", 1, 0.0, 1), sample("worker cpu", 2, 0.0, 1)];
        let mut after = before.clone();
        assert_eq!(drifts(&before, &after, &Leak::default()), []);
        after[0].fds += 1;
        after[1].mappings += 5;
        let rules = Leak { drift_max: [("mappings".to_owned(), 5)].into(), ..Leak::default() };
        let found = drifts(&before, &after, &rules);
        let leaks: Vec<(&str, bool)> =
            found.iter().map(|drift| (drift.counter.as_str(), drift.is_leak)).collect();
        assert_eq!(leaks, [("fds", true), ("mappings", false)]);
        // A helper that stayed.
        let mut more = before.to_vec();
        more.push(sample("helper", 3, 0.0, 1));
        let found = drifts(&before, &more, &rules);
        assert!(found.iter().all(|drift| drift.role == "helper" && drift.before == 0), "{found:?}");
        assert_eq!(found.iter().filter(|drift| drift.is_leak).count(), 3);
        // One that is gone is none, and one more than before is one.
        assert_eq!(drifts(&more, &before, &rules), []);
        assert!(drift("all".to_owned(), "processes", 2, 3, &rules).is_some_and(|d| d.is_leak));
        assert!(drift("all".to_owned(), "processes", 3, 2, &rules).is_some_and(|d| !d.is_leak));
    }
}
