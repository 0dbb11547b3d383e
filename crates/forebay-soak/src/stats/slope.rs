//! A robust slope and how sure it is.
//!
//! The slope is the median of the slopes between all pairs of points (Theil 1950, Sen 1968), which a
//! third of wild points cannot move far. Values of memory depend on those just before them, so the
//! usual interval would be too narrow: it is taken from a moving-block bootstrap (Künsch 1989), which
//! keeps neighbours together. Blocks that are short beside the dependence still break it, so what a
//! residual holds of the one before is taken out before blocks are drawn and put back after (Davison and
//! Hinkley 1997, 8.2).

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Points that are used at most; more are thinned by medians of neighbours.
const POINTS_MAX: usize = 120;
/// Innovations that are drawn together: what dependence is left in them.
const BLOCK: usize = 5;
/// Highest share of a residual that the next one is taken to hold: with all of it, it is a walk, of
/// which no slope can be told.
const KEPT_MAX: f64 = 0.99;
/// Samples of the bootstrap.
const RESAMPLES: usize = 300;

/// A slope with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// The slope, in units of y per unit of x.
    pub value: f64,
    /// The interval is to hold the slope in 95 of 100 cases: its lower bound.
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
    let share = kept(&residuals);
    let innovations = innovations(&residuals, share);
    // A line takes two degrees of freedom from the residuals, and their dependence a third.
    let wider = (points.len() as f64 / (points.len() as f64 - 3.0).max(1.0)).sqrt();
    let block = BLOCK.min(innovations.len());
    let mut slopes: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let mut drawn = Vec::with_capacity(2 * points.len() + block);
            while drawn.len() < 2 * points.len() {
                let start = random.random_range(0..=innovations.len() - block);
                drawn.extend_from_slice(&innovations[start..start + block]);
            }
            let mut residual = 0.0;
            let coloured = drawn.iter().map(|innovation| {
                residual = share * residual + wider * innovation;
                residual
            });
            // As many again come first: the walk is to have forgotten that it began at zero.
            let residuals = coloured.skip(points.len());
            let drawn = points.iter().zip(residuals);
            let points: Vec<(f64, f64)> =
                drawn.map(|((x, _), residual)| (*x, value * x + intercept + residual)).collect();
            theil_sen(&points)
        })
        .collect();
    slopes.sort_by(f64::total_cmp);
    let at = |share: f64| slopes.get((share * (slopes.len() - 1) as f64).round() as usize).copied();
    Some(Slope { value, low: at(0.025)?, high: at(0.975)?, intercept })
}

/// The share of a residual that is in the next one, one standard error above its estimate: residuals
/// of a fitted line show less of it than there is, and too little gives an interval that is too narrow.
fn kept(residuals: &[f64]) -> f64 {
    let count = residuals.len() as f64;
    let mean = residuals.iter().sum::<f64>() / count;
    let square: f64 = residuals.iter().map(|residual| (residual - mean).powi(2)).sum();
    let product: f64 = residuals.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if square <= 0.0 || count <= 4.0 {
        return 0.0;
    }
    let seen = (product / square).clamp(0.0, KEPT_MAX);
    let share = ((seen + 2.0 / count) / (1.0 - 4.0 / count)).min(KEPT_MAX);
    (share + ((1.0 - share * share) / count).sqrt()).min(KEPT_MAX)
}

/// What is new in each residual, around zero.
fn innovations(residuals: &[f64], share: f64) -> Vec<f64> {
    let new: Vec<f64> = residuals.windows(2).map(|pair| pair[1] - share * pair[0]).collect();
    let mean = new.iter().sum::<f64>() / new.len().max(1) as f64;
    new.into_iter().map(|value| value - mean).collect()
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

    /// A walk around a line: each value holds this share of the one before.
    fn walk(slope: f64, share: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut noise = 0.0;
        (0..160)
            .map(|x| {
                noise = share * noise + random.random_range(-1.0..1.0);
                (f64::from(x) - 100.0, noise)
            })
            .skip(100)
            .map(|(x, noise)| (x, 5.0 + slope * x + noise))
            .collect()
    }

    fn noisy(slope: f64, seed: u64) -> Vec<(f64, f64)> {
        walk(slope, 0.8, seed)
    }

    #[test]
    fn a_slope_is_found_and_none_is_not() {
        for seed in 0..10 {
            let rising = slope(&noisy(0.3, seed), seed).unwrap();
            assert!((rising.value - 0.3).abs() < 0.15 && rising.low > 0.0, "{rising:?}");
            assert!(rising.low <= rising.value && rising.value <= rising.high, "{rising:?}");
        }
    }

    #[test]
    fn the_interval_holds_the_slope_as_often_as_it_says() {
        // Of 40 each; 38 would be 95 of 100. Blocks alone hold it in 27 of the second and 22 of the last.
        for (share, least) in [(0.0, 34), (0.8, 34), (0.9, 32)] {
            let holds = |seed: &u64| {
                let found = slope(&walk(0.1, share, *seed), *seed).unwrap();
                found.low <= 0.1 && found.high >= 0.1
            };
            let held = (0..40).filter(holds).count();
            assert!(held >= least, "{share}: {held} of 40");
        }
    }

    #[test]
    fn wild_points_do_not_move_it_and_it_is_the_same_for_a_seed() {
        let mut points = noisy(0.3, 1);
        points.iter_mut().step_by(5).for_each(|(_, y)| *y += 500.0);
        let found = slope(&points, 3).unwrap();
        assert!((found.value - 0.3).abs() < 0.2, "{found:?}");
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
