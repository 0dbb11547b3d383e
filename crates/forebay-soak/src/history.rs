//! The history of a run: what its clients saw, written line by line as it happens, never changed.
//! `forebay-checker` has the format in words, and reads it with code of its own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::SoakError;
use crate::oracle::Oracle;

/// First line of a history.
const HEADER: &str = "forebay-soak-history,1";

/// The rules of a run, as its history states them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// See [`Oracle::tolerance`].
    pub(crate) tolerance: f64,
    /// Time beyond a deadline within which a reply must be there, in microseconds.
    pub(crate) slack_us: u64,
    /// Time for a request without a deadline, in microseconds.
    pub(crate) wait_us: u64,
}

/// A history that is being written.
pub(crate) struct History {
    path: PathBuf,
    file: BufWriter<File>,
}

impl History {
    /// Begins a history.
    pub(crate) fn create(path: &Path, rules: Rules, oracle: &Oracle) -> Result<Self, SoakError> {
        let file = File::create(path)
            .map_err(|error| SoakError::file("cannot create the history", path, error))?;
        let mut history = Self { path: path.to_owned(), file: BufWriter::new(file) };
        let Rules { tolerance, slack_us, wait_us } = rules;
        history.line(format_args!("{HEADER}"))?;
        history.line(format_args!("rule,{tolerance},{slack_us},{wait_us}"))?;
        let length = if oracle.is_unit { "unit" } else { "own" };
        history.line(format_args!("length,{length}"))?;
        for (level, tolerance) in &oracle.tolerance_by_level {
            history.line(format_args!("tolerance,{},{tolerance}", field(level)))?;
        }
        for (text, vector) in oracle.vectors.iter().enumerate() {
            history.line(format_args!("text,{text},{}", base64(vector)))?;
        }
        Ok(history)
    }

    /// One line.
    pub(crate) fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), SoakError> {
        writeln!(self.file, "{line}")
            .map_err(|error| SoakError::file("cannot write the history", &self.path, error))
    }

    /// Has everything on its way to the disk.
    pub(crate) fn flush(&mut self) -> Result<(), SoakError> {
        self.file
            .flush()
            .map_err(|error| SoakError::file("cannot write the history", &self.path, error))
    }
}

/// Values as little-endian F32 in base64.
pub(crate) fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// A word that may stand in a field.
pub(crate) fn field(text: &str) -> String {
    text.chars()
        .map(|letter| if letter == ',' || letter.is_control() { ' ' } else { letter })
        .take(200)
        .collect()
}
