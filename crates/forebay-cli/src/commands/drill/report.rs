//! What a drill found, as a table for people or one JSON object for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::schedule::Step;
use super::tally::{Stretch, Tallied};
use super::watch::Seen;

/// One fault and what came of it until the next.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    fault: String,
    on: String,
    /// Why it was not injected, if it was not.
    refused: Option<String>,
    detected_ms: Option<f64>,
    demoted_ms: Option<f64>,
    replies: u64,
    late: u64,
    slowest_ms: f64,
    healed_ms: Option<f64>,
    /// Whether it was not over when the wait for it ended, or never showed although it had to.
    open: bool,
    errors: BTreeMap<&'static str, u64>,
    lost: u64,
    wrong: u64,
}

/// The whole drill.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) level: String,
    pub(super) level_at_end: String,
    pub(super) rate: f64,
    pub(super) seed: u64,
    pub(super) calm_p50_ms: f64,
    pub(super) calm_p999_ms: f64,
    pub(super) lag_p99_ms: f64,
    pub(super) lag_max_ms: f64,
    pub(super) faults: Vec<Row>,
    pub(super) offered: u64,
    pub(super) replies: u64,
    pub(super) refused: u64,
    pub(super) errors: u64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
    pub(super) twice: u64,
}

/// One injection as it was carried out.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) step: Step,
    pub(super) refused: Option<String>,
    pub(super) seen: Seen,
}

/// How the load was meant, and the level before and after.
pub(super) struct Frame {
    pub(super) level: String,
    pub(super) level_at_end: String,
    pub(super) rate: f64,
    pub(super) seed: u64,
}

impl Report {
    pub(super) fn new(frame: Frame, done: Vec<Done>, tallied: &Tallied) -> Self {
        let all = &tallied.stretches;
        let sum = |of: fn(&Stretch) -> u64| all.iter().map(of).sum::<u64>();
        let ms = |us: u64| us as f64 / 1e3;
        let faults =
            done.into_iter().zip(all.iter().skip(1)).map(|(done, stretch)| row(done, stretch));
        Self {
            level: frame.level,
            level_at_end: frame.level_at_end,
            rate: frame.rate,
            seed: frame.seed,
            calm_p50_ms: ms(tallied.calm_p50_us),
            calm_p999_ms: ms(tallied.calm_p999_us),
            lag_p99_ms: ms(tallied.lag_p99_us),
            lag_max_ms: ms(tallied.lag_max_us),
            faults: faults.collect(),
            offered: tallied.invoked,
            replies: sum(|stretch| stretch.replies),
            refused: sum(|stretch| stretch.refused),
            errors: sum(|stretch| stretch.errors.values().sum()),
            lost: sum(|stretch| stretch.lost),
            wrong: sum(|stretch| stretch.wrong),
            twice: tallied.twice,
        }
    }

    /// What makes the drill a failure, in words; `None` if nothing does.
    pub(super) fn objection(&self) -> Option<String> {
        let Self { lost, wrong, twice, level, level_at_end, .. } = self;
        let mut objections = Vec::new();
        if lost + wrong + twice > 0 {
            objections.push(format!(
                "{lost} accepted texts lost, {wrong} answers wrong, {twice} replies too many"
            ));
        }
        let count = |is: fn(&Row) -> bool| self.faults.iter().filter(|row| is(row)).count();
        // Nothing is proved by a fault that did not happen, or by answers that nobody got.
        match count(|row| row.refused.is_some()) {
            0 => {}
            refused => objections.push(format!("{refused} faults were not injected")),
        }
        match count(|row| row.open) {
            0 => {}
            open => objections.push(format!("{open} faults were not over within --heal-within")),
        }
        if level_at_end != level {
            objections.push(format!("the level is {level_at_end} at the end and was {level}"));
        }
        if self.replies == self.errors {
            objections.push("no text was embedded".to_owned());
        }
        (!objections.is_empty()).then(|| objections.join("; "))
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let head = [
            "fault", "on", "detected", "demoted", "late", "slowest", "healed", "errors", "lost",
            "wrong",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.faults.iter().map(cells));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: [usize; 10] = std::array::from_fn(width);
        let mut text = String::new();
        for line in &lines {
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                text += &match column {
                    0 => format!("{cell:<width$}"),
                    1 => format!("  {cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for row in &self.faults {
            if let Some(refused) = &row.refused {
                text += &format!("{} on {} was not injected: {refused}\n", row.fault, row.on);
            }
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let kinds = self.faults.iter().flat_map(|row| &row.errors);
        let mut errors = BTreeMap::<&str, u64>::new();
        kinds.for_each(|(kind, count)| *errors.entry(*kind).or_default() += count);
        let errors: Vec<String> =
            errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let errors =
            if errors.is_empty() { String::new() } else { format!(" ({})", errors.join(", ")) };
        format!(
            "level {} before and {} at the end; {:.0} texts/s offered, seed {}\n\
             undisturbed: p50 {:.3} ms, p99.9 {:.3} ms; late is 100 ms more than the latter; latency \
             counts from when a text was due\n\
             clients were late themselves by p99 {:.3} ms, max {:.3} ms\n\
             {} offered, {} refused, {} answered, of these {} with an error{errors}; {} lost, {} wrong, \
             {} twice\n",
            self.level,
            self.level_at_end,
            self.rate,
            self.seed,
            self.calm_p50_ms,
            self.calm_p999_ms,
            self.lag_p99_ms,
            self.lag_max_ms,
            self.offered,
            self.refused,
            self.replies,
            self.errors,
            self.lost,
            self.wrong,
            self.twice,
        )
    }
}

fn row(Done { step, refused, seen }: Done, stretch: &Stretch) -> Row {
    let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    let must_heal = step.fault.shows() || seen.detected.is_some() || seen.demoted.is_some();
    let is_open = refused.is_none() && must_heal && seen.healed.is_none();
    Row {
        fault: step.fault.to_string(),
        on: step.on(),
        refused,
        detected_ms: ms(seen.detected),
        demoted_ms: ms(seen.demoted),
        replies: stretch.replies,
        late: stretch.late,
        slowest_ms: stretch.slowest_us as f64 / 1e3,
        healed_ms: ms(seen.healed),
        open: is_open,
        errors: stretch.errors.clone(),
        lost: stretch.lost,
        wrong: stretch.wrong,
    }
}

fn cells(row: &Row) -> [String; 10] {
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), in_ms);
    [
        row.fault.clone(),
        row.on.clone(),
        time(row.detected_ms),
        time(row.demoted_ms),
        row.late.to_string(),
        in_ms(row.slowest_ms),
        time(row.healed_ms),
        row.errors.values().sum::<u64>().to_string(),
        row.lost.to_string(),
        row.wrong.to_string(),
    ]
}

fn in_ms(ms: f64) -> String {
    format!("{ms:.1} ms")
}

#[cfg(test)]
mod tests {
    use forebay::Fault;
    use forebay::config::Device;

    use super::*;

    /// A drill with one fault.
    struct Drill {
        wrong: u64,
        refused: Option<String>,
        healed: Option<Duration>,
        level_at_end: &'static str,
        replies: u64,
    }

    const GOOD: Drill = Drill {
        wrong: 0,
        refused: None,
        healed: Some(Duration::from_millis(700)),
        level_at_end: "gpu(2)",
        replies: 10,
    };

    fn report(drill: Drill) -> Report {
        let Drill { wrong, refused, healed, level_at_end, replies } = drill;
        let tallied = Tallied {
            stretches: vec![
                Stretch { replies, ..Stretch::default() },
                Stretch {
                    replies: 3,
                    late: 2,
                    slowest_us: 180_000,
                    wrong,
                    errors: BTreeMap::from([("unavailable", 3)]),
                    ..Stretch::default()
                },
            ],
            invoked: 15,
            twice: 0,
            calm_p50_us: 900,
            calm_p999_us: 4_000,
            lag_p99_us: 10,
            lag_max_us: 20,
        };
        let seen = Seen {
            detected: Some(Duration::from_micros(3_210)),
            demoted: Some(Duration::from_micros(3_400)),
            healed,
        };
        let step = Step { fault: Fault::Kill, devices: vec![Device::Cuda(0), Device::Cuda(1)] };
        let frame = Frame {
            level: "gpu(2)".to_owned(),
            level_at_end: level_at_end.to_owned(),
            rate: 100.0,
            seed: 1,
        };
        Report::new(frame, vec![Done { step, refused, seen }], &tallied)
    }

    #[test]
    fn a_row_says_what_came_of_a_fault() {
        let table = report(Drill { healed: None, ..GOOD }).table();
        let mut lines = table.lines();
        let head = lines.next().expect("a head").split_whitespace().collect::<Vec<_>>();
        assert_eq!(head.len(), 10);
        let row = lines.next().expect("a row");
        for part in ["kill", "cuda:0+cuda:1", "3.2 ms", "3.4 ms", "180.0 ms", " - "] {
            assert!(row.contains(part), "{part} is not in {row}");
        }
        assert!(table.contains("3 with an error (3 unavailable)"), "{table}");
    }

    #[test]
    fn errors_alone_are_no_objection() {
        assert_eq!(report(GOOD).objection(), None);
    }

    #[test]
    fn whatever_leaves_something_unproved_is_an_objection() {
        let refused = Some("no worker".to_owned());
        for (drill, said) in [
            (Drill { wrong: 1, ..GOOD }, "1 answers wrong"),
            (Drill { refused, healed: None, ..GOOD }, "1 faults were not injected"),
            (Drill { healed: None, ..GOOD }, "1 faults were not over"),
            (Drill { level_at_end: "gpu(1)", ..GOOD }, "the level is gpu(1) at the end"),
            (Drill { replies: 0, ..GOOD }, "no text was embedded"),
        ] {
            let objection = report(drill).objection();
            assert!(objection.as_deref().is_some_and(|text| text.contains(said)), "{objection:?}");
        }
    }
}
