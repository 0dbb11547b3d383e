//! Which bit of a weight does the most harm without giving itself away: a fault on request must
//! change every result and leave each of them a finite one.

/// The largest weight that a flip may give, far from overflowing anything. The highest bit of the
/// exponent gives more than that, and the others hardly more than 2.
const FLIPPED_MAX: f32 = 64.0;
/// Bits that are tried: the sign, the exponent and what comes next to it.
const BITS: std::ops::Range<u32> = 20..32;

/// The place and the new value of the weight among `values` that changes most when one of its
/// high-order bits is flipped; `None` of no values.
pub(crate) fn worst_flip(values: &[f32]) -> Option<(usize, f32)> {
    let flips = values.iter().enumerate().flat_map(|(index, &before)| {
        BITS.map(move |bit| (index, before, f32::from_bits(before.to_bits() ^ (1 << bit))))
    });
    let bounded = flips.filter(|(_, _, after)| after.abs() <= FLIPPED_MAX);
    let change = |(_, before, after): &(usize, f32, f32)| (after - before).abs();
    let worst = bounded.max_by(|one, other| change(one).total_cmp(&change(other)))?;
    Some((worst.0, worst.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_makes_a_weight_large_and_keeps_it_finite() {
        let weights: Vec<f32> = (1..=384).map(|n| (n as f32 * 0.618).sin() * 0.05).collect();
        let (index, after) = worst_flip(&weights).unwrap();
        assert_eq!((weights[index].to_bits() ^ after.to_bits()).count_ones(), 1);
        assert!((1.0..=FLIPPED_MAX).contains(&after.abs()), "{after}");
    }

    #[test]
    fn even_zeros_can_be_flipped_and_nothing_cannot() {
        let (index, after) = worst_flip(&[0.0; 3]).unwrap();
        assert!(index < 3 && after > 0.0 && after.is_finite());
        assert_eq!(worst_flip(&[]), None);
    }
}
