//! What a batch must be before the device sees it: a kernel would read past a table otherwise.

use super::error::InputError;
use super::split::check_boundaries;
use crate::weights::Geometry;

/// Checks token ids and row boundaries against the model.
///
/// # Errors
/// [`InputError`] with the first thing that is wrong.
pub fn check_input(geometry: &Geometry, ids: &[u32], cu: &[u32]) -> Result<(), InputError> {
    check_boundaries(cu)?;
    let end = cu[cu.len() - 1];
    if end as usize != ids.len() {
        return Err(InputError::Length { end, ids: ids.len() });
    }
    let tokens_max = geometry.row_tokens_max;
    if let Some(row) = cu.windows(2).position(|pair| pair[1] - pair[0] > tokens_max) {
        let tokens = cu[row + 1] - cu[row];
        return Err(InputError::RowTooLong { row, tokens, tokens_max });
    }
    // The largest is found without a branch per id, so that long batches are checked in a moment.
    let vocab = geometry.vocab;
    if ids.iter().copied().max().is_none_or(|largest| largest < vocab) {
        return Ok(());
    }
    let (token, id) =
        ids.iter().copied().enumerate().find(|(_, id)| *id >= vocab).unwrap_or_default();
    let row = cu.partition_point(|&boundary| boundary as usize <= token).saturating_sub(1);
    Err(InputError::IdOutOfRange { row, id, vocab })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::mini_geometry;

    #[test]
    fn good_input_passes_and_each_fault_is_named() {
        let geometry = mini_geometry();
        let vocab = geometry.vocab;
        let check = |ids: &[u32], cu: &[u32]| check_input(&geometry, ids, cu);
        assert_eq!(check(&[1, 2, vocab - 1], &[0, 1, 3]), Ok(()));
        assert_eq!(check(&[], &[0]), Err(InputError::NoRows));
        assert_eq!(check(&[1, 2], &[0, 3]), Err(InputError::Length { end: 3, ids: 2 }));
        let boundary = InputError::Boundary { index: 1, value: 0 };
        assert_eq!(check(&[1, 2], &[0, 0, 2]), Err(boundary));
        let long = InputError::RowTooLong { row: 1, tokens: 513, tokens_max: 512 };
        assert_eq!(check(&[1; 514], &[0, 1, 514]), Err(long));
        assert_eq!(check(&[1; 513], &[0, 1, 513]), Ok(()));
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_found_in_its_row() {
        let geometry = mini_geometry();
        let (cu, vocab) = ([0, 2, 3, 7], geometry.vocab);
        for (token, expected) in [(0, 0), (1, 0), (2, 1), (3, 2), (6, 2)] {
            let mut ids = [5; 7];
            ids[token] = vocab;
            let error = check_input(&geometry, &ids, &cu).unwrap_err();
            assert_eq!(error, InputError::IdOutOfRange { row: expected, id: vocab, vocab });
        }
    }
}
