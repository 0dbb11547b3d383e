//! The verdict: what was asked for against what was found, and the code that says it. Pure.

use std::collections::BTreeSet;

use forebay::Level;
use serde::{Deserialize, Serialize};

use crate::heartbeat::late_ms_max;
use crate::profile::{Leak, Objectives, Profile};
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
        leaks(run, profile, &mut findings);
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
    let reason = run.not_judged.as_ref();
    findings.push(Finding {
        code: Code::Overloaded,
        what: "history of requests and replies".to_owned(),
        found: reason.cloned().unwrap_or_else(|| "whole".to_owned()),
        allowed: "whole and judged".to_owned(),
        passed: reason.is_none(),
    });
    // Of a history that was cut off the checker has seen what there is of it.
    let (is_cut, is_seen) = (reason.is_some(), run.checked_requests > 0 || reason.is_none());
    let of_the_file = [forebay_checker::FORM, forebay_checker::WHOLE];
    for promise in forebay_checker::PROMISES {
        if is_cut && of_the_file.contains(&promise) {
            continue;
        }
        let broken = run.broken.get(promise).copied().unwrap_or(0);
        let found = match (broken, is_seen, is_cut) {
            (0, false, _) => "not judged".to_owned(),
            (0, true, true) => "kept as far as the history goes".to_owned(),
            (0, true, false) => "kept".to_owned(),
            (count, ..) => format!("broken {count} times"),
        };
        findings.push(Finding {
            // Nothing is known of a promise that nobody judged.
            code: if is_seen { Code::PromiseBroken } else { Code::Overloaded },
            what: promise.to_owned(),
            found,
            allowed: "never broken".to_owned(),
            passed: is_seen && broken == 0,
        });
    }
}

fn healing(run: &Run, profile: &Profile, findings: &mut Vec<Finding>) {
    let Some(best) = &run.best_level else {
        // Of a target that does not tell nothing is expected, but no fault can be followed either.
        let passed = profile.faults.is_none();
        return findings.push(Finding {
            code: if passed { Code::NotHealed } else { Code::ObjectiveMissed },
            what: "level".to_owned(),
            found: "the target does not tell".to_owned(),
            allowed: if passed { "not judged" } else { "told, as there are faults" }.to_owned(),
            passed,
        });
    };
    let level = |name: &str| name.parse().unwrap_or(Level::Down);
    let at_end = run.level_at_end.as_deref().unwrap_or("unknown");
    findings.push(Finding {
        code: Code::NotHealed,
        what: "level at the end".to_owned(),
        found: at_end.to_owned(),
        allowed: format!("{best} or better"),
        passed: level(at_end) >= level(best),
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
        what: "requests in the measured time".to_owned(),
        found: tallied.offered.to_string(),
        allowed: "1 or more".to_owned(),
        passed: tallied.offered > 0,
    });
}

fn leaks(run: &Run, profile: &Profile, findings: &mut Vec<Finding>) {
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
                "{:.1} MiB/h, half of it in the second half, or an interval with 0",
                growth.limit_mib_per_hour
            ),
            passed: !growth.is_leak,
        });
    }
    unjudged(run, &profile.leak, findings);
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

/// What of the processes was not judged: a miss where it was to be.
fn unjudged(run: &Run, leak: &Leak, findings: &mut Vec<Finding>) {
    let mut add = |what: String, found: String, required: bool| {
        let allowed = if required { "judged, as leak.required has it" } else { "not judged" };
        let (code, allowed) = (Code::ObjectiveMissed, allowed.to_owned());
        findings.push(Finding { code, what, found, allowed, passed: !required });
    };
    const UNSEEN: &str = "not seen: name the target's process with --target-pid, as a user who may \
                          look at it; --remote if it is on another machine";
    let seen = run.growth.iter().map(|growth| &growth.role);
    let roles: BTreeSet<&String> = leak.required.iter().chain(seen).collect();
    for role in roles {
        let of_role = || run.growth.iter().filter(|growth| growth.role == *role);
        if of_role().any(|growth| growth.mib_per_hour.is_some()) {
            continue;
        }
        let longest = of_role().map(|growth| growth.to_s - growth.from_s).fold(0.0, f64::max);
        let found = match of_role().count() {
            0 => UNSEEN.to_owned(),
            count => format!(
                "{count} processes, none of them seen for {} s with {} samples, the longest {longest:.0} s",
                leak.seconds_min, leak.samples_min
            ),
        };
        add(format!("memory of {role}"), found, leak.required.contains(role));
    }
    if !run.seen_at_rest {
        let what = "descriptors, threads and mappings at rest".to_owned();
        add(what, UNSEEN.to_owned(), !leak.required.is_empty());
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
    let (calm, disturbed) = (&tallied.calm, &tallied.disturbed);
    let windows = [
        ("calm_p99_ms", objectives.calm_p99_ms, calm.p99_ms),
        ("calm_p999_ms", objectives.calm_p999_ms, calm.p999_ms),
        ("calm_max_ms", objectives.calm_max_ms, calm.max_ms),
    ];
    for (name, allowed, found) in windows {
        let Some(allowed) = allowed else { continue };
        let passed = calm.count > 0 && found <= allowed;
        add(name, format!("{found:.2}"), format!("{allowed}"), passed);
    }
    // Without a fault there is nothing of it to judge, and whether there was one is a finding of its own.
    if let Some(allowed) = objectives.disturbed_max_ms.filter(|_| disturbed.count > 0) {
        let found = disturbed.max_ms;
        add("disturbed_max_ms", format!("{found:.2}"), format!("{allowed}"), found <= allowed);
    }
    let shares = [
        ("good_share_min", objectives.good_share_min, tallied.good, tallied.offered, true),
        (
            "calm_good_share_min",
            objectives.calm_good_share_min,
            tallied.calm_good,
            tallied.calm_offered,
            true,
        ),
        (
            "errors_share_max",
            objectives.errors_share_max,
            tallied.errors + tallied.lost,
            tallied.offered,
            false,
        ),
        (
            "refused_share_max",
            objectives.refused_share_max,
            tallied.refused,
            tallied.offered,
            false,
        ),
    ];
    for (name, allowed, count, of, is_least) in shares {
        let Some(allowed) = allowed else { continue };
        let found = count as f64 / of.max(1) as f64;
        let passed = of > 0 && if is_least { found >= allowed } else { found <= allowed };
        let text = format!("{:.3} % of {of}", found * 100.0);
        add(name, text, format!("{} %", allowed * 100.0), passed);
    }
    if let Some(allowed) = &objectives.errors_with_faults {
        let strange = tallied.errors_by_kind.iter().filter(|(kind, _)| !allowed.contains(kind));
        let words = |(kind, count): (&String, &u64)| format!("{count} {kind}");
        let strange: Vec<String> = strange.map(words).collect();
        let calm: Vec<String> = tallied.calm_errors.iter().map(words).collect();
        let list = |errors: &[String]| match errors.is_empty() {
            true => "none".to_owned(),
            false => errors.join(", "),
        };
        let names = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        let passed = strange.is_empty();
        add("errors of other kinds", list(&strange), format!("only {names}"), passed);
        add("errors while no fault lasts", list(&calm), "none".to_owned(), calm.is_empty());
    }
    if let Some(allowed) = objectives.good_per_s_min {
        let found = tallied.good as f64 / run.measured_s.max(1e-9);
        add("good_per_s_min", format!("{found:.1}"), format!("{allowed}"), found >= allowed);
    }
}

#[cfg(test)]
mod tests;
