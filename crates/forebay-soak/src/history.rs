//! The history of a run: what its clients saw, written line by line as it happens, never changed.
//! `forebay-checker` has the format in words, and reads it with code of its own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::SoakError;
use crate::oracle::Oracle;

/// First line of a history.
const HEADER: &str = "forebay-soak-history,2";

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
    file: BufWriter<Box<dyn Write + Send>>,
    bytes: u64,
    bytes_max: u64,
    /// Why nothing is written any more.
    failed: Option<String>,
}

impl History {
    /// Begins a history.
    pub(crate) fn create(
        path: &Path,
        bytes_max: u64,
        rules: Rules,
        oracle: &Oracle,
    ) -> Result<Self, SoakError> {
        let file = File::create(path)
            .map_err(|error| SoakError::file("cannot create the history", path, error))?;
        Ok(Self::begin(path, Box::new(file), bytes_max, rules, oracle))
    }

    fn begin(
        path: &Path,
        file: Box<dyn Write + Send>,
        bytes_max: u64,
        rules: Rules,
        oracle: &Oracle,
    ) -> Self {
        let (path, file) = (path.to_owned(), BufWriter::new(file));
        let mut history = Self { path, file, bytes: 0, bytes_max, failed: None };
        let Rules { tolerance, slack_us, wait_us } = rules;
        history.line(format_args!("{HEADER}"));
        history.line(format_args!("rule,{tolerance},{slack_us},{wait_us}"));
        let length = if oracle.is_unit { "unit" } else { "own" };
        history.line(format_args!("length,{length}"));
        for (level, tolerance) in &oracle.tolerance_by_level {
            history.line(format_args!("tolerance,{},{tolerance}", field(level)));
        }
        for (text, vector) in oracle.vectors.iter().enumerate() {
            history.line(format_args!("text,{text},{}", base64(vector)));
        }
        history
    }

    /// One line. After the first that cannot be written none is: a history has no gaps, and the figures
    /// of a night are worth more than its history.
    pub(crate) fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.failed.is_some() {
            return;
        }
        let line = line.to_string();
        self.bytes += line.len() as u64 + 1;
        if self.bytes > self.bytes_max {
            let mib = self.bytes_max >> 20;
            self.failed =
                Some(format!("it would be larger than {mib} MiB (harness.history_mib_max)"));
            return;
        }
        let written = writeln!(self.file, "{line}");
        self.note(written);
    }

    /// Has everything on its way to the disk.
    pub(crate) fn flush(&mut self) {
        if self.failed.is_none() {
            let flushed = self.file.flush();
            self.note(flushed);
        }
    }

    fn note(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.failed = Some(format!("cannot write {}: {error}", self.path.display()));
        }
    }

    /// Why it is not whole, if it is not.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn history(file: Box<dyn Write + Send>, bytes_max: u64) -> History {
        let texts = vec!["a".to_owned(), "b".to_owned()];
        let oracle = Oracle::of(texts, vec![vec![1.0, 0.0], vec![0.0, 1.0]], 1e-3).unwrap();
        let rules = Rules { tolerance: 1e-3, slack_us: 1, wait_us: 1 };
        History::begin(Path::new("x"), file, bytes_max, rules, &oracle)
    }

    #[test]
    fn a_disk_that_is_full_ends_the_history_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut history = history(Box::new(full), u64::MAX);
        history.flush();
        assert!(history.failed().is_some_and(|why| why.contains("cannot write x")));
        history.line(format_args!("level,1,cpu"));
        history.flush();
    }

    #[test]
    fn a_history_has_a_bound() {
        let mut history = history(Box::new(std::io::sink()), 1000);
        assert_eq!(history.failed(), None);
        (0..1000).for_each(|at| history.line(format_args!("level,{at},cpu")));
        assert!(history.failed().is_some_and(|why| why.contains("history_mib_max")));
        assert!(history.bytes <= 1100, "{}", history.bytes);
    }
}
