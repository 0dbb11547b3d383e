//! How the times of faults are spread: a few to some thousand values, exactly.

use serde::{Deserialize, Serialize};

/// Some times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The shortest.
    pub min_ms: f64,
    /// Half are no longer.
    pub p50_ms: f64,
    /// 90 of 100 are no longer.
    pub p90_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Spread {
    /// That of these; `None` without any.
    #[must_use]
    pub fn of(times_ms: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = times_ms.collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        // The least value that so many are no longer than.
        let at = |share: f64| {
            let place = (share * count as f64).ceil() as usize;
            sorted.get(place.saturating_sub(1)).copied()
        };
        let (min_ms, max_ms) = (*sorted.first()?, *sorted.last()?);
        Some(Self { count, min_ms, p50_ms: at(0.5)?, p90_ms: at(0.9)?, max_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        assert_eq!(Spread::of([].into_iter()), None);
        let one = Spread::of([7.0].into_iter()).unwrap();
        assert_eq!((one.min_ms, one.p50_ms, one.p90_ms, one.max_ms), (7.0, 7.0, 7.0, 7.0));
        let many = Spread::of((1..=10).rev().map(f64::from)).unwrap();
        assert_eq!((many.count, many.min_ms, many.p50_ms), (10, 1.0, 5.0));
        assert_eq!((many.p90_ms, many.max_ms), (9.0, 10.0));
    }
}
