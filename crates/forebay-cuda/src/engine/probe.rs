//! A probe batch: what a freshly loaded model computes, step by step, before it serves.
//!
//! It answers two questions: whether the activations stay inside the 16-bit type, and whether rows
//! come out as they must, of unit length. The ids spread over the vocabulary and hold the low ones,
//! where tokenizers keep their special tokens: those make the largest activations.

use super::encoder::Encoder;
use super::error::EngineError;
use super::layers::{Input, Layers};
use super::memory::part;
use crate::Dtype;
use crate::edge::{PinnedBuffer, Stream, download};
use crate::weights::{Geometry, largest_16};

/// Rows of the probe in tokens, before the model's own limit cuts them. Together they are fewer
/// than the smallest engine's batch.
const ROW_TOKENS: [u32; 5] = [1, 2, 17, 128, 200];

/// How far from 1 the length of a row may be.
const LENGTH_ERROR_MAX: f64 = 1e-3;

/// What the probe saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probed {
    /// Largest magnitude of any activation; NaN or infinite if one is.
    pub largest: f32,
    /// Where it was.
    pub place: String,
}

/// Runs the probe without a graph, on buffer 0.
///
/// # Errors
/// [`EngineError::Cuda`]; [`EngineError::SelfCheck`] if all activations are finite and a pooled row
/// is nevertheless wrong.
pub(crate) fn run(encoder: &mut Encoder, stream: &Stream) -> Result<Probed, EngineError> {
    let loaded = std::sync::Arc::clone(encoder.loaded());
    let (geometry, dtype) = (loaded.geometry, loaded.dtype);
    let (ids, boundaries) = batch(&geometry, loaded.workspace.plan().rows_max);
    let (tokens, rows) = (ids.len(), boundaries.len() - 1);

    let ids_at = part(boundaries.len() as u64 * 4) as usize;
    let rows_at = ids_at + part(tokens as u64 * 4) as usize;
    let row_bytes = geometry.row_values() as usize * size_of::<f32>();
    let mut host = PinnedBuffer::new(&loaded.context, rows_at + rows * row_bytes)?;
    let bytes = host.as_mut_bytes()?;
    store(&mut bytes[..ids_at], &boundaries);
    store(&mut bytes[ids_at..rows_at], &ids);
    let input = Input {
        ids: host.device_ptr(ids_at),
        boundaries: host.device_ptr(0),
        tokens: tokens as u32,
        rows: rows as u32,
    };

    let mut seen = Probed { largest: 0.0, place: "nothing".to_owned() };
    let mut buffer = vec![0; tokens * geometry.widest() as usize * Dtype::BYTES];
    encoder.run_watched(0, &input, stream, &mut |activations| {
        let values = &mut buffer[..tokens * activations.width as usize * Dtype::BYTES];
        download(stream, activations.at, values)?;
        let largest = largest_16(values, dtype);
        // NaN stays once it is seen: what comes after it says nothing more.
        if largest.is_nan() && !seen.largest.is_nan() || largest > seen.largest {
            let place = format!("layer {} {}", activations.layer, activations.what);
            seen = Probed { largest, place };
        }
        Ok(())
    })?;
    Layers::pool(&loaded, 0, rows as u32, host.device_ptr(rows_at), stream)?;
    stream.synchronize()?;
    if seen.largest.is_finite() {
        for (row, bytes) in host.as_bytes()?[rows_at..].chunks_exact(row_bytes).enumerate() {
            check_row(row, bytes)?;
        }
    }
    Ok(seen)
}

/// Ids and boundaries of the probe for a model that takes `rows_max` rows at a time.
fn batch(geometry: &Geometry, rows_max: u32) -> (Vec<u32>, Vec<u32>) {
    let (mut ids, mut boundaries) = (Vec::new(), vec![0]);
    for (row, tokens) in (0_u32..).zip(ROW_TOKENS).take(rows_max as usize) {
        let tokens = tokens.min(geometry.row_tokens_max);
        ids.extend((0..tokens).map(|token| match row % 2 {
            1 => token % geometry.vocab,
            // A step with no small factor walks over the whole table.
            _ => (u64::from(token + row) * 7919 % u64::from(geometry.vocab)) as u32,
        }));
        boundaries.push(ids.len() as u32);
    }
    (ids, boundaries)
}

fn store(bytes: &mut [u8], values: &[u32]) {
    for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
}

/// The embedding has unit length, and the length it had before is a positive number.
fn check_row(row: usize, bytes: &[u8]) -> Result<(), EngineError> {
    let values: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let Some((&norm, unit)) = values.split_last() else { return Ok(()) };
    let length = unit.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    if norm.is_finite() && norm > 0.0 && (length - 1.0).abs() < LENGTH_ERROR_MAX {
        return Ok(());
    }
    Err(EngineError::SelfCheck(format!(
        "row {row} of the probe batch has length {length} after scaling and {norm} before"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::input::check_input;
    use crate::engine::memory::TOKENS_MAX_MIN;
    use crate::weights::mini_geometry;

    #[test]
    fn the_probe_fits_every_engine() {
        let geometry = mini_geometry();
        for (row_tokens_max, vocab, rows_max) in [(512, 30_522, 1024), (16, 40, 8), (512, 200, 1)] {
            let geometry = Geometry { row_tokens_max, vocab, ..geometry };
            let (ids, boundaries) = batch(&geometry, rows_max);
            check_input(&geometry, &ids, &boundaries).unwrap();
            assert!(boundaries.len() - 1 <= rows_max as usize);
            assert!(ids.len() <= TOKENS_MAX_MIN as usize);
        }
    }

    #[test]
    fn a_wrong_row_is_refused() {
        let bytes = |values: [f32; 3]| values.map(f32::to_le_bytes).concat();
        check_row(0, &bytes([0.6, -0.8, 12.5])).unwrap();
        for wrong in [[0.6, -0.8, 0.0], [0.6, -0.7, 2.0], [0.6, -0.8, f32::NAN]] {
            let error = check_row(3, &bytes(wrong)).unwrap_err();
            assert!(error.to_string().contains("row 3"), "{error}");
        }
    }
}
