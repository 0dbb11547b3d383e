//! The verdict: what was asked for against what was found, and the code that says it. Pure.

use serde::{Deserialize, Serialize};

use crate::heartbeat::late_ms_max;
use crate::profile::{Objectives, Profile};
use crate::run::Run;

/// How a run ends, with the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Everything is as it should be.
    Pass,
    /// An objective was missed.
    ObjectiveMissed,
    /// A promise was broken.
    PromiseBroken,
    /// Something grows.
    Leak,
    /// The best level did not come back.
    NotHealed,
    /// The harness could not keep up: figures mean nothing.
    Overloaded,
    /// It was broken off.
    Interrupted,
}

impl Code {
    /// The exit code of the program.
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::ObjectiveMissed => 1,
            Self::PromiseBroken => 2,
            Self::Leak => 3,
            Self::NotHealed => 4,
            Self::Overloaded => 5,
            Self::Interrupted => 130,
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::ObjectiveMissed => "objective missed",
            Self::PromiseBroken => "promise broken",
            Self::Leak => "leak",
            Self::NotHealed => "not healed",
            Self::Overloaded => "void: the harness could not keep up",
            Self::Interrupted => "interrupted",
        }
    }

    /// Codes by weight, the heaviest first: a promise that is broken is broken however well the
    /// harness kept up, but a leak or a percentile of a harness that did not keep up means nothing.
    const BY_WEIGHT: [Self; 6] = [
        Self::Interrupted,
        Self::PromiseBroken,
        Self::NotHealed,
        Self::Overloaded,
        Self::Leak,
        Self::ObjectiveMissed,
    ];
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it would mean if it were not as it should be.
    pub code: Code,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What was allowed.
    pub allowed: String,
    /// Whether it is as it should be.
    pub passed: bool,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The heaviest of what was found.
    pub code: Code,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// The verdict on a run.
    #[must_use]
    pub fn of(run: &Run, profile: &Profile) -> Self {
        let mut findings = Vec::new();
        promises(run, &mut findings);
        healing(run, profile, &mut findings);
        harness(run, profile, &mut findings);
        leaks(run, &mut findings);
        objectives(run, &profile.objectives, &mut findings);
        if run.interrupted {
            findings.insert(
                0,
                Finding {
                    code: Code::Interrupted,
                    what: "whole run".to_owned(),
                    found: format!("broken off after {:.0} s", run.measured_s),
                    allowed: format!("{:.0} s", profile.duration_s),
                    passed: false,
                },
            );
        }
        Self { code: heaviest(&findings), findings }
    }

    /// What is not as it should be, the heaviest first.
    pub fn objections(&self) -> impl Iterator<Item = &Finding> {
        let of = |code: Code| {
            self.findings.iter().filter(move |finding| !finding.passed && finding.code == code)
        };
        Code::BY_WEIGHT.into_iter().flat_map(of)
    }
}

fn heaviest(findings: &[Finding]) -> Code {
    let is_found =
        |code: &Code| findings.iter().any(|finding| !finding.passed && finding.code == *code);
    Code::BY_WEIGHT.into_iter().find(is_found).unwrap_or(Code::Pass)
}

fn promises(run: &Run, findings: &mut Vec<Finding>) {
    for promise in forebay_checker::PROMISES {
        let broken = run.broken.get(promise).copied().unwrap_or(0);
        findings.push(Finding {
            code: Code::PromiseBroken,
            what: promise.to_owned(),
            found: match broken {
                0 => "kept".to_owned(),
                count => format!("broken {count} times"),
            },
            allowed: "never broken".to_owned(),
            passed: broken == 0,
        });
    }
}

fn healing(run: &Run, profile: &Profile, findings: &mut Vec<Finding>) {
    let Some(best) = &run.best_level else {
        return findings.push(Finding {
            code: Code::NotHealed,
            what: "level".to_owned(),
            found: "the target does not tell".to_owned(),
            allowed: "not judged".to_owned(),
            passed: true,
        });
    };
    let at_end = run.level_at_end.as_deref().unwrap_or("unknown");
    findings.push(Finding {
        code: Code::NotHealed,
        what: "level at the end".to_owned(),
        found: at_end.to_owned(),
        allowed: best.clone(),
        passed: at_end == best,
    });
    let Some(faults) = &profile.faults else { return };
    let open: Vec<String> = run
        .faults
        .iter()
        .filter(|fault| fault.refused.is_none() && fault.healed_ms.is_none())
        .map(|fault| format!("{} on {} at {:.1} s", fault.fault, fault.on, fault.at_s))
        .collect();
    findings.push(Finding {
        code: Code::NotHealed,
        what: "faults that healed in time".to_owned(),
        found: match open.first() {
            None => format!("all of {}", run.faults.len()),
            Some(first) => format!("all but {}, the first of them {first}", open.len()),
        },
        allowed: format!("each within {} s", faults.heal_within_s),
        passed: open.is_empty(),
    });
    let not_seen = "no metric of the target shows that it happened".to_owned();
    let refused: Vec<&String> = run
        .faults
        .iter()
        .filter_map(|fault| {
            let unproved = (fault.proved == Some(false)).then_some(&not_seen);
            fault.refused.as_ref().or(fault.refused_on.first()).or(unproved)
        })
        .collect();
    // Nothing is proved by faults that did not happen. One may meet a worker that is just being
    // replaced for the last one.
    let most = run.faults.len() / 4;
    findings.push(Finding {
        code: Code::ObjectiveMissed,
        what: "faults injected".to_owned(),
        found: match refused.first() {
            None => format!("{} of {} planned", run.faults.len(), run.faults_planned),
            Some(first) => {
                let injected = run.faults.len() - refused.len();
                format!("{injected} of {} planned, first refusal: {first}", run.faults_planned)
            }
        },
        allowed: "one at least, and three of four of those that there was time for".to_owned(),
        passed: refused.len() <= most && !run.faults.is_empty(),
    });
}

fn harness(run: &Run, profile: &Profile, findings: &mut Vec<Finding>) {
    let tallied = &run.tallied;
    let share = tallied.sent_late as f64 / tallied.offered.max(1) as f64;
    let allowed = &profile.harness;
    findings.push(Finding {
        code: Code::Overloaded,
        what: "requests that the harness sent late".to_owned(),
        found: format!(
            "{:.3} % ({}; lag p99 {:.2} ms)",
            share * 100.0,
            tallied.sent_late,
            tallied.lag.p99_ms
        ),
        allowed: format!(
            "{} % later than {} ms",
            allowed.lag_share_max * 100.0,
            late_ms_max(profile)
        ),
        passed: share <= allowed.lag_share_max,
    });
    let beats = &run.beats;
    let stalled = beats.stalled_s / run.measured_s.max(1e-9);
    findings.push(Finding {
        code: Code::Overloaded,
        what: "time for which the harness stood still".to_owned(),
        found: format!(
            "{:.3} % (late by p99 {:.2} ms, {:.2} ms at most; a thread of its own by {:.2} ms)",
            stalled * 100.0,
            beats.task.p99_ms,
            beats.task.max_ms,
            beats.thread.max_ms
        ),
        allowed: format!(
            "{} % in pieces longer than {} ms",
            allowed.lag_share_max * 100.0,
            late_ms_max(profile)
        ),
        passed: stalled <= allowed.lag_share_max,
    });
    let unsent = tallied.unsent as f64 / tallied.offered.max(1) as f64;
    findings.push(Finding {
        // The harness would have sent them.
        code: Code::ObjectiveMissed,
        what: "requests that had to wait for more than load.outstanding_max under way".to_owned(),
        found: format!("{:.3} % ({})", unsent * 100.0, tallied.unsent),
        allowed: format!("{} %", allowed.lag_share_max * 100.0),
        passed: unsent <= allowed.lag_share_max,
    });
    findings.push(Finding {
        code: Code::Overloaded,
        what: "different vectors kept for the checker".to_owned(),
        found: run.vectors.to_string(),
        allowed: allowed.vectors_max.to_string(),
        passed: !run.too_many_vectors,
    });
    findings.push(Finding {
        code: Code::Overloaded,
        what: "history of requests and replies".to_owned(),
        found: run.not_judged.clone().unwrap_or_else(|| "whole".to_owned()),
        allowed: "whole and judged".to_owned(),
        passed: run.not_judged.is_none(),
    });
    findings.push(Finding {
        code: Code::Overloaded,
        what: "requests in the measured time".to_owned(),
        found: tallied.offered.to_string(),
        allowed: "1 or more".to_owned(),
        passed: tallied.offered > 0,
    });
}

fn leaks(run: &Run, findings: &mut Vec<Finding>) {
    for growth in &run.growth {
        let Some(slope) = growth.mib_per_hour else { continue };
        findings.push(Finding {
            code: Code::Leak,
            what: format!("memory of {} (process {})", growth.role, growth.pid),
            found: format!(
                "{:+.1} MiB/h, 95 of 100 within {:+.1} to {:+.1}, second half {:+.1}, over {:.0} s",
                slope.value,
                slope.low,
                slope.high,
                growth.late_mib_per_hour.map_or(0.0, |slope| slope.value),
                growth.to_s - growth.from_s
            ),
            allowed: format!(
                "{} MiB/h, half of it in the second half, or an interval with 0",
                run.growth_mib_per_hour_max
            ),
            passed: !growth.is_leak,
        });
    }
    if run.growth.iter().all(|growth| growth.mib_per_hour.is_none()) {
        findings.push(Finding {
            code: Code::Leak,
            what: "memory".to_owned(),
            found: match run.samples.is_empty() {
                true => "not seen: the target's process is not known, or may not be looked at"
                    .to_owned(),
                false => "not judged: no process was seen long enough".to_owned(),
            },
            allowed: "not judged".to_owned(),
            passed: true,
        });
    }
    for drift in &run.drifts {
        findings.push(Finding {
            code: Code::Leak,
            what: format!("{} of {} at rest", drift.counter, drift.role),
            found: format!("{} before, {} after", drift.before, drift.after),
            allowed: "as before".to_owned(),
            passed: !drift.is_leak,
        });
    }
}

fn objectives(run: &Run, objectives: &Objectives, findings: &mut Vec<Finding>) {
    let tallied = &run.tallied;
    let mut add = |what: &str, found: String, allowed: String, passed: bool| {
        let (code, what) = (Code::ObjectiveMissed, what.to_owned());
        findings.push(Finding { code, what, found, allowed, passed });
    };
    let summary = &tallied.from_due;
    let found = [summary.p50_ms, summary.p95_ms, summary.p99_ms, summary.p999_ms, summary.max_ms];
    for ((name, _, allowed), found) in objectives.quantiles().into_iter().zip(found) {
        if let Some(allowed) = allowed {
            let is_known = summary.count > 0;
            add(name, format!("{found:.2}"), format!("{allowed}"), is_known && found <= allowed);
        }
    }
    if let Some(allowed) = objectives.calm_p99_ms {
        let found = tallied.calm.p99_ms;
        let passed = tallied.calm.count > 0 && found <= allowed;
        add("calm_p99_ms", format!("{found:.2}"), format!("{allowed}"), passed);
    }
    let share = |count: u64| count as f64 / tallied.offered.max(1) as f64;
    if let Some(allowed) = objectives.good_share_min {
        let found = share(tallied.good);
        let text = format!("{:.3} %", found * 100.0);
        add("good_share_min", text, format!("{} %", allowed * 100.0), found >= allowed);
    }
    if let Some(allowed) = objectives.refused_share_max {
        let found = share(tallied.refused);
        let text = format!("{:.3} %", found * 100.0);
        add("refused_share_max", text, format!("{} %", allowed * 100.0), found <= allowed);
    }
    if let Some(allowed) = objectives.good_per_s_min {
        let found = tallied.good as f64 / run.measured_s.max(1e-9);
        add("good_per_s_min", format!("{found:.1}"), format!("{allowed}"), found >= allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(code: Code, passed: bool) -> Finding {
        let text = String::new;
        Finding { code, what: text(), found: text(), allowed: text(), passed }
    }

    #[test]
    fn what_the_target_lets_pile_up_is_not_the_harness_too_slow() {
        let profile = Profile::load("smoke").unwrap();
        let code = |run: &Run| {
            let mut findings = Vec::new();
            harness(run, &profile, &mut findings);
            heaviest(&findings)
        };
        let mut run = Run { measured_s: 100.0, ..Run::default() };
        run.tallied.offered = 1000;
        assert_eq!(code(&run), Code::Pass);
        run.tallied.unsent = 500;
        assert_eq!(code(&run), Code::ObjectiveMissed);
        run.beats.stalled_s = 2.0;
        assert_eq!(code(&run), Code::Overloaded);
    }

    #[test]
    fn the_heaviest_finding_decides() {
        let of = |codes: &[Code]| {
            let findings: Vec<Finding> = codes.iter().map(|code| finding(*code, false)).collect();
            heaviest(&findings)
        };
        assert_eq!(of(&[]), Code::Pass);
        assert_eq!(heaviest(&[finding(Code::Leak, true)]), Code::Pass);
        assert_eq!(of(&[Code::ObjectiveMissed, Code::Leak]), Code::Leak);
        assert_eq!(of(&[Code::Leak, Code::Overloaded]), Code::Overloaded);
        assert_eq!(of(&[Code::Overloaded, Code::NotHealed]), Code::NotHealed);
        assert_eq!(of(&[Code::NotHealed, Code::PromiseBroken]), Code::PromiseBroken);
        assert_eq!(of(&[Code::Interrupted, Code::PromiseBroken]), Code::Interrupted);
        let exits: Vec<u8> = Code::BY_WEIGHT.iter().map(|code| code.exit()).collect();
        assert_eq!(exits, [130, 2, 4, 5, 3, 1]);
    }
}
