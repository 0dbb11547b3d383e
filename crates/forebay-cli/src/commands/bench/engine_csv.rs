//! The figures of `forebay bench engine`: one row for each case, as a table for people and as CSV
//! for `benches/gpu.py`, which reads the columns by name.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::engine_cases::{Case, Packed, Shape};
use super::engine_runs::Times;
use crate::failure::{Exit, Failure};

/// One case in one precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// `shape` or `mix`.
    pub(super) case: &'static str,
    /// Name of the model folder.
    pub(super) model: String,
    /// What really ran.
    pub(super) precision: String,
    /// Rows of a batch.
    pub(super) rows: usize,
    /// Tokens of a row; of a mix the mean, with decimals.
    pub(super) tokens_per_row: String,
    /// Tokens of a batch; of a mix the mean over its batches.
    pub(super) tokens: f64,
    /// Device time of a batch: encoder and pooling, input in place.
    pub(super) device_ms_p50: f64,
    pub(super) device_ms_min: f64,
    /// From token ids in host memory to rows in host memory, nothing else under way.
    pub(super) host_ms_p50: f64,
    pub(super) host_ms_p99: f64,
    /// Runs of a waiting caller; of a mix, of each batch.
    pub(super) runs: usize,
    /// By device time.
    pub(super) texts_per_s: f64,
    pub(super) tokens_per_s: f64,
}

impl Row {
    /// The row of a case from the times that were taken: one for a shape, one for each batch of a
    /// mix. `None` if there are no times.
    pub(super) fn of(case: &Case, times: &[Times], model: &str, precision: &str) -> Option<Self> {
        let count = times.len() as f64;
        let mean = |value: fn(&Times) -> f64| times.iter().map(value).sum::<f64>() / count;
        let batches = case.batches();
        let tokens = batches.iter().map(|batch| batch.ids.len()).sum::<usize>() as f64
            / batches.len() as f64;
        let rows = batches.iter().map(Packed::rows).next()?;
        let (case, tokens_per_row) = match case {
            Case::Shape { shape: Shape { tokens, .. }, .. } => ("shape", tokens.to_string()),
            Case::Mix { rows, .. } => ("mix", format!("{:.3}", tokens / *rows as f64)),
        };
        let device_ms_p50 = mean(|times| times.device_ms_p50);
        Some(Self {
            case,
            model: model.to_owned(),
            precision: precision.to_owned(),
            rows,
            tokens_per_row,
            tokens,
            device_ms_p50,
            device_ms_min: mean(|times| times.device_ms_min),
            host_ms_p50: mean(|times| times.host_ms_p50),
            host_ms_p99: times.iter().map(|times| times.host_ms_p99).reduce(f64::max)?,
            runs: times.iter().map(|times| times.runs).min()?,
            texts_per_s: rows as f64 / device_ms_p50 * 1e3,
            tokens_per_s: tokens / device_ms_p50 * 1e3,
        })
    }

    /// First line of the table.
    pub(super) fn header() -> String {
        format!(
            "{:<5} {:>6} {:>9} {:>9}  {:>10} {:>10}  {:>10} {:>10}  {:>12} {:>14}",
            "case",
            "prec",
            "rows",
            "tokens",
            "device p50",
            "min, ms",
            "host p50",
            "p99, ms",
            "texts/s",
            "tokens/s"
        )
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<5} {:>6} {:>9} {:>9}  {:>10.4} {:>10.4}  {:>10.4} {:>10.4}  {:>12.0} {:>14.0}",
            self.case,
            self.precision,
            self.rows,
            self.tokens_per_row,
            self.device_ms_p50,
            self.device_ms_min,
            self.host_ms_p50,
            self.host_ms_p99,
            self.texts_per_s,
            self.tokens_per_s
        )
    }
}

/// The file, created before anything is measured.
pub(super) struct CsvFile<'p> {
    path: &'p Path,
    file: File,
}

impl<'p> CsvFile<'p> {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// It cannot be created.
    pub(super) fn create(path: &'p Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::creating(path, &error))?;
        Ok(Self { path, file })
    }

    /// Writes all rows below a header.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(mut self, rows: &[Row]) -> Result<(), Failure> {
        let text = csv_text(rows)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write CSV: {error}")))?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_all());
        written.map_err(|error| Failure::writing(self.path.display(), &error))
    }
}

fn csv_text(rows: &[Row]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(device_ms_p50: f64, host_ms_p99: f64, runs: usize) -> Times {
        let (device_ms_min, host_ms_p50) = (device_ms_p50 / 2.0, device_ms_p50 * 2.0);
        Times { device_ms_p50, device_ms_min, host_ms_p50, host_ms_p99, runs }
    }

    fn batch(rows: u32, tokens: u32) -> Packed {
        Packed {
            ids: vec![1; (rows * tokens) as usize],
            cu: (0..=rows).map(|row| row * tokens).collect(),
        }
    }

    #[test]
    fn the_csv_has_the_agreed_columns_by_name() {
        let shape = Shape { rows: 8, tokens: 128 };
        let case = Case::Shape { shape, sets: vec![batch(8, 128)] };
        let row =
            Row::of(&case, &[times(0.5, 2.0, 200)], "a \"model\", named", "f16").expect("row");
        let text = csv_text(&[row]).expect("text");
        let mut read = csv::Reader::from_reader(&text[..]);
        let header = read.headers().expect("header").clone();
        let row = read.records().next().expect("a row").expect("readable");
        let column = |name: &str| {
            let index = header.iter().position(|column| column == name);
            row[index.unwrap_or_else(|| panic!("no column {name}"))].to_owned()
        };
        let expected = [
            ("case", "shape"),
            ("model", "a \"model\", named"),
            ("precision", "f16"),
            ("rows", "8"),
            ("tokens_per_row", "128"),
            ("tokens", "1024.0"),
            ("device_ms_p50", "0.5"),
            ("host_ms_p50", "1.0"),
            ("host_ms_p99", "2.0"),
            ("runs", "200"),
        ];
        for (name, value) in expected {
            assert_eq!(column(name), value, "{name}");
        }
        assert!(read.records().next().is_none());
    }

    #[test]
    fn a_mix_is_one_row_of_means_and_of_the_worst_tail() {
        let case = Case::Mix { rows: 4, batches: vec![batch(4, 3), batch(4, 6)] };
        let all = [times(1.0, 9.0, 200), times(3.0, 5.0, 60)];
        let row = Row::of(&case, &all, "m", "bf16").expect("row");
        assert_eq!((row.case, row.rows, row.tokens, row.runs), ("mix", 4, 18.0, 60));
        assert_eq!(row.tokens_per_row, "4.500");
        assert_eq!((row.device_ms_p50, row.host_ms_p50, row.host_ms_p99), (2.0, 4.0, 9.0));
        assert_eq!(row.texts_per_s, 2000.0);
        assert_eq!(Row::of(&case, &[], "m", "bf16"), None);
    }
}
