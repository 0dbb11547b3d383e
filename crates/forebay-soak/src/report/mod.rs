//! The report of a soak test: JSON for programs, CSV for spreadsheets, one page for people.

mod compare;
mod machine;
mod page;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::error::SoakError;
use crate::profile::Profile;
use crate::run::Run;
use crate::stats::heat_bounds_ms;
use crate::verdict::{Code, Verdict};

pub use compare::{Comparison, Row, compare};
pub use machine::Machine;

/// What a report begins with.
const FORMAT: &str = "forebay-soak-report,1";

/// A run with the verdict on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// What it found.
    pub run: Run,
    /// What that comes to.
    pub verdict: Verdict,
}

/// A report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The format of this file.
    pub format: String,
    /// The release of the program that made it.
    pub release: String,
    /// When it was made, in seconds since 1970.
    pub made_unix_s: u64,
    /// The machine.
    pub machine: Machine,
    /// The line that repeats it.
    pub replay: String,
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: Profile,
    /// The model that the known answers are of.
    pub model: String,
    /// Texts with known answers.
    pub texts: usize,
    /// Texts that were left out, as their answers were too near to others.
    pub texts_left_out: usize,
    /// By how much 1 - cosine of an answer may differ from 0.
    pub tolerance: f64,
    /// Bounds of the rows of the heat maps in milliseconds.
    pub heat_bounds_ms: Vec<f64>,
    /// Each target; the verdict of the report is that on the first.
    pub runs: Vec<Judged>,
    /// The search for the capacity, if it was asked for.
    pub capacity: Option<Capacity>,
}

/// The files of a report.
#[derive(Clone, Debug)]
pub struct Files {
    /// `PREFIX.json`.
    pub json: PathBuf,
    /// `PREFIX.csv`.
    pub csv: PathBuf,
    /// `PREFIX.html`.
    pub html: PathBuf,
}

impl Files {
    /// The names that begin with a prefix.
    #[must_use]
    pub fn of(prefix: &Path) -> Self {
        let with = |ending: &str| {
            let mut name = prefix.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self { json: with(".json"), csv: with(".csv"), html: with(".html") }
    }
}

/// What a report says besides its runs.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The line that repeats it.
    pub replay: String,
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: Profile,
    /// The model that the known answers are of.
    pub model: String,
    /// Texts with known answers.
    pub texts: usize,
    /// Texts that were left out.
    pub texts_left_out: usize,
    /// The tolerance.
    pub tolerance: f64,
}

impl Report {
    /// A report of these runs.
    #[must_use]
    pub fn new(frame: Frame, runs: Vec<Run>, capacity: Option<Capacity>) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let judged = runs.into_iter().enumerate().map(|(place, run)| {
            // Faults are for the first target.
            let profile = if place > 0 { frame.profile.beside() } else { frame.profile.clone() };
            let verdict = Verdict::of(&run, &profile);
            Judged { run, verdict }
        });
        Self {
            format: FORMAT.to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            made_unix_s: since.unwrap_or_default().as_secs(),
            machine: Machine::this(),
            replay: frame.replay,
            seed: frame.seed,
            model: frame.model,
            texts: frame.texts,
            texts_left_out: frame.texts_left_out,
            tolerance: frame.tolerance,
            heat_bounds_ms: heat_bounds_ms(),
            runs: judged.collect(),
            capacity,
            profile: frame.profile,
        }
    }

    /// The verdict: that on the first target.
    #[must_use]
    pub fn code(&self) -> Code {
        match (self.runs.first(), &self.capacity) {
            (Some(judged), _) => judged.verdict.code,
            (None, Some(capacity)) => capacity.code(),
            (None, None) => Code::Interrupted,
        }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, SoakError> {
        let text = std::fs::read(path)
            .map_err(|error| SoakError::file("cannot read the report", path, error))?;
        let wrong = |why: String| {
            SoakError::Usage(format!("{} is no report of a soak test: {why}", path.display()))
        };
        let report: Self =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        match report.format == FORMAT {
            true => Ok(report),
            false => Err(wrong(format!("its format is {:?} and not {FORMAT:?}", report.format))),
        }
    }

    /// Writes its files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, files: &Files) -> Result<(), SoakError> {
        let json = serde_json::to_string(self).map_err(SoakError::harness)?;
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text)
                .map_err(|error| SoakError::file("cannot write the report", path, error))
        };
        write(&files.json, &json)?;
        write(&files.csv, &self.csv()?)?;
        write(&files.html, &page::page(&json, self))
    }

    /// The intervals of every run as CSV.
    fn csv(&self) -> Result<String, SoakError> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let head = [
            "target", "at_s", "offered", "served", "good", "refused", "errors", "texts", "p50_ms",
            "p99_ms", "max_ms",
        ];
        csv.write_record(head).map_err(SoakError::harness)?;
        for Judged { run, .. } in &self.runs {
            for interval in &run.intervals {
                let counts = [
                    interval.offered,
                    interval.served,
                    interval.good,
                    interval.refused,
                    interval.errors,
                    interval.texts,
                ];
                let times = [interval.p50_ms, interval.p99_ms, interval.max_ms];
                let fields = [run.target.clone(), interval.at_s.to_string()]
                    .into_iter()
                    .chain(counts.map(|count| count.to_string()))
                    .chain(times.map(|time| time.to_string()));
                csv.write_record(fields).map_err(SoakError::harness)?;
            }
        }
        let bytes = csv.into_inner().map_err(SoakError::harness)?;
        String::from_utf8(bytes).map_err(SoakError::harness)
    }
}
