//! What a self-test found: one line for each kernel, with the worst error and what it may be.
//!
//! A report holds failures as data and never stops at the first: what else is right or wrong is
//! the best clue to the cause. It can be printed as a table or stored as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::reference::Expected;
use super::values::{POISON, decode, roundoff, underflow};
use crate::Dtype;

/// Failures of one kind described in full for each item; the others are counted.
const DESCRIBED_MAX: usize = 2;

/// What was tested under one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The kernel with its type and geometry.
    pub name: String,
    /// Runs that were compared or examined.
    pub cases: u64,
    /// The error of the element that came closest to its tolerance, or exceeded it most;
    /// [`f64::MAX`] stands for a result that is not a number.
    pub max_error: f64,
    /// What that element's error may be.
    pub tolerance: f64,
    /// Whether every comparison of every case held.
    pub passed: bool,
    /// The first failures, each with its case and place; empty if there are none.
    pub detail: String,
}

/// The outcome of a self-test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SelftestReport {
    /// What was tested, in the order of the tests.
    pub items: Vec<Item>,
    /// Where the tested kernels came from, such as a cache or the compiler, each place once.
    pub origins: Vec<String>,
}

impl SelftestReport {
    /// Whether something was tested and all of it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.items.is_empty() && self.items.iter().all(|item| item.passed)
    }
}

impl fmt::Display for SelftestReport {
    /// A table with one line for each item, failures below their line, and a last line of counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.items.iter().map(|item| item.name.len()).max().unwrap_or(0).max(6);
        writeln!(f, "{:<width$}  {:>6}  {:>9}  {:>9}", "kernel", "cases", "error", "tolerance")?;
        for item in &self.items {
            let Item { name, cases, max_error, tolerance, passed, detail } = item;
            let verdict = if *passed { "ok" } else { "FAILED" };
            writeln!(
                f,
                "{name:<width$}  {cases:>6}  {max_error:>9.2e}  {tolerance:>9.2e}  {verdict}"
            )?;
            for line in detail.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        let failed = self.items.iter().filter(|item| !item.passed).count();
        write!(f, "{} tested, {failed} failed", self.items.len())
    }
}

/// How the device stores an output, which sets the error of the last rounding.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored {
    /// 16 bits.
    Half(Dtype),
    /// Single precision.
    Single,
}

impl Stored {
    /// What a stored result may be off by: the slack of the computation, and one rounding.
    fn tolerance(self, expected: &Expected) -> f64 {
        let largest = expected.value.abs() + expected.slack;
        expected.slack
            + match self {
                Self::Half(dtype) => largest * roundoff(dtype) + underflow(dtype),
                Self::Single => largest * 2.0_f64.powi(-24) + 2.0_f64.powi(-150),
            }
    }
}

/// What a failure is about. Each kind has its own share of the description, since a wrong value
/// in every row must not hide that bits change from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// A value outside of its tolerance.
    Value,
    /// Something not written, or written without permission.
    Coverage,
    /// Bits that differ between runs.
    Bits,
}

/// An [`Item`] in the making.
#[derive(Debug)]
pub(super) struct Tally {
    item: Item,
    failures: [usize; 3],
}

impl Tally {
    /// Nothing tested yet.
    pub(super) fn new(name: impl Into<String>) -> Self {
        let item = Item {
            name: name.into(),
            cases: 0,
            max_error: 0.0,
            tolerance: 0.0,
            passed: true,
            detail: String::new(),
        };
        Self { item, failures: [0; 3] }
    }

    /// What is being tested, for messages.
    pub(super) fn name(&self) -> &str {
        &self.item.name
    }

    /// Counts one run.
    pub(super) fn count(&mut self) {
        self.item.cases += 1;
    }

    /// Notes a failure.
    pub(super) fn fail(&mut self, kind: Failure, case: &str, what: impl fmt::Display) {
        let count = &mut self.failures[kind as usize];
        *count += 1;
        self.item.passed = false;
        if *count <= DESCRIBED_MAX {
            self.item.detail.push_str(&format!("{case}: {what}\n"));
        }
    }

    /// Notes what is wrong with an output's coverage, if anything is.
    pub(super) fn coverage(&mut self, case: &str, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(Failure::Coverage, case, what);
        }
    }

    /// Compares stored 16-bit results, `place` being where they start.
    pub(super) fn compare_half(
        &mut self,
        case: &str,
        place: &str,
        dtype: Dtype,
        got: &[u16],
        expected: &[Expected],
    ) {
        let values = got.iter().map(|&bits| {
            // Poison was not written; that it is not a number fails the comparison.
            debug_assert!(decode(POISON, dtype).is_nan());
            f64::from(decode(bits, dtype))
        });
        self.compare(case, place, Stored::Half(dtype), values, expected);
    }

    /// Compares results with what they must be; the first that is too far off is described, with
    /// the largest error of all.
    pub(super) fn compare(
        &mut self,
        case: &str,
        place: &str,
        stored: Stored,
        got: impl ExactSizeIterator<Item = f64>,
        expected: &[Expected],
    ) {
        if got.len() != expected.len() {
            let (got, wanted) = (got.len(), expected.len());
            self.fail(
                Failure::Value,
                case,
                format_args!("{place}: {got} values, expected {wanted}"),
            );
            return;
        }
        let (mut first, mut wrong, mut largest) = (None, 0_usize, 0.0_f64);
        for (index, (got, expected)) in got.zip(expected).enumerate() {
            let tolerance = stored.tolerance(expected);
            let error = self.worst(got - expected.value, tolerance);
            largest = largest.max(error);
            if error > tolerance {
                wrong += 1;
                first.get_or_insert((index, got, expected.value, tolerance));
            }
        }
        if let Some((index, got, wanted, tolerance)) = first {
            let total = expected.len();
            self.fail(
                Failure::Value,
                case,
                format_args!(
                    "{place} element {index}: got {got:e}, expected {wanted:e} ± {tolerance:.2e}; \
                     {wrong} of {total} are wrong, the largest error is {largest:.2e}"
                ),
            );
        }
    }

    /// Requires the magnitude of a figure to be at most `tolerance`.
    pub(super) fn measure(&mut self, case: &str, what: &str, error: f64, tolerance: f64) {
        if self.worst(error, tolerance) > tolerance {
            let message = format_args!("{what} is {error:.3e}, allowed is {tolerance:.1e}");
            self.fail(Failure::Value, case, message);
        }
    }

    /// Keeps the error that is largest next to its tolerance. Gives its magnitude, which is
    /// [`f64::MAX`] for what is not a number.
    fn worst(&mut self, error: f64, tolerance: f64) -> f64 {
        let error = if error.is_finite() { error.abs() } else { f64::MAX };
        let Item { max_error, tolerance: at, .. } = &mut self.item;
        // A tolerance of zero is allowed, and only passed by an error of zero.
        let share = |error: f64, tolerance: f64| if error == 0.0 { 0.0 } else { error / tolerance };
        if *at == 0.0 && *max_error == 0.0 || share(error, tolerance) > share(*max_error, *at) {
            (*max_error, *at) = (error, tolerance);
        }
        error
    }

    /// Requires equal bits of two runs.
    pub(super) fn same_bits<T: PartialEq + fmt::LowerHex>(
        &mut self,
        case: &str,
        what: &str,
        width: usize,
        one: &[T],
        other: &[T],
    ) {
        if one.len() != other.len() {
            let (one, other) = (one.len(), other.len());
            self.fail(Failure::Bits, case, format_args!("{what}: {one} elements against {other}"));
            return;
        }
        let differing =
            || one.iter().zip(other).enumerate().filter(|(_, (one, other))| one != other);
        if let Some((index, (one, other))) = differing().next() {
            let (row, column, count) = (index / width, index % width, differing().count());
            self.fail(
                Failure::Bits,
                case,
                format_args!(
                    "{what}: row {row} column {column} has bits {one:#x} against {other:#x}; \
                     {count} elements differ"
                ),
            );
        }
    }

    /// The finished line.
    pub(super) fn finish(mut self) -> Item {
        let left: usize =
            self.failures.iter().map(|count| count.saturating_sub(DESCRIBED_MAX)).sum();
        if left > 0 {
            self.item.detail.push_str(&format!("and {left} more failures\n"));
        }
        if self.item.cases == 0 {
            self.item.passed = false;
            self.item.detail.push_str("nothing was run\n");
        }
        self.item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(value: f64) -> [Expected; 1] {
        [Expected { value, slack: 1e-3 }]
    }

    #[test]
    fn a_value_within_slack_and_rounding_passes() {
        let mut tally = Tally::new("kernel");
        tally.count();
        tally.compare("case", "row 0", Stored::Single, [1.0009].into_iter(), &expected(1.0));
        let half = Stored::Half(Dtype::BF16);
        tally.compare("case", "row 0", half, [1.004].into_iter(), &expected(1.0));
        let item = tally.finish();
        assert!(item.passed, "{item:?}");
        assert!((item.max_error - 0.0009).abs() < 1e-9 && (item.tolerance - 1e-3).abs() < 1e-6);
    }

    #[test]
    fn a_wrong_value_is_described_with_its_place() {
        let mut tally = Tally::new("kernel");
        tally.count();
        tally.compare(
            "first",
            "row 3",
            Stored::Single,
            [1.0, 2.5].into_iter(),
            &[Expected { value: 1.0, slack: 0.0 }, Expected { value: 2.0, slack: 0.0 }],
        );
        tally.compare("second", "row 0", Stored::Single, [f64::NAN].into_iter(), &expected(1.0));
        tally.compare(
            "third",
            "row 0",
            Stored::Single,
            [f64::INFINITY].into_iter(),
            &expected(1.0),
        );
        tally.compare("fourth", "row 0", Stored::Single, std::iter::empty(), &expected(1.0));
        let item = tally.finish();
        assert!(!item.passed);
        assert_eq!(item.max_error, f64::MAX);
        assert!(
            item.detail.contains("first: row 3 element 1: got 2.5e0, expected 2e0"),
            "{item:?}"
        );
        assert!(item.detail.contains("1 of 2 are wrong") && item.detail.contains("and 2 more"));
    }

    #[test]
    fn differing_bits_and_an_empty_test_fail() {
        let mut tally = Tally::new("kernel");
        tally.count();
        tally.same_bits("case", "again", 2, &[1_u16, 2, 3, 4], &[1, 2, 0, 4]);
        let detail = tally.finish().detail;
        assert!(detail.contains("row 1 column 0 has bits 0x3 against 0x0"), "{detail}");
        assert!(!Tally::new("kernel").finish().passed, "nothing tested is no success");
        assert!(!SelftestReport::default().passed());
    }

    #[test]
    fn a_report_survives_json_and_shows_failures() {
        let mut tally = Tally::new("attention_f16_d32");
        tally.count();
        tally.compare("case", "row 0", Stored::Single, [f64::NAN].into_iter(), &expected(1.0));
        let good = Item { passed: true, detail: String::new(), ..Tally::new("pool").finish() };
        let items = vec![tally.finish(), good];
        let report = SelftestReport { items, origins: vec!["cubin cache".to_owned()] };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<SelftestReport>(&json).unwrap(), report);
        let table = report.to_string();
        assert!(table.contains("FAILED\n    case: row 0 element 0: got NaN"), "{table}");
        assert!(table.ends_with("2 tested, 1 failed") && !report.passed());
    }
}
