//! A buffer that a kernel writes: poisoned before the run, guarded on both sides, examined after.
//!
//! Between guard rows lie the rows of the bucket. What was written is told from what was not by
//! the poison pattern, so a kernel that leaves out an element, runs past the real tokens, or
//! writes in front of its buffer is found even if the values would have passed. Nothing here knows
//! what the right values are.

/// Guard rows on each side: a multiple of 8, so that a buffer stays aligned to 16 bytes.
pub(super) const GUARD_ROWS: usize = 8;

/// Rows of a device buffer, with guards, as bits of type `T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output<T> {
    data: Vec<T>,
    poison: T,
    width: usize,
    rows: usize,
}

impl<T: Copy + PartialEq + std::fmt::LowerHex> Output<T> {
    /// `rows` rows of `width` elements, all poison.
    pub(super) fn poisoned(rows: usize, width: usize, poison: T) -> Self {
        Self { data: vec![poison; (rows + 2 * GUARD_ROWS) * width], poison, width, rows }
    }

    /// The same with its first rows set, for a kernel that works in place.
    pub(super) fn holding(rows: usize, width: usize, poison: T, content: &[T]) -> Self {
        let mut output = Self::poisoned(rows, width, poison);
        let start = GUARD_ROWS * width;
        output.data[start..start + content.len()].copy_from_slice(content);
        output
    }

    /// Everything, guards included: what is copied to the device and back.
    pub(super) fn all(&self) -> &[T] {
        &self.data
    }

    /// The same, to be overwritten by what the device holds.
    pub(super) fn all_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// Elements in front of the first row that the kernel is told about.
    pub(super) fn guard_elements(&self) -> usize {
        GUARD_ROWS * self.width
    }

    /// Elements of one row.
    #[cfg(test)]
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The first `rows` rows, without guards.
    pub(super) fn head(&self, rows: usize) -> &[T] {
        let start = self.guard_elements();
        &self.data[start..start + rows * self.width]
    }

    /// One row.
    pub(super) fn row(&self, row: usize) -> &[T] {
        &self.head(row + 1)[row * self.width..]
    }

    /// Checks that all of the first `written` rows were written, and that nothing else was but,
    /// where the kernel works in whole tiles, rows up to `allowed`.
    ///
    /// # Errors
    /// What was not written, or written without permission, with the place.
    pub(super) fn examine(&self, written: usize, allowed: usize) -> Result<(), String> {
        let place = |index: usize| {
            let row = (index / self.width) as i64 - GUARD_ROWS as i64;
            format!("row {row} column {}", index % self.width)
        };
        let (start, end) = (self.guard_elements(), self.guard_elements() + written * self.width);
        if let Some(gap) = self.data[start..end].iter().position(|&bits| bits == self.poison) {
            return Err(format!("{} was not written", place(start + gap)));
        }
        let free = end.max(start + allowed * self.width);
        let strays = |range: std::ops::Range<usize>| {
            range.into_iter().find(|&index| self.data[index] != self.poison)
        };
        if let Some(index) = strays(0..start).or_else(|| strays(free..self.data.len())) {
            return Err(format!(
                "{} was written ({:#x}) but only rows 0..{written} of {} are real",
                place(index),
                self.data[index],
                self.rows
            ));
        }
        Ok(())
    }
}

/// A token matrix as the device gets it: its rows, then poison up to the bucket and a guard more.
pub(super) fn padded(matrix: &[u16], width: usize, bucket: usize, poison: u16) -> Vec<u16> {
    let mut padded = matrix.to_vec();
    padded.resize((bucket + GUARD_ROWS) * width, poison);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: std::ops::Range<i64>) -> Output<u16> {
        let mut output = Output::poisoned(4, 3, 0x7FAD);
        for row in rows {
            let start = ((row + GUARD_ROWS as i64) * 3) as usize;
            output.all_mut()[start..start + 3].fill(1);
        }
        output
    }

    #[test]
    fn exactly_the_real_rows_pass() {
        assert_eq!(written(0..2).examine(2, 2), Ok(()));
        assert_eq!(written(0..4).examine(2, 4), Ok(()));
        assert_eq!(written(0..4).examine(4, 4), Ok(()));
    }

    #[test]
    fn gaps_and_strays_are_found_with_their_place() {
        let refused = |output: Output<u16>, rows| output.examine(rows, rows).unwrap_err();
        assert!(refused(written(0..1), 2).contains("row 1 column 0 was not written"));
        assert!(refused(written(0..3), 2).contains("row 2 column 0 was written (0x1)"));
        assert!(refused(written(-1..2), 2).contains("row -1 column 0 was written"));
        assert!(written(0..5).examine(2, 4).unwrap_err().contains("row 4 column 0 was written"));
        let mut gap = written(0..2);
        let last = gap.guard_elements() + 5;
        gap.all_mut()[last] = 0x7FAD;
        assert!(refused(gap, 2).contains("row 1 column 2 was not written"));
    }

    #[test]
    fn rows_are_found_behind_the_guard() {
        let output = Output::holding(2, 2, 9_u16, &[1, 2, 3]);
        assert_eq!((output.row(0), output.row(1)), (&[1, 2][..], &[3, 9][..]));
        assert_eq!(output.head(2), [1, 2, 3, 9]);
        assert_eq!(padded(&[1, 2], 2, 2, 7)[..6], [1, 2, 7, 7, 7, 7]);
    }
}
