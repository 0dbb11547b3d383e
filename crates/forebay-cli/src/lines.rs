//! Lines of a stream, with a bound on each.
//!
//! A line ends with `\n`, or `\r\n`, or the end of the stream; an empty line is a line. The reader
//! keeps at most one line and one buffer in memory: a line beyond the bound is not kept but counted
//! to its end, so that the error can say how long it is. Nothing here looks at what a line says.

use std::io::{self, BufRead};

/// Bytes of an overlong line after which counting it stops: an endless line is an answer too.
const COUNTED_BYTES_MAX: u64 = 1 << 30;

/// Why there is no further line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The stream could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The line is longer than the bound.
    #[error("{}{bytes} bytes", if *counted { "" } else { "more than " })]
    TooLong {
        /// Its length in bytes, without the line's end.
        bytes: u64,
        /// Whether the line was counted to its end.
        counted: bool,
    },
}

/// Reads lines one by one.
pub(crate) struct Lines<R> {
    stream: R,
    bytes_max: usize,
    /// Lines begun, and bytes consumed before the line begun last.
    number: u64,
    offset: u64,
    consumed: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `bytes_max` bytes, their ends not counted.
    pub(crate) fn new(stream: R, bytes_max: usize) -> Self {
        Self { stream, bytes_max, number: 0, offset: 0, consumed: 0 }
    }

    /// Number of the line read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the stream before the line read last.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the stream up to the end of the line read last.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Puts the next line into `line`, without its end; `false` at the end of the stream.
    ///
    /// # Errors
    /// [`LineError`]; no further line should be asked for then.
    pub(crate) fn read(&mut self, line: &mut Vec<u8>) -> Result<bool, LineError> {
        line.clear();
        self.offset = self.consumed;
        let mut begun = false;
        loop {
            let buffer = match self.stream.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if buffer.is_empty() {
                return if begun { self.checked(line).map(|()| true) } else { Ok(false) };
            }
            if !begun {
                begun = true;
                self.number += 1;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            // One byte more than allowed may be the `\r` of the line's end.
            if line.len() + part.len() > self.bytes_max + 1 {
                let kept = line.len() as u64;
                return Err(self.overlong(kept));
            }
            line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.stream.consume(used);
            self.consumed += used as u64;
            if end.is_some() {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return self.checked(line).map(|()| true);
            }
        }
    }

    fn checked(&self, line: &[u8]) -> Result<(), LineError> {
        if line.len() <= self.bytes_max {
            return Ok(());
        }
        Err(LineError::TooLong { bytes: line.len() as u64, counted: true })
    }

    /// Counts a line, of which `bytes` have been consumed, to its end.
    fn overlong(&mut self, mut bytes: u64) -> LineError {
        let mut last = None;
        while bytes < COUNTED_BYTES_MAX {
            let buffer = match self.stream.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return error.into(),
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            last = part.last().copied().or(last);
            bytes += part.len() as u64;
            if end.is_some() || buffer.is_empty() {
                let carriage_return = end.is_some() && last == Some(b'\r');
                return LineError::TooLong {
                    bytes: bytes - u64::from(carriage_return),
                    counted: true,
                };
            }
            let used = part.len();
            self.stream.consume(used);
        }
        LineError::TooLong { bytes, counted: false }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8], buffer: usize, bytes_max: usize) -> (Vec<Vec<u8>>, Option<u64>) {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, bytes), bytes_max);
        let (mut found, mut line) = (Vec::new(), Vec::new());
        loop {
            match lines.read(&mut line) {
                Ok(true) => found.push(line.clone()),
                Ok(false) => return (found, None),
                Err(LineError::TooLong { bytes, counted: true }) => return (found, Some(bytes)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Splits the whole text at once.
    fn model(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let unended = parts.pop().unwrap();
        let mut lines: Vec<Vec<u8>> =
            parts.into_iter().map(|part| part.strip_suffix(b"\r").unwrap_or(part).into()).collect();
        if !unended.is_empty() {
            lines.push(unended.into());
        }
        lines
    }

    proptest! {
        #[test]
        fn any_bytes_split_as_in_the_model(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..200),
            buffer in 1_usize..40,
            bytes_max in 0_usize..20,
        ) {
            let (found, too_long) = read_all(&bytes, buffer, bytes_max);
            let expected = model(&bytes);
            let fitting = expected.iter().take_while(|line| line.len() <= bytes_max).count();
            prop_assert_eq!(&found[..], &expected[..fitting]);
            prop_assert_eq!(too_long, expected.get(fitting).map(|line| line.len() as u64));
        }
    }

    #[test]
    fn an_unended_last_line_counts_and_an_empty_stream_has_none() {
        assert_eq!(read_all(b"a\n\nb", 8, 9).0, [&b"a"[..], b"", b"b"]);
        assert_eq!(read_all(b"a\n", 8, 9).0, [b"a"]);
        assert!(read_all(b"", 8, 9).0.is_empty());
    }

    #[test]
    fn a_line_without_end_is_given_up_and_not_kept() {
        let endless = BufReader::new(io::repeat(b'x'));
        let mut line = Vec::new();
        let error = Lines::new(endless, 1000).read(&mut line).expect_err("too long");
        assert!(error.to_string().starts_with("more than"), "{error}");
        assert!(line.capacity() < 100_000);
    }

    #[test]
    fn the_place_of_a_line_is_known() {
        let mut lines = Lines::new(&b"ab\r\nc\n"[..], 9);
        let mut line = Vec::new();
        lines.read(&mut line).unwrap();
        assert_eq!((lines.number(), lines.offset(), lines.consumed()), (1, 0, 4));
        lines.read(&mut line).unwrap();
        assert_eq!((lines.number(), lines.offset(), lines.consumed()), (2, 4, 6));
    }

    #[test]
    fn a_failed_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::Other.into())
            }
        }
        let error = Lines::new(BufReader::new(Broken), 9).read(&mut Vec::new());
        assert!(matches!(error, Err(LineError::Read(_))));
    }
}
