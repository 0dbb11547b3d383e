//! SHA-256 of what passes through.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// A reader that sums what is read through it.
pub(super) struct Summing<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Summing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// The sum in hexadecimal, and how many bytes it is of.
    pub(super) fn finish(self) -> (String, u64) {
        (hex(&self.hasher.finalize()), self.bytes)
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

/// The sum of all that a reader has.
pub(super) fn sum_of(reader: impl Read) -> io::Result<(String, u64)> {
    let mut summing = Summing::new(reader);
    io::copy(&mut summing, &mut io::sink())?;
    Ok(summing.finish())
}

/// The sum of these bytes.
pub(super) fn sum_of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
