//! The NumPy array file, format 1.0: little-endian `float32` of shape `[rows, width]`, C order.
//!
//! Source of the format: `numpy/lib/format.py`, "Format Version 1.0". The number of rows is known
//! only at the end, so the header has a fixed size and is written again then. Nothing here creates,
//! renames or removes files.

use std::io::{self, Seek, SeekFrom, Write};

/// Size of the header with everything before the data; room for any number of rows. A multiple of
/// 64, so that mapped data is aligned.
const HEADER_BYTES: usize = 128;
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// Writes rows of `width` values.
pub(crate) struct NpyWriter<W> {
    target: W,
    width: usize,
    rows: u64,
    /// One row as bytes.
    buffer: Vec<u8>,
}

impl<W: Write + Seek> NpyWriter<W> {
    /// Writes the header of an array without rows to `target`, which must be at its start.
    ///
    /// # Errors
    /// What the target says.
    pub(crate) fn new(mut target: W, width: usize) -> io::Result<Self> {
        target.write_all(&header(0, width)?)?;
        Ok(Self { target, width, rows: 0, buffer: Vec::with_capacity(4 * width) })
    }

    /// Appends one row.
    ///
    /// # Errors
    /// What the target says; `InvalidInput` for a row of another width.
    pub(crate) fn push(&mut self, row: &[f32]) -> io::Result<()> {
        if row.len() != self.width {
            let message = format!("row has {} values, the array's have {}", row.len(), self.width);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.buffer.clear();
        self.buffer.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        self.target.write_all(&self.buffer)?;
        self.rows += 1;
        Ok(())
    }

    /// Puts the number of rows into the header and gives the target back, flushed.
    ///
    /// # Errors
    /// What the target says.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.target.seek(SeekFrom::Start(0))?;
        self.target.write_all(&header(self.rows, self.width)?)?;
        self.target.flush()?;
        Ok(self.target)
    }
}

fn header(rows: u64, width: usize) -> io::Result<Vec<u8>> {
    let length = HEADER_BYTES - MAGIC.len() - 2;
    let dictionary =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    if dictionary.len() >= length {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "array shape is too large"));
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.resize(HEADER_BYTES - 1, b' ');
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_header_has_one_size_whatever_the_shape() {
        for (rows, width) in [(0, 1), (1, 384), (u64::MAX, 65_536)] {
            let header = header(rows, width).unwrap();
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.len(), HEADER_BYTES);
            let length = u16::from_le_bytes([header[8], header[9]]) as usize;
            assert_eq!(length + 10, header.len());
            assert_eq!(header.last(), Some(&b'\n'));
            let text = String::from_utf8(header[10..].to_vec()).unwrap();
            assert!(text.contains(&format!("'shape': ({rows}, {width}), }}")), "{text}");
        }
    }

    #[test]
    fn the_shape_is_patched_and_the_rows_follow_in_order() {
        let mut writer = NpyWriter::new(Cursor::new(Vec::new()), 2).unwrap();
        for row in [[1.0, -0.5], [f32::MIN_POSITIVE, 3.25], [0.0, 7.0]] {
            writer.push(&row).unwrap();
        }
        let bytes = writer.finish().unwrap().into_inner();
        assert_eq!(&bytes[..HEADER_BYTES], &header(3, 2).unwrap()[..]);
        let values: Vec<f32> = bytes[HEADER_BYTES..]
            .chunks_exact(4)
            .map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
            .collect();
        assert_eq!(values, [1.0, -0.5, f32::MIN_POSITIVE, 3.25, 0.0, 7.0]);
    }

    #[test]
    fn an_array_without_rows_is_its_header() {
        let writer = NpyWriter::new(Cursor::new(Vec::new()), 384).unwrap();
        assert_eq!(writer.finish().unwrap().into_inner(), header(0, 384).unwrap());
    }

    #[test]
    fn a_row_of_another_width_is_refused() {
        let mut writer = NpyWriter::new(Cursor::new(Vec::new()), 2).unwrap();
        let error = writer.push(&[1.0]).expect_err("one value");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
