//! Whether F16 can carry a model, judged by numbers that were really seen.
//!
//! F16 ends at 65,504. A model whose weights or activations come within a factor of two of that on
//! an ordinary text may pass it on another one, so it runs in BF16, which has the range of f32 and
//! fewer digits. Nothing here decides on its own: the engine asks and logs the reason.

use half::{bf16, f16};

use crate::Dtype;

/// Largest magnitude that F16 is trusted with.
pub(crate) const F16_LIMIT: f32 = 3e4;

/// Largest magnitude among the little-endian 16-bit elements in `bytes`: NaN or infinite if one of
/// them is.
pub(crate) fn largest_16(bytes: &[u8], dtype: Dtype) -> f32 {
    let (values, _) = bytes.as_chunks::<2>();
    let of = |&bytes: &[u8; 2]| match dtype {
        Dtype::F16 => f16::from_le_bytes(bytes).to_f32(),
        Dtype::BF16 => bf16::from_le_bytes(bytes).to_f32(),
    };
    values.iter().map(of).fold(0.0, larger)
}

/// The larger magnitude; NaN wins, as it must be seen.
pub(crate) fn larger(largest: f32, value: f32) -> f32 {
    let value = value.abs();
    if value > largest || value.is_nan() { value } else { largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
        let of = |&value: &f32| match dtype {
            Dtype::F16 => f16::from_f32(value).to_le_bytes(),
            Dtype::BF16 => bf16::from_f32(value).to_le_bytes(),
        };
        values.iter().flat_map(of).collect()
    }

    #[test]
    fn the_largest_magnitude_of_either_sign_is_found() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            assert_eq!(largest_16(&bytes(&[1.0, -40.0, 3.0], dtype), dtype), 40.0);
            assert_eq!(largest_16(&[], dtype), 0.0);
            let infinite = bytes(&[f32::NEG_INFINITY, 1.0], dtype);
            assert_eq!(largest_16(&infinite, dtype), f32::INFINITY);
        }
    }

    #[test]
    fn nan_is_never_hidden_by_what_comes_before_or_after() {
        for at in 0..3 {
            let mut values = [7.0, f32::INFINITY, 2.0];
            values[at] = f32::NAN;
            assert!(largest_16(&bytes(&values, Dtype::F16), Dtype::F16).is_nan(), "{at}");
        }
    }
}
