//! Cuts a request into device batches ("chunks") of whole sequences.
//!
//! The number of chunks is the smallest that the limits allow, and the tokens are spread evenly
//! over them: a last chunk of a few tokens would cost almost as much time as a full one. Sequences
//! keep their order and are never cut; what does not fit alone is an error of the input.

use std::ops::Range;

use super::error::InputError;

/// A run of whole sequences that goes to the device as one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Sequences, counted in the request.
    pub rows: Range<usize>,
    /// Their tokens, counted in the request.
    pub tokens: Range<usize>,
}

impl Chunk {
    /// Number of tokens.
    #[must_use]
    pub fn token_count(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Number of sequences.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.rows.len() as u32
    }
}

/// Splits the sequences with boundaries `cu` (`rows + 1` values that rise from 0) into chunks of at
/// most `tokens_max` tokens and `rows_max` sequences.
///
/// # Errors
/// [`InputError`] if `cu` is not a sequence of boundaries that rises strictly from 0, or if a
/// sequence alone has more than `tokens_max` tokens.
pub fn split(cu: &[u32], tokens_max: u32, rows_max: u32) -> Result<Vec<Chunk>, InputError> {
    check_boundaries(cu)?;
    let rows = cu.len() - 1;
    let (tokens_max, rows_max) = (tokens_max.max(1), rows_max.max(1) as usize);
    if let Some(row) = (0..rows).find(|&row| cu[row + 1] - cu[row] > tokens_max) {
        let tokens = cu[row + 1] - cu[row];
        return Err(InputError::RowTooLong { row, tokens, tokens_max });
    }
    if cu[rows] <= tokens_max && rows <= rows_max {
        return Ok(vec![Chunk { rows: 0..rows, tokens: 0..cu[rows] as usize }]);
    }

    let needed = chunks_needed(cu, tokens_max, rows_max);
    let mut chunks = Vec::with_capacity(needed[0]);
    let mut start = 0;
    while start < rows {
        // Greedy filling never needs more chunks from `start` on, so `left` chunks are enough.
        let left = needed[0] - chunks.len();
        let remaining = u64::from(cu[rows] - cu[start]);
        let mut end = start + 1;
        while end < rows && end - start < rows_max && cu[end + 1] - cu[start] <= tokens_max {
            // The next sequence belongs to this chunk if its middle lies within the even share.
            let ends = u64::from(cu[end] - cu[start]) + u64::from(cu[end + 1] - cu[start]);
            if needed[end] < left && ends * left as u64 > 2 * remaining {
                break;
            }
            end += 1;
        }
        chunks.push(Chunk { rows: start..end, tokens: cu[start] as usize..cu[end] as usize });
        start = end;
    }
    Ok(chunks)
}

/// Checks that `cu` holds boundaries of at least one sequence and of no empty one.
///
/// # Errors
/// [`InputError::NoRows`] or [`InputError::Boundary`] with the first boundary that is wrong.
pub(crate) fn check_boundaries(cu: &[u32]) -> Result<(), InputError> {
    if cu.len() < 2 {
        return Err(InputError::NoRows);
    }
    if cu[0] != 0 {
        return Err(InputError::Boundary { index: 0, value: cu[0] });
    }
    match cu.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(row) => Err(InputError::Boundary { index: row + 1, value: cu[row + 1] }),
        None => Ok(()),
    }
}

/// For every row, the smallest number of chunks that hold it and all rows behind it.
fn chunks_needed(cu: &[u32], tokens_max: u32, rows_max: usize) -> Vec<usize> {
    let rows = cu.len() - 1;
    let mut needed = vec![0; rows + 1];
    let mut end = rows;
    for start in (0..rows).rev() {
        while cu[end] - cu[start] > tokens_max || end - start > rows_max {
            end -= 1;
        }
        needed[start] = 1 + needed[end];
    }
    needed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn boundaries(lengths: &[u32]) -> Vec<u32> {
        let mut cu = vec![0];
        cu.extend(lengths.iter().scan(0, |end, &length| {
            *end += length;
            Some(*end)
        }));
        cu
    }

    fn sizes(lengths: &[u32], tokens_max: u32, rows_max: u32) -> Vec<u32> {
        let chunks = split(&boundaries(lengths), tokens_max, rows_max).unwrap();
        chunks.iter().map(Chunk::token_count).collect()
    }

    #[test]
    fn tokens_are_spread_evenly() {
        assert_eq!(sizes(&[128; 64], 8192, 1024), [8192]);
        assert_eq!(sizes(&[128; 256], 8192, 1024), [8192; 4]);
        assert_eq!(sizes(&[100; 6], 500, 100), [300, 300]);
        assert_eq!(sizes(&[100; 7], 300, 100), [200, 300, 200]);
        assert_eq!(sizes(&[1; 10], 500, 4), [3, 4, 3]);
    }

    #[test]
    fn what_makes_no_chunk_is_refused() {
        assert_eq!(split(&[], 512, 8), Err(InputError::NoRows));
        assert_eq!(split(&[0], 512, 8), Err(InputError::NoRows));
        assert_eq!(split(&[1, 2], 512, 8), Err(InputError::Boundary { index: 0, value: 1 }));
        assert_eq!(split(&[0, 2, 2], 512, 8), Err(InputError::Boundary { index: 2, value: 2 }));
        assert_eq!(split(&[0, 4, 3], 512, 8), Err(InputError::Boundary { index: 2, value: 3 }));
        let long = InputError::RowTooLong { row: 1, tokens: 600, tokens_max: 512 };
        assert_eq!(split(&[0, 5, 605], 512, 8), Err(long));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 400,
            rng_seed: RngSeed::Fixed(0x5917),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Chunks tile the request in order, keep the limits, and are as few as can be.
        #[test]
        fn chunks_tile_the_request(
            lengths in prop::collection::vec(1..=512_u32, 1..300),
            tokens_max in 512..9000_u32,
            rows_max in 1..100_u32,
        ) {
            let cu = boundaries(&lengths);
            let chunks = split(&cu, tokens_max, rows_max).unwrap();
            let mut next = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.rows.start, next);
                prop_assert!(!chunk.rows.is_empty());
                prop_assert!(chunk.row_count() <= rows_max && chunk.token_count() <= tokens_max);
                prop_assert_eq!(chunk.tokens.start, cu[chunk.rows.start] as usize);
                prop_assert_eq!(chunk.tokens.end, cu[chunk.rows.end] as usize);
                next = chunk.rows.end;
            }
            prop_assert_eq!(next, lengths.len());

            // Filling each chunk as far as it goes gives the smallest number.
            let (mut fewest, mut tokens, mut rows) = (1, 0, 0);
            for &length in &lengths {
                if tokens + length > tokens_max || rows == rows_max {
                    (fewest, tokens, rows) = (fewest + 1, 0, 0);
                }
                (tokens, rows) = (tokens + length, rows + 1);
            }
            prop_assert_eq!(chunks.len(), fewest);
        }

        /// Sequences of one length fall into chunks that differ by at most one sequence, unless
        /// the number of sequences of a chunk is what limits it.
        #[test]
        fn equal_sequences_make_equal_chunks(
            length in 1..=512_u32,
            rows in 1..400_usize,
            tokens_max in 512..9000_u32,
        ) {
            let sizes = sizes(&vec![length; rows], tokens_max, 100_000);
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(most - least <= length, "{sizes:?} of {length}");
        }
    }
}
