//! 8-bit weights for the dense layers.
//!
//! Symmetric per output column: column n of W becomes round(W/s) with s = max|W| / limit, so the
//! largest weight of every column is exact and zero stays zero. Activations are quantised at run
//! time, in the graph.

/// A dense layer's weight as 8-bit integers.
pub(crate) struct QuantizedWeight {
    /// `[inputs, outputs]`, row-major: transposed, as the integer product wants it.
    pub(crate) values: Vec<i8>,
    /// One scale per output column.
    pub(crate) scales: Vec<f32>,
}

impl QuantizedWeight {
    /// Sum of each output column as it is after quantisation.
    pub(crate) fn column_sums(&self) -> Vec<f32> {
        let mut sums = vec![0_i32; self.scales.len()];
        for row in self.values.chunks_exact(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += i32::from(value));
        }
        sums.iter().zip(&self.scales).map(|(&sum, scale)| sum as f32 * scale).collect()
    }
}

/// Quantises `weight`, `[outputs, inputs]` row-major. Integers stay within ±`limit`.
pub(crate) fn per_column(weight: &[f32], inputs: usize, limit: i8) -> QuantizedWeight {
    let outputs = weight.len() / inputs;
    let mut values = vec![0; weight.len()];
    let mut scales = Vec::with_capacity(outputs);
    for (column, row) in weight.chunks_exact(inputs).enumerate() {
        let largest = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        // A column of zeros may have any scale.
        let scale = if largest > 0.0 { largest / f32::from(limit) } else { 1.0 };
        for (index, &value) in row.iter().enumerate() {
            // In range by the choice of scale; the cast saturates on rounding at the edge.
            values[index * outputs + column] = (value / scale).round() as i8;
        }
        scales.push(scale);
    }
    QuantizedWeight { values, scales }
}

/// Largest magnitude a weight may have on this machine.
///
/// Without a dot-product instruction the x86 kernels add two u8·i8 products in 16 bits and
/// saturate: 2·255·63 fits, 2·255·127 does not.
pub(crate) fn weight_limit() -> i8 {
    #[cfg(target_arch = "x86_64")]
    let exact = std::arch::is_x86_feature_detected!("avx512vnni")
        || std::arch::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let exact = true;
    if exact { 127 } else { 63 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_weight_comes_back_within_half_a_step(
            (inputs, weight) in (1_usize..9, 1_usize..9).prop_flat_map(|(inputs, outputs)| {
                (Just(inputs), prop::collection::vec(-4.0_f32..4.0, inputs * outputs))
            }),
            limit in prop::sample::select(vec![63_i8, 127]),
        ) {
            let quantized = per_column(&weight, inputs, limit);
            let outputs = quantized.scales.len();
            for (index, &value) in weight.iter().enumerate() {
                let (column, row) = (index / inputs, index % inputs);
                let integer = quantized.values[row * outputs + column];
                prop_assert!(integer.unsigned_abs() <= limit as u8);
                let back = f32::from(integer) * quantized.scales[column];
                prop_assert!((back - value).abs() <= quantized.scales[column] * 0.5001);
            }
        }
    }

    #[test]
    fn a_column_of_zeros_stays_zero() {
        let quantized = per_column(&[0.0, 0.0, 3.0, -1.5], 2, 127);
        assert_eq!(quantized.values, [0, 127, 0, -64]);
        assert!(quantized.scales.iter().all(|scale| scale.is_finite()));
        let sums = quantized.column_sums();
        assert!(sums[0] == 0.0 && (sums[1] - 63.0 * 3.0 / 127.0).abs() < 1e-6, "{sums:?}");
    }
}
