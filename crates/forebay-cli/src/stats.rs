//! The few statistics that the commands print. Pure functions of their numbers.

/// Spearman's rank correlation of two lists of equal length: Pearson's correlation of their ranks,
/// where equal values share the mean of their ranks. `None` with fewer than two pairs, or where one
/// list is constant or has a value that is no number.
pub(crate) fn spearman(left: &[f64], right: &[f64]) -> Option<f64> {
    if left.len() != right.len() || left.iter().chain(right).any(|value| value.is_nan()) {
        return None;
    }
    pearson(&ranks(left), &ranks(right))
}

fn pearson(left: &[f64], right: &[f64]) -> Option<f64> {
    let count = left.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
    let (left_mean, right_mean) = (mean(left), mean(right));
    let (mut both, mut left_square, mut right_square) = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (left - left_mean, right - right_mean);
        both += left * right;
        left_square += left * left;
        right_square += right * right;
    }
    let scale = (left_square * right_square).sqrt();
    (scale > 0.0).then(|| both / scale)
}

/// The rank of each value from 1; equal values get the mean of the ranks that they take up.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|left, right| left.1.total_cmp(&right.1));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 1;
    // `==` and not the total order: 0 and -0 are one value.
    for equal in order.chunk_by(|left, right| left.1 == right.1) {
        let rank = first as f64 + (equal.len() - 1) as f64 / 2.0;
        for (place, _) in equal {
            if let Some(slot) = ranks.get_mut(*place) {
                *slot = rank;
            }
        }
        first += equal.len();
    }
    ranks
}

/// The cosine of two vectors, summed in `f64`; 0 if one of them has no length.
pub(crate) fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
    };
    let scale = (dot(left, left) * dot(right, right)).sqrt();
    if scale > 0.0 { dot(left, right) / scale } else { 0.0 }
}

/// The middle value, or the mean of the two middle ones; `None` of no values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(middle - 1).map(|lower| (lower + upper) / 2.0)
}

/// The smallest value that at least the fraction `q` of all values does not exceed; `None` of no
/// values.
pub(crate) fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ties_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[10.0, 20.0, 20.0, 5.0, 20.0]), [2.0, 4.0, 4.0, 1.0, 4.0]);
        assert_eq!(ranks(&[0.0, -0.0]), [1.5, 1.5]);
    }

    #[test]
    fn known_correlations_come_out() {
        // By hand: with ranks 1..5 and one swap of neighbours, 1 - 6 * 2 / (5 * 24).
        let swapped = spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 3.0, 2.0, 4.0, 9.0]).unwrap();
        assert!((swapped - 0.9).abs() < 1e-12, "{swapped}");
        // Ranks 1, 2.5, 2.5, 4 against 1..4: 4.5 / sqrt(4.5 * 5).
        let tied = spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((tied - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12, "{tied}");
    }

    #[test]
    fn lists_without_an_order_have_no_correlation() {
        assert_eq!(spearman(&[], &[]), None);
        assert_eq!(spearman(&[1.0], &[1.0]), None);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0, 2.0], &[1.0]), None);
    }

    proptest! {
        #[test]
        fn only_the_order_matters(values in prop::collection::hash_set(-1000_i32..1000, 2..50)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let rising: Vec<f64> = values.iter().map(|value| value.powi(3) + 7.0).collect();
            let falling: Vec<f64> = values.iter().map(|value| -value).collect();
            prop_assert!((spearman(&values, &rising).unwrap() - 1.0).abs() < 1e-9);
            prop_assert!((spearman(&values, &falling).unwrap() + 1.0).abs() < 1e-9);
        }

        #[test]
        fn the_middle_of_an_odd_list_is_one_of_it(
            values in prop::collection::vec(-1e6_f64..1e6, 1..30)
        ) {
            let middle = median(&values).unwrap();
            let below = values.iter().filter(|value| **value < middle).count();
            let above = values.iter().filter(|value| **value > middle).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }
    }

    #[test]
    fn a_quantile_is_a_value_that_enough_others_do_not_exceed() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.99), Some(198.0));
        assert_eq!(quantile(&values, 0.5), Some(100.0));
        assert_eq!((quantile(&values, 0.0), quantile(&values, 1.0)), (Some(1.0), Some(200.0)));
        assert_eq!((quantile(&[3.0], 0.99), quantile(&[], 0.5)), (Some(3.0), None));
    }

    #[test]
    fn cosines_of_parallel_and_crossed_vectors() {
        assert!((cosine(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 1.0]), 0.0);
    }
}
