//! A robust slope and how sure it is.
//!
//! The slope is the median of the slopes between all pairs of points (Theil 1950, Sen 1968), which a
//! third of wild points cannot move far. Values of memory depend on those just before them, so the
//! usual interval would be too narrow: it is taken from a moving-block bootstrap (Künsch 1989) of the
//! residuals, which keeps neighbours together.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Points that are used at most; more are thinned by medians of neighbours.
const POINTS_MAX: usize = 120;
/// Samples of the bootstrap.
const RESAMPLES: usize = 300;

/// A slope with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// The slope, in units of y per unit of x.
    pub value: f64,
    /// The interval holds the slope in 95 of 100 cases: its lower bound.
    pub low: f64,
    /// Its upper bound.
    pub high: f64,
    /// The fitted line at x = 0.
    pub intercept: f64,
}

/// The slope of points by rising x; `None` for fewer than three.
#[must_use]
pub fn slope(points: &[(f64, f64)], seed: u64) -> Option<Slope> {
    let points = thinned(points);
    if points.len() < 3 {
        return None;
    }
    let value = theil_sen(&points)?;
    let intercept = median(points.iter().map(|(x, y)| y - value * x).collect())?;
    let residuals: Vec<f64> = points.iter().map(|(x, y)| y - value * x - intercept).collect();
    let mut random = SmallRng::seed_from_u64(seed);
    // The usual length that grows with the third root.
    let block = ((points.len() as f64).cbrt() * 2.0).ceil() as usize;
    let block = block.clamp(1, points.len());
    let mut slopes: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let mut drawn = Vec::with_capacity(points.len() + block);
            while drawn.len() < points.len() {
                let start = random.random_range(0..=points.len() - block);
                drawn.extend_from_slice(&residuals[start..start + block]);
            }
            let points: Vec<(f64, f64)> = points
                .iter()
                .zip(&drawn)
                .map(|((x, _), residual)| (*x, value * x + intercept + residual))
                .collect();
            theil_sen(&points)
        })
        .collect();
    slopes.sort_by(f64::total_cmp);
    let at = |share: f64| slopes.get((share * (slopes.len() - 1) as f64).round() as usize).copied();
    Some(Slope { value, low: at(0.025)?, high: at(0.975)?, intercept })
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    let of = |group: &[(f64, f64)]| {
        Some((
            median(group.iter().map(|(x, _)| *x).collect())?,
            median(group.iter().map(|(_, y)| *y).collect())?,
        ))
    };
    points.chunks(group).filter_map(of).collect()
}

fn theil_sen(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (place, (x, y)) in points.iter().enumerate() {
        let later = points.iter().skip(place + 1).filter(|(later, _)| later > x);
        slopes.extend(later.map(|(later, value)| (value - y) / (later - x)));
    }
    median(slopes)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A walk around a line: each value depends on the one before.
    fn noisy(slope: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut noise = 0.0;
        (0..200)
            .map(|x| {
                noise = 0.8 * noise + random.random_range(-1.0..1.0);
                (f64::from(x), 5.0 + slope * f64::from(x) + noise)
            })
            .collect()
    }

    #[test]
    fn a_slope_is_found_and_none_is_not() {
        let mut wrong = 0;
        for seed in 0..40 {
            let rising = slope(&noisy(0.1, seed), seed).unwrap();
            assert!((rising.value - 0.1).abs() < 0.03 && rising.low > 0.0, "{rising:?}");
            assert!(rising.low <= rising.value && rising.value <= rising.high, "{rising:?}");
            let flat = slope(&noisy(0.0, seed), seed).unwrap();
            assert!(flat.value.abs() < 0.03, "{flat:?}");
            wrong += u32::from(flat.low > 0.0);
        }
        // One in forty of flat series is above the interval by chance; blocks are short, so some more.
        assert!(wrong <= 6, "{wrong}");
    }

    #[test]
    fn wild_points_do_not_move_it_and_it_is_the_same_for_a_seed() {
        let mut points = noisy(0.1, 1);
        points.iter_mut().step_by(5).for_each(|(_, y)| *y += 500.0);
        let found = slope(&points, 3).unwrap();
        assert!((found.value - 0.1).abs() < 0.08, "{found:?}");
        assert_eq!(slope(&points, 3), Some(found));
    }

    #[test]
    fn a_straight_line_has_its_slope_exactly_and_two_points_have_none() {
        let line: Vec<(f64, f64)> = (0..50).map(|x| (f64::from(x), 2.0 * f64::from(x))).collect();
        let found = slope(&line, 0).unwrap();
        assert!((found.value - 2.0).abs() < 1e-9 && (found.high - found.low).abs() < 1e-9);
        assert_eq!(slope(&line[..2], 0), None);
        assert_eq!(slope(&[], 0), None);
    }
}
