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
}

/// What the search found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The highest rate that met the objectives, in requests per second; `None` if none did.
    pub rate: Option<f64>,
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
    fn one_hiccup_does_not_count() {
        let mut search = Search::new(100.0, 0.05);
        search.tell(false);
        assert_eq!(search.next(), Some(100.0));
        search.tell(true);
        assert_eq!((search.next(), search.found()), (Some(200.0), Some(100.0)));
    }
}
