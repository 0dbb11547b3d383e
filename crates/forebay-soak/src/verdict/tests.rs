//! Which finding decides, and what is found.

use super::*;
use crate::stats::{Growth, Latencies, Slope};

fn finding(code: Code, passed: bool) -> Finding {
    let text = String::new;
    Finding { code, what: text(), found: text(), allowed: text(), passed }
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
fn a_promise_that_nobody_judged_was_not_kept() {
    let of = |run: &Run| {
        let mut findings = Vec::new();
        promises(run, &mut findings);
        findings
    };
    let mut run = Run { checked_requests: 9, ..Run::default() };
    assert!(of(&run).iter().skip(1).all(|finding| finding.passed && finding.found == "kept"));
    run.not_judged = Some("the disk is full".to_owned());
    let cut = of(&run);
    assert_eq!((heaviest(&cut), cut[0].found.as_str()), (Code::Overloaded, "the disk is full"));
    assert!(cut.iter().skip(1).all(|f| f.passed && f.found == "kept as far as the history goes"));
    assert!(cut.iter().all(|finding| finding.what != forebay_checker::WHOLE));
    // A break in what there is of it is one.
    run.broken = [(forebay_checker::PROMISES[0].to_owned(), 2)].into();
    assert_eq!(heaviest(&of(&run)), Code::PromiseBroken);
    let failed = Run { not_judged: run.not_judged, ..Run::default() };
    let none = of(&failed);
    assert_eq!(heaviest(&none), Code::Overloaded);
    assert!(none.iter().skip(1).all(|finding| !finding.passed && finding.found == "not judged"));
}

fn run() -> Run {
    let mut run = Run { measured_s: 100.0, ..Run::default() };
    run.tallied.offered = 10_000;
    run.tallied.good = 9_000;
    run.tallied.errors = 1_000;
    run.tallied.calm_offered = 5_000;
    run.tallied.calm_good = 5_000;
    run.tallied.errors_by_kind = [("worker_lost".to_owned(), 1_000)].into();
    run
}

/// What objectives find wrong with a run.
fn missed(run: &Run, objectives: &Objectives) -> Vec<String> {
    let mut findings = Vec::new();
    super::objectives(run, objectives, &mut findings);
    findings.into_iter().filter(|finding| !finding.passed).map(|finding| finding.what).collect()
}

#[test]
fn errors_are_bounded_by_share_by_name_and_by_when_they_come() {
    let rules = Objectives {
        good_share_min: Some(0.8),
        calm_good_share_min: Some(0.999),
        errors_share_max: Some(0.2),
        errors_with_faults: Some(vec!["worker_lost".to_owned()]),
        ..Objectives::default()
    };
    assert_eq!(missed(&run(), &rules), [""; 0]);
    let few = Objectives { errors_share_max: Some(0.05), ..rules.clone() };
    assert_eq!(missed(&run(), &few), ["errors_share_max"]);
    let mut calm = run();
    calm.tallied.calm_good = 4_990;
    calm.tallied.calm_errors = [("worker_lost".to_owned(), 1)].into();
    let names = ["calm_good_share_min", "errors while no fault lasts"];
    assert_eq!(missed(&calm, &rules), names);
    let mut strange = run();
    strange.tallied.errors_by_kind.insert("internal".to_owned(), 1);
    assert_eq!(missed(&strange, &rules), ["errors of other kinds"]);
}

/// A process of which so much was seen.
fn process(role: &str, is_judged: bool) -> Growth {
    let slope = Slope { value: 0.0, low: -1.0, high: 1.0, intercept: 5.0 };
    Growth {
        role: role.to_owned(),
        pid: 7,
        started: 1,
        from_s: 0.0,
        to_s: 9.0,
        samples: 30,
        last_mib: 5.0,
        mib_per_hour: is_judged.then_some(slope),
        late_mib_per_hour: is_judged.then_some(slope),
        limit_mib_per_hour: 600.0,
        is_leak: false,
    }
}

#[test]
fn what_was_to_be_judged_and_was_not_is_no_pass() {
    let of = |run: &Run, leak: &Leak| {
        let mut findings = Vec::new();
        unjudged(run, leak, &mut findings);
        let missed = findings.iter().filter(|finding| !finding.passed);
        (missed.map(|finding| finding.what.clone()).collect::<Vec<_>>(), findings.len())
    };
    let (rules, none) = (Leak::default(), Leak { required: Vec::new(), ..Leak::default() });
    let unseen = Run::default();
    let all = ["memory of host", "descriptors, threads and mappings at rest"];
    assert_eq!(of(&unseen, &rules).0, all);
    assert_eq!(of(&unseen, &none), (Vec::new(), 1));
    let growth = vec![process("host", true), process("worker cpu", false)];
    let seen = Run { seen_at_rest: true, growth, ..Run::default() };
    // The worker is told of, and was not required.
    assert_eq!(of(&seen, &rules), (Vec::new(), 1));
    let short = Run { growth: vec![process("host", false)], ..seen };
    assert_eq!(of(&short, &rules).0, ["memory of host"]);
}

#[test]
fn faults_that_nobody_can_follow_are_no_pass() {
    let mut profile = Profile::load("smoke").unwrap();
    let code = |profile: &Profile| {
        let mut findings = Vec::new();
        healing(&Run::default(), profile, &mut findings);
        heaviest(&findings)
    };
    assert_eq!(code(&profile), Code::ObjectiveMissed);
    profile.faults = None;
    assert_eq!(code(&profile), Code::Pass);
}

/// The latencies of a minute's load without faults at the rate of a profile: 10 to 50 ms, and with
/// `stall_ms` each half minute as much time in which nothing is answered.
fn minutes(profile: &Profile, stall_ms: f64) -> Run {
    let rate = profile.load.arrivals.as_ref().and_then(|arrivals| arrivals.rate()).unwrap();
    let count = (rate * profile.duration_s.min(1200.0)) as u32;
    let mut calm = Latencies::new().unwrap();
    for number in 0..count {
        let at_ms = f64::from(number) * 1000.0 / rate;
        let left_ms = (stall_ms - at_ms % 30_000.0).max(0.0);
        let usual_ms = 10.0 + f64::from(number * 7919 % 41);
        calm.add(((left_ms + usual_ms) * 1000.0) as u64);
    }
    let mut run = Run { measured_s: profile.duration_s, ..Run::default() };
    run.tallied.offered = count.into();
    run.tallied.good = count.into();
    run.tallied.calm_offered = count.into();
    run.tallied.calm_good = count.into();
    run.tallied.calm = calm.summary();
    run
}

#[test]
fn every_profile_finds_a_short_stall_each_half_minute() {
    for (name, _) in crate::profile::PROFILES {
        let profile = Profile::load(name).unwrap();
        let rules = &profile.objectives;
        assert_eq!(missed(&minutes(&profile, 0.0), rules), [""; 0], "{name}");
        assert_eq!(missed(&minutes(&profile, 200.0), rules), ["calm_p999_ms"], "{name}");
        let mut slow = minutes(&profile, 0.0);
        slow.tallied.disturbed.count = 1;
        slow.tallied.disturbed.max_ms = 60_000.0;
        assert_eq!(missed(&slow, rules), ["disturbed_max_ms"], "{name}");
    }
}
