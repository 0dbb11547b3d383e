//! Latencies in a histogram of constant relative error.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::SoakError;

/// Longest latency that is told apart from longer ones, in microseconds: an hour.
const US_MAX: u64 = 3_600_000_000;
/// Digits that are kept.
const DIGITS: u8 = 3;
/// Digits that are kept of what there is much of.
const DIGITS_COARSE: u8 = 2;

/// Quantiles of the curve of latency by percentile.
pub const QUANTILES: [f64; 24] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995,
    0.9975, 0.999, 0.9995, 0.9999, 0.99995, 0.99999, 1.0,
];

/// Latencies.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// A look at latencies, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// Half are no longer.
    pub p50_ms: f64,
    /// 90 of 100 are no longer.
    pub p90_ms: f64,
    /// 95 of 100 are no longer.
    pub p95_ms: f64,
    /// 99 of 100 are no longer.
    pub p99_ms: f64,
    /// 999 of 1,000 are no longer.
    pub p999_ms: f64,
    /// 9,999 of 10,000 are no longer.
    pub p9999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new() -> Result<Self, SoakError> {
        Self::with_digits(DIGITS)
    }

    /// None yet, and to 1 % only, in a tenth of the memory.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn coarse() -> Result<Self, SoakError> {
        Self::with_digits(DIGITS_COARSE)
    }

    fn with_digits(digits: u8) -> Result<Self, SoakError> {
        let mut histogram =
            Histogram::new_with_bounds(1, US_MAX, digits).map_err(SoakError::harness)?;
        // Written once, it takes its memory now and not little by little, as a leak would.
        histogram.clear();
        Ok(Self { histogram })
    }

    /// One more, in microseconds; what is beyond an hour counts as an hour.
    pub fn add(&mut self, us: u64) {
        self.histogram.saturating_record(us.max(1));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// A quantile in milliseconds; the longest for 1, zero without any.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.histogram.is_empty() {
            return 0.0;
        }
        let us = match quantile >= 1.0 {
            true => self.histogram.max(),
            false => self.histogram.value_at_quantile(quantile),
        };
        us as f64 / 1e3
    }

    /// The usual quantiles.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.count(),
            mean_ms: self.histogram.mean() / 1e3,
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p95_ms: self.quantile_ms(0.95),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            p9999_ms: self.quantile_ms(0.9999),
            max_ms: self.quantile_ms(1.0),
        }
    }

    /// Each of [`QUANTILES`] in milliseconds, as far as there are enough values to tell them apart.
    #[must_use]
    pub fn curve_ms(&self) -> Vec<(f64, f64)> {
        let count = self.count() as f64;
        let told = |quantile: &f64| *quantile >= 1.0 || (1.0 - quantile) * count >= 1.0;
        let curve = QUANTILES.iter().copied().filter(told);
        curve.map(|quantile| (quantile, self.quantile_ms(quantile))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.summary().max_ms, 0.0);
        (1..=10_000).for_each(|us| latencies.add(us * 10));
        let near = |one: f64, other: f64| (one / other - 1.0).abs() < 2e-3;
        let summary = latencies.summary();
        assert!(near(summary.p50_ms, 50.0) && near(summary.p999_ms, 99.9), "{summary:?}");
        assert!(near(summary.max_ms, 100.0) && near(summary.mean_ms, 50.0), "{summary:?}");
        let curve = latencies.curve_ms();
        assert!(curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert!(curve.iter().all(|(quantile, _)| *quantile <= 0.9999 || *quantile == 1.0));
        latencies.add(u64::MAX);
        assert!(near(latencies.summary().max_ms, 3_600_000.0));
    }
}
