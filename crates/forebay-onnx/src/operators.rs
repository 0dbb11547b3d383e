//! Operators of our own for INT8 layers: what standard operators take a pass over all values for
//! each, in one pass before the integer product and one after it.
//!
//! Both work on one token at a time, so a token's values do not depend on what else is in the run, or
//! on how many threads share it.

use std::sync::{Mutex, PoisonError};

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput,
    OperatorOutput,
};
use ort::value::{TensorElementType, ValueRef};

use crate::error::OnnxError;

/// The domain of these operators.
pub(crate) const DOMAIN: &str = "forebay";
/// f32 `[tokens, width]` to u8 `[tokens, width]`, and f32 `[tokens, 2]`: scale and least value.
pub(crate) const QUANTIZE_TOKENS: &str = "QuantizeTokens";
/// An integer product as f32 `[tokens, outputs]`, the second output of [`QUANTIZE_TOKENS`], and per
/// output the sum of its weights and its bias: what the layer gives, f32 `[tokens, outputs]`.
pub(crate) const RESCALE_TOKENS: &str = "RescaleTokens";

/// Keeps a token of equal values from dividing by zero; far below any scale that carries
/// information.
const SCALE_MIN: f32 = 1e-30;
/// Values of a token that are looked at together: enough for the widest vector units.
const LANES: usize = 16;
/// Fewer values are not worth another thread.
const VALUES_PER_THREAD_MIN: usize = 8_192;
/// Added to a value from 0 to 255, it leaves the nearest integer (of two the even one) in the lowest
/// bits: 1.5 * 2^23, from where on floats are whole numbers.
const NEAREST: f32 = 12_582_912.0;

/// The operators, for a session of so many threads.
pub(crate) fn domain(threads: usize) -> Result<OperatorDomain, OnnxError> {
    OperatorDomain::new(DOMAIN)
        .and_then(|domain| domain.add(QuantizeTokens { threads }))
        .and_then(|domain| domain.add(RescaleTokens { threads }))
        .map_err(OnnxError::runtime("make operators"))
}

struct QuantizeTokens {
    threads: usize,
}

impl Operator for QuantizeTokens {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        QUANTIZE_TOKENS
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [TensorElementType::Uint8, TensorElementType::Float32].map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let threads = self.threads;
        Ok(Box::new(move |context: &ComputeContext| {
            let input = input(context, 0)?;
            let (tokens, width, values) = matrix(&input)?;
            let (mut quantized, mut ranges) =
                (output(context, 0, [tokens, width])?, output(context, 1, [tokens, 2])?);
            let (_, quantized) = quantized.try_extract_tensor_mut::<u8>()?;
            let (_, ranges) = ranges.try_extract_tensor_mut::<f32>()?;
            let step = step(tokens, width, threads);
            let parts = values
                .chunks(step * width)
                .zip(quantized.chunks_mut(step * width))
                .zip(ranges.chunks_mut(step * 2));
            in_parts(context, parts.collect(), |((values, quantized), ranges)| {
                let tokens = values.chunks_exact(width).zip(quantized.chunks_exact_mut(width));
                for ((values, quantized), range) in tokens.zip(ranges.chunks_exact_mut(2)) {
                    range.copy_from_slice(&quantize(values, quantized));
                }
            })
        }))
    }
}

struct RescaleTokens {
    threads: usize,
}

impl Operator for RescaleTokens {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        RESCALE_TOKENS
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [const { OperatorInput::required(TensorElementType::Float32) }; 4]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let threads = self.threads;
        Ok(Box::new(move |context: &ComputeContext| {
            let (product, ranges) = (input(context, 0)?, input(context, 1)?);
            let (sums, bias) = (input(context, 2)?, input(context, 3)?);
            let (tokens, width, product) = matrix(&product)?;
            let (_, _, ranges) = matrix(&ranges)?;
            let (_, sums) = sums.try_extract_tensor::<f32>()?;
            let (_, bias) = bias.try_extract_tensor::<f32>()?;
            let mut rescaled = output(context, 0, [tokens, width])?;
            let (_, rescaled) = rescaled.try_extract_tensor_mut::<f32>()?;
            let step = step(tokens, width, threads);
            let parts = product
                .chunks(step * width)
                .zip(rescaled.chunks_mut(step * width))
                .zip(ranges.chunks(step * 2));
            in_parts(context, parts.collect(), |((product, rescaled), ranges)| {
                let tokens = product.chunks_exact(width).zip(rescaled.chunks_exact_mut(width));
                for ((product, rescaled), range) in tokens.zip(ranges.chunks_exact(2)) {
                    rescale(product, [range[0], range[1]], (sums, bias), rescaled);
                }
            })
        }))
    }
}

fn input(context: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    context.input(index)?.ok_or_else(|| ort::Error::new(format!("input {index} is missing")))
}

fn output(
    context: &ComputeContext,
    index: usize,
    shape: [usize; 2],
) -> ort::Result<ort::value::ValueRefMut<'_>> {
    let output = context.output(index, shape)?;
    output.ok_or_else(|| ort::Error::new(format!("output {index} is missing")))
}

/// Rows, columns and values of an f32 matrix.
fn matrix<'v>(value: &'v ValueRef<'_>) -> ort::Result<(usize, usize, &'v [f32])> {
    let (shape, values) = value.try_extract_tensor::<f32>()?;
    match **shape {
        [rows, columns] if rows >= 0 && columns > 0 => {
            Ok((rows as usize, columns as usize, values))
        }
        _ => Err(ort::Error::new(format!("{shape:?} is no matrix"))),
    }
}

/// Tokens that one thread takes.
fn step(tokens: usize, width: usize, threads: usize) -> usize {
    let parts = (tokens * width / VALUES_PER_THREAD_MIN).clamp(1, threads.max(1));
    tokens.div_ceil(parts).max(1)
}

/// Does each part, in the threads of the session if there are several.
fn in_parts<T: Send>(
    context: &ComputeContext,
    mut parts: Vec<T>,
    work: impl Fn(&mut T) + Send + Sync,
) -> ort::Result<()> {
    if parts.len() <= 1 {
        parts.iter_mut().for_each(work);
        return Ok(());
    }
    let parts: Vec<Mutex<T>> = parts.into_iter().map(Mutex::new).collect();
    context.par_for(parts.len(), parts.len(), |index| {
        // Each is taken once, by one thread.
        work(&mut parts[index].lock().unwrap_or_else(PoisonError::into_inner));
    })
}

/// Maps one token's values onto 0..=255 from the least to the greatest; gives scale and least value.
/// A value that is not finite makes the scale a number that is none, and with it all that follows.
fn quantize(values: &[f32], quantized: &mut [u8]) -> [f32; 2] {
    let (mut least, mut greatest) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut poison = [0.0_f32; LANES];
    let mut see = |lane: usize, value: f32| {
        least[lane] = if value < least[lane] { value } else { least[lane] };
        greatest[lane] = if value > greatest[lane] { value } else { greatest[lane] };
        poison[lane] += value * 0.0;
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in chunk.iter().enumerate() {
            see(lane, value);
        }
    }
    rest.iter().enumerate().for_each(|(lane, &value)| see(lane, value));
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    let greatest = greatest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let poison: f32 = poison.into_iter().sum();
    let scale = ((greatest - least) * (1.0 / 255.0)).max(SCALE_MIN) + poison;
    let per_step = scale.recip();
    for (quantized, value) in quantized.iter_mut().zip(values) {
        *quantized = ((value - least) * per_step + NEAREST).to_bits() as u8;
    }
    [scale, least]
}

/// One token's product in the layer's own scale.
fn rescale(product: &[f32], range: [f32; 2], (sums, bias): (&[f32], &[f32]), rescaled: &mut [f32]) {
    let [scale, least] = range;
    let columns = product.iter().zip(sums.iter().zip(bias));
    for (rescaled, (product, (sum, bias))) in rescaled.iter_mut().zip(columns) {
        *rescaled = product * scale + (least * sum + bias);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_value_comes_back_within_half_a_step(
            values in prop::collection::vec(-30.0_f32..30.0, 1..70),
        ) {
            let mut quantized = vec![7; values.len()];
            let [scale, least] = quantize(&values, &mut quantized);
            for (quantized, value) in quantized.iter().zip(&values) {
                let back = least + scale * f32::from(*quantized);
                prop_assert!((back - value).abs() <= scale * 0.501, "{back} for {value}");
            }
            let (first, last) = (quantized.iter().min(), quantized.iter().max());
            prop_assert!(first == Some(&0) && (last == Some(&255) || scale == SCALE_MIN));
        }

        #[test]
        fn one_value_that_is_not_finite_is_not_lost(
            mut values in prop::collection::vec(-30.0_f32..30.0, 1..70),
            place in any::<prop::sample::Index>(),
            bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        ) {
            *place.get_mut(&mut values) = bad;
            let range = quantize(&values, &mut vec![0; values.len()]);
            let mut rescaled = [0.0; 3];
            rescale(&[1.0, 0.0, -2.0], range, (&[0.5; 3], &[0.1; 3]), &mut rescaled);
            prop_assert!(rescaled.iter().all(|value| !value.is_finite()), "{rescaled:?}");
        }
    }

    #[test]
    fn equal_values_need_no_scale() {
        let mut quantized = [9; 5];
        let [scale, least] = quantize(&[2.5; 5], &mut quantized);
        assert_eq!((scale, least, quantized), (SCALE_MIN, 2.5, [0; 5]));
    }

    #[test]
    fn threads_share_what_is_worth_it() {
        assert_eq!(step(0, 384, 2), 1);
        assert_eq!(step(11, 384, 2), 11);
        assert_eq!([step(100, 384, 1), step(100, 384, 2), step(101, 384, 3)], [100, 50, 34]);
    }
}
