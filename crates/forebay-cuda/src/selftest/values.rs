//! Values in the device's 16-bit types: exact conversions, poison, and seeded generators.
//!
//! A test input is made in f32, rounded once to F16 or BF16, and from then on those 16 bits are
//! the truth: the reference reads the same rounded values as the device, so what a comparison
//! sees is the device's own rounding and nothing else. Nothing here computes a kernel's result.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::Dtype;

/// A NaN in F16 and in BF16 alike: fills what no kernel may read and marks what none has written.
pub(super) const POISON: u16 = 0x7FAD;
/// The same for single precision.
pub(super) const POISON_F32: u32 = 0x7FAD_BEEF;

/// The largest outlier: below the F16 maximum of 65504, while two of them in one sum are above it.
pub(super) const OUTLIER: f32 = 6e4;

/// What is characteristic of the values of a test input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Close to a standard normal distribution.
    Normal,
    /// The same with about one value in 48 replaced by ±[`OUTLIER`].
    Outliers,
    /// Every value 0.75: the variance is zero and every logit is the same.
    Equal,
    /// ±3 like a chess board: columns cancel within a row, rows within a column.
    Alternating,
    /// Around 1e-7, in F16 below the smallest normal number.
    Tiny,
    /// Attention: one key of each sequence whose logit is far above all others.
    HugeLogit,
    /// Attention: every logit far below zero.
    NegativeLogits,
}

/// A generator for one purpose; equal seeds and names give equal values.
pub(super) fn generator(seed: u64, name: &str) -> SmallRng {
    // FNV-1a over the name keeps the streams of different tensors apart.
    let mixed = name.bytes().fold(seed ^ 0xCBF2_9CE4_8422_2325, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    SmallRng::seed_from_u64(mixed)
}

/// One value of about a standard normal distribution: the sum of four uniform 16-bit numbers,
/// scaled to variance 1. Bounded by ±3.5.
pub(super) fn normal(rng: &mut SmallRng) -> f32 {
    let bits = rng.next_u64();
    let sum: u32 = (0..4).map(|part| (bits >> (16 * part)) as u32 & 0xFFFF).sum();
    (sum as f32 - 131_070.0) / 37_837.0
}

/// `count` values around `centre` with deviation `spread`.
pub(super) fn normals(rng: &mut SmallRng, count: usize, centre: f32, spread: f32) -> Vec<f32> {
    (0..count).map(|_| centre + spread * normal(rng)).collect()
}

/// `count` values spread evenly over ±√3·`spread`, which makes `spread` their deviation. Four times
/// as fast as [`normals`], for matrices of millions.
pub(super) fn uniforms(rng: &mut SmallRng, count: usize, spread: f32) -> Vec<f32> {
    let unit = spread * 3.0_f32.sqrt() / 32_768.0;
    let mut values = Vec::with_capacity(count + 3);
    while values.len() < count {
        let bits = rng.next_u64();
        values.extend([0, 16, 32, 48].map(|shift| unit * f32::from((bits >> shift) as u16 as i16)));
    }
    values.truncate(count);
    values
}

impl Values {
    /// A matrix `[rows, width]` of these values, rounded to `dtype`.
    pub(super) fn matrix(
        self,
        rng: &mut SmallRng,
        dtype: Dtype,
        rows: usize,
        width: usize,
    ) -> Vec<u16> {
        let mut values = vec![0.0; rows * width];
        match self {
            Self::Normal | Self::HugeLogit | Self::NegativeLogits => {
                values.fill_with(|| normal(rng));
            }
            Self::Outliers => values.fill_with(|| match rng.random_range(0..96_u32) {
                0 => OUTLIER,
                1 => -OUTLIER,
                _ => normal(rng),
            }),
            Self::Equal => values.fill(0.75),
            Self::Alternating => {
                for (index, value) in values.iter_mut().enumerate() {
                    *value = [3.0, -3.0][(index / width + index % width) % 2];
                }
            }
            Self::Tiny => values.fill_with(|| 1e-7 * normal(rng)),
        }
        encode_all(&values, dtype)
    }
}

/// `value` rounded to nearest even, as bits.
pub(super) fn encode(value: f32, dtype: Dtype) -> u16 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_bits(),
        Dtype::BF16 => bf16::from_f32(value).to_bits(),
    }
}

/// The exact value of 16 bits.
pub(super) fn decode(bits: u16, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_bits(bits).to_f32(),
        Dtype::BF16 => bf16::from_bits(bits).to_f32(),
    }
}

/// A run of values rounded to nearest even, as bits.
pub(super) fn encode_all(values: &[f32], dtype: Dtype) -> Vec<u16> {
    let mut bits = vec![0_u16; values.len()];
    match dtype {
        Dtype::F16 => bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values),
        Dtype::BF16 => bits.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(values),
    }
    bits
}

/// The exact values of a run of elements.
pub(super) fn decode_all(bits: &[u16], dtype: Dtype) -> Vec<f32> {
    let mut values = vec![0.0; bits.len()];
    match dtype {
        Dtype::F16 => bits.reinterpret_cast::<f16>().convert_to_f32_slice(&mut values),
        Dtype::BF16 => bits.reinterpret_cast::<bf16>().convert_to_f32_slice(&mut values),
    }
    values
}

/// Half the distance between 1 and the next number: the largest relative error of one rounding of
/// a normal number.
pub(super) fn roundoff(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => 1.0 / 2048.0,
        Dtype::BF16 => 1.0 / 256.0,
    }
}

/// Half the distance between the smallest numbers: the largest absolute error of one rounding of a
/// number near zero.
pub(super) fn underflow(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => 2.0_f64.powi(-25),
        Dtype::BF16 => 2.0_f64.powi(-134),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DTYPES: [Dtype; 2] = [Dtype::F16, Dtype::BF16];

    #[test]
    fn poison_is_not_a_number_in_every_type() {
        for dtype in DTYPES {
            assert!(decode(POISON, dtype).is_nan());
        }
        assert!(f32::from_bits(POISON_F32).is_nan());
    }

    #[test]
    fn the_stated_rounding_errors_are_reached_but_not_exceeded() {
        for dtype in DTYPES {
            let mut rng = generator(1, "rounding");
            let mut largest = 0.0_f64;
            for _ in 0..20_000 {
                let value = 1.0 + rng.random::<f32>();
                let error = f64::from((decode(encode(value, dtype), dtype) - value).abs());
                largest = largest.max(error / f64::from(value));
            }
            assert!(largest <= roundoff(dtype) && largest > 0.9 * roundoff(dtype), "{largest}");
        }
        let smallest = f64::from(decode(1, Dtype::F16));
        assert_eq!(smallest / 2.0, underflow(Dtype::F16));
        assert_eq!(f64::from(decode(1, Dtype::BF16)) / 2.0, underflow(Dtype::BF16));
    }

    #[test]
    fn runs_are_converted_like_single_values() {
        for dtype in DTYPES {
            let values = normals(&mut generator(2, "runs"), 77, 0.0, 300.0);
            let bits = encode_all(&values, dtype);
            let single: Vec<u16> = values.iter().map(|&value| encode(value, dtype)).collect();
            assert_eq!(bits, single);
            let back: Vec<f32> = bits.iter().map(|&bits| decode(bits, dtype)).collect();
            assert_eq!(decode_all(&bits, dtype), back);
        }
    }

    #[test]
    fn values_have_the_character_that_they_claim() {
        let matrix = |values: Values| {
            let bits = values.matrix(&mut generator(7, "values"), Dtype::F16, 64, 64);
            decode_all(&bits, Dtype::F16)
        };
        let of_normal = matrix(Values::Normal);
        let mean = of_normal.iter().sum::<f32>() / 4096.0;
        let variance = of_normal.iter().map(|v| v * v).sum::<f32>() / 4096.0;
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
        let even = uniforms(&mut generator(8, "even"), 4095, 2.0);
        let mean = even.iter().sum::<f32>() / 4095.0;
        let variance = even.iter().map(|v| v * v).sum::<f32>() / 4095.0;
        assert!(mean.abs() < 0.2 && (variance - 4.0).abs() < 0.3, "{mean} {variance}");
        let outliers = matrix(Values::Outliers);
        assert!(outliers.contains(&OUTLIER) && outliers.contains(&-OUTLIER));
        assert!(matrix(Values::Equal).iter().all(|&v| v == 0.75));
        let alternating = matrix(Values::Alternating);
        assert_eq!((alternating[0], alternating[1], alternating[64]), (3.0, -3.0, -3.0));
        assert!(matrix(Values::Tiny).iter().all(|v| v.abs() < 1e-6));
        assert_eq!(matrix(Values::Normal), of_normal, "seeds decide everything");
    }
}
