//! A run cut into intervals, for plots over time.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::SoakError;

/// Rows of the heat map.
pub const HEAT_BUCKETS: usize = 44;
/// Lower bound of its lowest row but one, in microseconds.
const HEAT_FROM_US: f64 = 100.0;
/// Each bound over the one before: four rows to a doubling and a bit, up to a few minutes.
const HEAT_FACTOR: f64 = 1.4;
/// Longest latency that an interval tells apart, in microseconds.
const US_MAX: u64 = 600_000_000;

/// One interval of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it begins, in seconds since the run began.
    pub at_s: f64,
    /// Requests that were due in it.
    pub offered: u64,
    /// Requests that were answered with vectors in it.
    pub served: u64,
    /// Of these, rightly and within their deadline.
    pub good: u64,
    /// Requests that were refused in it.
    pub refused: u64,
    /// Requests that ended in an error, or were lost, in it.
    pub errors: u64,
    /// Texts of the served requests.
    pub texts: u64,
    /// Median latency of what was answered in it, from when it was due, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of these.
    pub p99_ms: f64,
    /// The longest of these.
    pub max_ms: f64,
    /// How many of these fall between each pair of [`heat_bounds_ms`].
    pub heat: Vec<u32>,
}

/// Bounds of the rows of the heat map in milliseconds: one more than there are rows.
#[must_use]
pub fn heat_bounds_ms() -> Vec<f64> {
    let bound = |place: usize| match place {
        0 => 0.0,
        place => HEAT_FROM_US / 1e3 * HEAT_FACTOR.powi(place as i32 - 1),
    };
    (0..=HEAT_BUCKETS).map(bound).collect()
}

fn bucket(us: u64) -> usize {
    if (us as f64) < HEAT_FROM_US {
        return 0;
    }
    let place = (us as f64 / HEAT_FROM_US).ln() / HEAT_FACTOR.ln();
    (place as usize + 1).min(HEAT_BUCKETS - 1)
}

/// The intervals of a run. All of their memory is there from the start, so that the harness does not
/// look like a leak.
pub(crate) struct Series {
    width_us: u64,
    intervals: Vec<Interval>,
    latencies: Vec<Histogram<u32>>,
}

impl Series {
    /// As many intervals of whole seconds as there is room for in a plot.
    pub(crate) fn new(length_s: f64, intervals_max: usize) -> Result<Self, SoakError> {
        let width_s = (length_s / intervals_max as f64).ceil().max(1.0);
        let count = (length_s / width_s).ceil().max(1.0) as usize;
        let intervals = (0..count)
            .map(|place| Interval {
                at_s: place as f64 * width_s,
                heat: vec![0; HEAT_BUCKETS],
                ..Interval::default()
            })
            .collect();
        let histogram = || Histogram::new_with_bounds(1, US_MAX, 2).map_err(SoakError::harness);
        let latencies: Result<Vec<_>, _> = (0..count).map(|_| histogram()).collect();
        let mut latencies = latencies?;
        // Pages that nobody has written to are not there yet.
        latencies.iter_mut().for_each(Histogram::clear);
        Ok(Self { width_us: (width_s * 1e6) as u64, intervals, latencies })
    }

    /// The interval of a moment; what is beyond the end belongs to the last.
    pub(crate) fn at(&mut self, us: u64) -> Option<&mut Interval> {
        let place = self.place(us);
        self.intervals.get_mut(place)
    }

    fn place(&self, us: u64) -> usize {
        let place = usize::try_from(us / self.width_us).unwrap_or(usize::MAX);
        place.min(self.intervals.len().saturating_sub(1))
    }

    /// A latency of something that was answered at `us`.
    pub(crate) fn latency(&mut self, us: u64, latency_us: u64) {
        let place = self.place(us);
        if let Some(histogram) = self.latencies.get_mut(place) {
            histogram.saturating_record(latency_us.max(1));
        }
        let interval = self.intervals.get_mut(place);
        if let Some(count) = interval.and_then(|i| i.heat.get_mut(bucket(latency_us))) {
            *count = count.saturating_add(1);
        }
    }

    /// Width of an interval in seconds.
    pub(crate) fn width_s(&self) -> f64 {
        self.width_us as f64 / 1e6
    }

    /// The intervals with their percentiles.
    pub(crate) fn finish(mut self) -> Vec<Interval> {
        for (interval, latencies) in self.intervals.iter_mut().zip(&self.latencies) {
            if !latencies.is_empty() {
                interval.p50_ms = latencies.value_at_quantile(0.5) as f64 / 1e3;
                interval.p99_ms = latencies.value_at_quantile(0.99) as f64 / 1e3;
                interval.max_ms = latencies.max() as f64 / 1e3;
            }
        }
        self.intervals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_between_their_bounds() {
        let bounds = heat_bounds_ms();
        for us in [0, 99, 100, 139, 141, 1_000, 50_000, 3_000_000] {
            let (place, ms) = (bucket(us), us as f64 / 1e3);
            assert!(bounds[place] <= ms && ms < bounds[place + 1], "{us}: {place}");
        }
        assert_eq!(bucket(u64::MAX), HEAT_BUCKETS - 1);
    }

    #[test]
    fn intervals_have_whole_seconds_and_take_what_is_beyond_the_end() {
        let mut series = Series::new(2000.0, 600).unwrap();
        assert_eq!((series.width_s(), series.intervals.len()), (4.0, 500));
        series.latency(5_000_000, 7_000);
        series.latency(9_999_000_000, 9_000);
        series.at(9_999_000_000).unwrap().offered += 1;
        let intervals = series.finish();
        assert!((intervals[1].max_ms - 7.0).abs() < 0.1 && intervals[1].at_s == 4.0);
        assert_eq!((intervals[499].offered, intervals[499].heat.iter().sum::<u32>()), (1, 1));
        assert_eq!(intervals[0].p99_ms, 0.0);
    }
}
