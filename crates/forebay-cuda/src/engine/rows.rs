//! Host memory to and from what the device reads and writes: little-endian words, row after row.

use super::error::EngineError;
use super::split::Chunk;

/// Writes the boundaries of `chunk`, counted from its own start, and its ids.
pub(crate) fn write_input(
    boundaries: &mut [u8],
    ids_bytes: &mut [u8],
    chunk: &Chunk,
    ids: &[u32],
    cu: &[u32],
) {
    write_boundaries(boundaries, chunk, cu);
    write_words(ids_bytes, ids[chunk.tokens.clone()].iter().copied());
}

/// Writes the boundaries of `chunk`, counted from its own start: one more than it has rows.
pub(crate) fn write_boundaries(out: &mut [u8], chunk: &Chunk, cu: &[u32]) {
    let start = cu[chunk.rows.start];
    write_words(out, cu[chunk.rows.start..=chunk.rows.end].iter().map(|&at| at - start));
}

fn write_words(out: &mut [u8], words: impl ExactSizeIterator<Item = u32>) {
    let (out, _) = out.as_chunks_mut::<4>();
    debug_assert!(words.len() <= out.len(), "{} words into {}", words.len(), out.len());
    for (out, word) in out.iter_mut().zip(words) {
        *out = word.to_le_bytes();
    }
}

/// Reads as many values as `out` holds.
pub(crate) fn store(bytes: &[u8], out: &mut [f32]) {
    let (values, _) = bytes.as_chunks::<4>();
    debug_assert!(values.len() >= out.len(), "{} values for {}", values.len(), out.len());
    for (out, &bytes) in out.iter_mut().zip(values) {
        *out = f32::from_le_bytes(bytes);
    }
}

/// Checks that the length before scaling, the last value of each row, is finite. It is the square
/// root of a sum over all values of the row, so it is not if any of them is not.
///
/// # Errors
/// [`EngineError::NonFinite`] with the first row that fails.
pub(crate) fn check_norms(rows: &[f32], row_values: usize) -> Result<(), EngineError> {
    let norms = rows.iter().skip(row_values - 1).step_by(row_values);
    match norms.enumerate().find(|(_, norm)| !norm.is_finite()) {
        Some((row, &norm)) => Err(EngineError::NonFinite { row, norm }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::split::split;

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
    }

    #[test]
    fn each_chunk_starts_at_its_own_zero() {
        let cu = [0, 3, 5, 9, 10];
        let ids: Vec<u32> = (100..110).collect();
        let chunks = split(&cu, 5, 8).unwrap();
        assert!(chunks.len() > 1);
        let mut rows = 0;
        for chunk in &chunks {
            let (mut boundaries, mut out) = ([0; 4 * 5], [0; 4 * 5]);
            write_input(&mut boundaries, &mut out, chunk, &ids, &cu);
            let boundaries = &words(&boundaries)[..=chunk.rows.len()];
            assert_eq!((boundaries[0], boundaries[chunk.rows.len()]), (0, chunk.token_count()));
            for (row, pair) in chunk.rows.clone().zip(boundaries.windows(2)) {
                let found = &words(&out)[pair[0] as usize..pair[1] as usize];
                assert_eq!(found, &ids[cu[row] as usize..cu[row + 1] as usize]);
                rows += 1;
            }
        }
        assert_eq!(rows, 4);
    }

    #[test]
    fn values_survive_and_a_bad_norm_is_found_in_its_row() {
        let values = [0.6_f32, 0.8, 5.0, 1.0, 0.0, 7.0];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut rows = [0.0; 6];
        store(&bytes, &mut rows);
        assert_eq!(rows, values);
        assert!(check_norms(&rows, 3).is_ok());
        for norm in [f32::NAN, f32::INFINITY] {
            rows[5] = norm;
            let error = check_norms(&rows, 3).unwrap_err();
            assert!(matches!(error, EngineError::NonFinite { row: 1, .. }), "{error}");
        }
        assert!(check_norms(&[], 3).is_ok());
    }
}
