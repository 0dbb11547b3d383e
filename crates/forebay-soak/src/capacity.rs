//! The search for the capacity: the highest rate at which the objectives are met.
//!
//! The rate doubles until it is too much, then the gap is halved. Each probe is a run of its own; a
//! probe that fails is tried once more, since one hiccup of the machine says nothing.

use serde::{Deserialize, Serialize};

use crate::run::Run;
use crate::verdict::{Code, Verdict};

/// Probes at most.
const PROBES_MAX: u32 = 40;

/// One rate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Requests per second that were offered.
    pub rate: f64,
    /// Right answers in time, per second.
    pub good_per_s: f64,
    /// Median latency from when requests were due, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of these.
    pub p99_ms: f64,
    /// Whether the objectives were met.
    pub met: bool,
    /// The verdict on it.
    #[serde(default)]
    pub code: Option<Code>,
}

/// What the search found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The highest rate that met the objectives, in requests per second; `None` if none did.
    pub rate: Option<f64>,
    /// Whether the next higher rate failed because the harness could not offer it: the target may be
    /// capable of more.
    #[serde(default)]
    pub limited_by_harness: bool,
    /// Every probe, in order.
    pub probes: Vec<Probe>,
}

/// The search as a state machine: it says which rate is next, and hears how it went.
#[derive(Clone, Debug)]
pub struct Search {
    low: Option<f64>,
    high: Option<f64>,
    rate: f64,
    /// The gap at which the search ends, as a share of the rate.
    resolution: f64,
    is_second_try: bool,
    probes: u32,
}

impl Search {
    /// A search that begins at `rate` requests per second.
    #[must_use]
    pub fn new(rate: f64, resolution: f64) -> Self {
        Self { low: None, high: None, rate, resolution, is_second_try: false, probes: 0 }
    }

    /// The next rate to try; `None` once it is known well enough.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        let is_known = match (self.low, self.high) {
            (Some(low), Some(high)) => high - low <= self.resolution * high,
            (None, Some(high)) => high < 1.0,
            _ => false,
        };
        (!is_known && self.probes < PROBES_MAX).then_some(self.rate)
    }

    /// Whether the objectives were met at the rate that was next.
    pub fn tell(&mut self, met: bool) {
        self.probes += 1;
        if !met && !self.is_second_try {
            self.is_second_try = true;
            return;
        }
        self.is_second_try = false;
        if met {
            self.low = Some(self.rate);
        } else {
            self.high = Some(self.rate);
        }
        self.rate = match (self.low, self.high) {
            (Some(low), Some(high)) => (low + high) / 2.0,
            (Some(low), None) => low * 2.0,
            (None, Some(high)) => high / 2.0,
            (None, None) => self.rate,
        };
    }

    /// The highest rate that met the objectives so far.
    #[must_use]
    pub fn found(&self) -> Option<f64> {
        self.low
    }
}

impl Capacity {
    /// What these probes come to.
    #[must_use]
    pub fn of(rate: Option<f64>, probes: Vec<Probe>) -> Self {
        let above = |probe: &&Probe| !probe.met && rate.is_none_or(|rate| probe.rate > rate);
        let failed = probes.iter().filter(above);
        // What stopped the search: the lowest rate that was not met.
        let limit = failed.clone().map(|probe| probe.rate).fold(f64::INFINITY, f64::min);
        let is_void = |probe: &&Probe| probe.code == Some(Code::Overloaded);
        let limited_by_harness =
            failed.filter(|probe| probe.rate <= limit).any(|probe| is_void(&probe));
        Self { rate, limited_by_harness, probes }
    }

    /// What the search as a whole ends with: without a rate that the harness could offer it is void.
    #[must_use]
    pub fn code(&self) -> Code {
        match (self.rate, self.limited_by_harness) {
            (Some(_), _) => Code::Pass,
            (None, true) => Code::Overloaded,
            (None, false) => Code::ObjectiveMissed,
        }
    }
}

impl Probe {
    /// What a run at this rate showed.
    #[must_use]
    pub fn of(rate: f64, run: &Run, verdict: &Verdict) -> Self {
        // What the harness cannot offer, the target has not shown to serve; what grows while a
        // target is tried at many rates is no leak.
        let met = matches!(verdict.code, Code::Pass | Code::Leak);
        Self {
            rate,
            good_per_s: run.tallied.good as f64 / run.measured_s.max(1e-9),
            p50_ms: run.tallied.from_due.p50_ms,
            p99_ms: run.tallied.from_due.p99_ms,
            met,
            code: Some(verdict.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(capacity: f64, start: f64) -> (Option<f64>, u32) {
        let mut search = Search::new(start, 0.05);
        while let Some(rate) = search.next() {
            search.tell(rate <= capacity);
        }
        (search.found(), search.probes)
    }

    #[test]
    fn the_capacity_is_found_within_the_resolution() {
        for (capacity, start) in [(100.0, 10.0), (1000.0, 4000.0), (37.0, 37.0), (12345.0, 1.0)] {
            let (found, probes) = searched(capacity, start);
            let found = found.unwrap();
            assert!(found <= capacity && found >= capacity * 0.94, "{capacity}: {found}");
            assert!(probes <= 40, "{probes}");
        }
        assert_eq!(searched(0.0, 64.0).0, None);
        assert!(searched(f64::INFINITY, 1.0).1 <= PROBES_MAX);
    }

    #[test]
    fn a_limit_of_the_harness_is_not_that_of_the_target() {
        let probe = |rate, code| Probe {
            rate,
            good_per_s: rate,
            p50_ms: 1.0,
            p99_ms: 2.0,
            met: code == Code::Pass,
            code: Some(code),
        };
        let (pass, missed, void) = (Code::Pass, Code::ObjectiveMissed, Code::Overloaded);
        let of = |rate, probes: &[(f64, Code)]| {
            let probes = probes.iter().map(|(rate, code)| probe(*rate, *code)).collect();
            let capacity = Capacity::of(rate, probes);
            (capacity.limited_by_harness, capacity.code())
        };
        assert_eq!(of(Some(8.0), &[(8.0, pass), (16.0, missed), (16.0, missed)]), (false, pass));
        assert_eq!(of(Some(8.0), &[(8.0, pass), (16.0, void), (16.0, void)]), (true, pass));
        // Above what the target could not do either, the harness limits nothing.
        let both = [(8.0, pass), (32.0, void), (32.0, void), (16.0, missed), (16.0, missed)];
        assert_eq!(of(Some(8.0), &both), (false, pass));
        // A hiccup at a rate that was met at the second try.
        assert_eq!(of(Some(8.0), &[(8.0, void), (8.0, pass), (16.0, missed)]), (false, pass));
        assert_eq!(of(None, &[(8.0, void), (8.0, void), (4.0, void)]), (true, void));
        assert_eq!(of(None, &[(8.0, missed), (4.0, missed)]), (false, missed));
    }

    #[test]
    fn one_hiccup_does_not_count() {
        let mut search = Search::new(100.0, 0.05);
        search.tell(false);
        assert_eq!(search.next(), Some(100.0));
        search.tell(true);
        assert_eq!((search.next(), search.found()), (Some(200.0), Some(100.0)));
    }
}
