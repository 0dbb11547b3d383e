//! What is shown: figures so far while a run goes on, and what it came to.

use std::time::{Duration, Instant};

use forebay_soak::stats::LatencySummary;
use forebay_soak::verdict::Finding;
use forebay_soak::{Code, Report, SoFar};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::out::{self, note};

/// Time between two lines where nobody sees a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two looks at the figures.
const LOOK: Duration = Duration::from_millis(500);

/// Shows figures until it is dropped.
pub(super) struct Shown {
    task: tokio::task::JoinHandle<()>,
    _bar: Option<out::ShownBar>,
}

impl Shown {
    pub(super) fn start(seen: watch::Receiver<SoFar>, target: String, length_s: f64) -> Self {
        let bar = out::is_terminal().then(|| {
            let bar = ProgressBar::new(length_s.ceil() as u64);
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} s\n{wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(target);
            out::show(bar)
        });
        let shown = bar.as_ref().map(|bar| bar.bar().clone());
        let task = tokio::spawn(async move {
            let (mut last, mut last_line) = (SoFar::default(), Instant::now());
            let (mut warm, mut begun) = (true, 0.0);
            loop {
                tokio::time::sleep(LOOK).await;
                let now = seen.borrow().clone();
                if now == last {
                    continue;
                }
                if warm && now.offered > 0 {
                    (warm, begun) = (false, last.at_s);
                }
                let line = line(&now, &last, warm);
                match &shown {
                    Some(bar) => {
                        bar.set_position(if warm { 0 } else { (now.at_s - begun) as u64 });
                        bar.set_message(line);
                        last = now;
                    }
                    None if last_line.elapsed() >= LINE_INTERVAL => {
                        note!("{:>6.0} s  {line}", now.at_s);
                        last_line = Instant::now();
                        last = now;
                    }
                    None => {}
                }
            }
        });
        Self { task, _bar: bar }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn line(now: &SoFar, last: &SoFar, warm: bool) -> String {
    if warm {
        return format!("warming up, level {}", now.level);
    }
    let seconds = (now.at_s - last.at_s).max(1e-9);
    let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
    format!(
        "level {}  offered {:.0}/s  good {:.0}/s  p50 {:.1} ms  p99 {:.1} ms  under way {}  \
         refused {}  errors {}  faults {}",
        now.level,
        rate(now.offered, last.offered),
        rate(now.good, last.good),
        now.p50_ms,
        now.p99_ms,
        now.under_way,
        now.refused,
        now.errors,
        now.faults
    )
}

/// What stands against a pass, in a line.
pub(super) fn objection(report: &Report) -> String {
    let Some(judged) = report.runs.first() else {
        let is_void = report.code() == Code::Overloaded;
        return match is_void {
            true => "void: the harness could not keep up at any rate".to_owned(),
            false => "no rate met the objectives".to_owned(),
        };
    };
    let mut text = report.code().words().to_owned();
    if let Some(finding) = judged.verdict.objections().next() {
        let Finding { what, found, allowed, .. } = finding;
        text.push_str(&format!(": {what}: {found} (allowed: {allowed})"));
    }
    if let Some(example) = &judged.run.counter_example {
        text.push_str(&format!("\nfirst counter-example: {example}"));
    }
    text
}

fn latency(text: &mut String, name: &str, summary: &LatencySummary) {
    let LatencySummary { count, p50_ms, p90_ms, p99_ms, p999_ms, p9999_ms, max_ms, .. } = summary;
    text.push_str(&format!(
        "  {name:<26} {count:>9} {p50_ms:>9.2} {p90_ms:>9.2} {p99_ms:>9.2} {p999_ms:>9.2} \
         {p9999_ms:>9.2} {max_ms:>9.2}\n"
    ));
}

/// What a report says, in some lines.
pub(super) fn summary(report: &Report) -> String {
    let mut text = String::new();
    for judged in &report.runs {
        let (run, tallied) = (&judged.run, &judged.run.tallied);
        text.push_str(&format!("{}: {}\n", run.target, judged.verdict.code.words()));
        text.push_str(&format!("  {} offered, {} accepted, {} served, {} good, {} wrong, {} late, {} refused, {} errors, {} lost; {:.1} texts/s \
             over {:.0} s\n",
            tallied.offered,
            tallied.offered - tallied.unsent - tallied.refused,
            tallied.served,
            tallied.good,
            tallied.wrong,
            tallied.late,
            tallied.refused,
            tallied.errors,
            tallied.lost,
            tallied.texts as f64 / run.measured_s.max(1e-9),
            run.measured_s
        ));
        text.push_str(&format!(
            "  {:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            "latency in ms", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        ));
        latency(&mut text, "from when it was due", &tallied.from_due);
        latency(&mut text, "from when it was sent", &tallied.from_sent);
        latency(&mut text, "without faults", &tallied.calm);
        latency(&mut text, "while a fault lasted", &tallied.disturbed);
        for fault in &run.faults {
            let ms = |time: Option<f64>| time.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
            text.push_str(&format!(
                "  fault {:<22} on {:<8} at {:>6.1} s: noticed {:>8}, ended {:>8}, healed {:>9} \
                 later{}\n",
                fault.fault,
                fault.on,
                fault.at_s,
                ms(fault.detected_ms),
                ms(fault.ended_ms),
                ms(fault.healed_ms),
                fault.refused.as_ref().map_or(String::new(), |why| format!(", refused: {why}"))
            ));
        }
        for finding in judged.verdict.objections() {
            text.push_str(&format!(
                "  {}: {}: {} (allowed: {})\n",
                finding.code.words(),
                finding.what,
                finding.found,
                finding.allowed
            ));
        }
    }
    if let Some(capacity) = &report.capacity {
        text.push_str(&match capacity.rate {
            Some(rate) if capacity.limited_by_harness => format!(
                "capacity: at least {rate:.1} requests/s; more is more than the harness can offer\n"
            ),
            Some(rate) => format!("capacity: {rate:.1} requests/s\n"),
            None if capacity.limited_by_harness => {
                "capacity: unknown, the harness could not offer any rate that was tried\n"
                    .to_owned()
            }
            None => "capacity: no rate met the objectives\n".to_owned(),
        });
    }
    text
}
