//! Which bit of a weight does the most harm without giving itself away: a fault on request must
//! change every result and leave each of them a finite one.

use half::{bf16, f16};

use crate::Dtype;

/// The largest weight that a flip may give: far beyond a real one, and far from overflowing a sum.
const FLIPPED_MAX: f32 = 64.0;
/// Bits that are tried: the sign, the exponent and what comes next to it.
const BITS: std::ops::Range<u32> = 7..16;

/// The place and the new content of the weight among `values`, in the type `dtype`, that changes
/// most when one of its high-order bits is flipped; `None` of no values.
pub(crate) fn worst_flip(values: &[u16], dtype: Dtype) -> Option<(usize, u16)> {
    let number = |bits: u16| match dtype {
        Dtype::F16 => f16::from_bits(bits).to_f32(),
        Dtype::BF16 => bf16::from_bits(bits).to_f32(),
    };
    let flips = values
        .iter()
        .enumerate()
        .flat_map(|(index, &bits)| BITS.map(move |bit| (index, bits, bits ^ (1 << bit))));
    let harm = |(index, bits, flipped)| {
        let (before, after) = (number(bits), number(flipped));
        (after.abs() <= FLIPPED_MAX).then(|| ((after - before).abs(), index, flipped))
    };
    let worst = flips.filter_map(harm).max_by(|one, other| one.0.total_cmp(&other.0))?;
    Some((worst.1, worst.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_makes_a_weight_large_and_keeps_it_finite() {
        let weights: Vec<f32> = (1..=384).map(|n| (n as f32 * 0.618).sin() * 0.05).collect();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let bits = |value: f32| match dtype {
                Dtype::F16 => f16::from_f32(value).to_bits(),
                Dtype::BF16 => bf16::from_f32(value).to_bits(),
            };
            let number = |bits: u16| match dtype {
                Dtype::F16 => f16::from_bits(bits).to_f32(),
                Dtype::BF16 => bf16::from_bits(bits).to_f32(),
            };
            let values: Vec<u16> = weights.iter().map(|weight| bits(*weight)).collect();
            let (index, flipped) = worst_flip(&values, dtype).unwrap();
            assert_eq!((values[index] ^ flipped).count_ones(), 1, "{dtype}");
            let after = number(flipped).abs();
            assert!((1.0..=FLIPPED_MAX).contains(&after), "{dtype}: {after}");
        }
    }

    #[test]
    fn even_zeros_can_be_flipped_and_nothing_cannot() {
        let (index, flipped) = worst_flip(&[0; 3], Dtype::F16).unwrap();
        assert!(index < 3 && flipped != 0);
        assert_eq!(worst_flip(&[], Dtype::BF16), None);
    }
}
