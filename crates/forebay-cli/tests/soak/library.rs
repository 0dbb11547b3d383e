//! The library under `forebay soak`: faults, the search for the capacity, an interrupt, a comparison.

use rustix::process::Signal;

use crate::support::{eventually, exit_code, forebay, kill, output};
use crate::{Place, assert_page_is_whole, ran};

const SHORT: &str = r#"
name = "short"
scenario = "soak"
warmup_s = 1
duration_s = 8
quiet_s = 4
[load]
arrivals = { kind = "bursts", rate = 40, burst = 20, every_s = 1 }
texts_per_request = 4
[faults]
kinds = ["kill", "flip_output_bit", "device_out_of_memory"]
gap_min_s = 0.3
gap_max_s = 0.6
heal_within_s = 30
dwell_max_ms = 500
[objectives]
good_share_min = 0.9
[leak]
required = []
drift_max = { mappings = 40 }
[harness]
lag_share_max = 1
rest_s = 1
"#;

#[test]
fn the_library_survives_faults_and_the_same_seed_gives_the_same_faults() {
    let place = Place::new();
    let planned = |seed: &str| {
        let ran = ran(&place, &mut place.soak(SHORT, &["--seed", seed]));
        assert_eq!(ran.code, Some(0), "{}", ran.said);
        let run = &ran.report["runs"][0]["run"];
        let name = |fault: &serde_json::Value| fault["fault"].as_str().map(str::to_owned);
        let faults = run["faults"].as_array().expect("faults");
        assert!(faults.iter().all(|fault| fault["healed_ms"].is_f64()), "{faults:?}");
        faults.iter().filter_map(name).collect::<Vec<_>>()
    };
    let (one, again) = (planned("3"), planned("3"));
    // How many there is time for depends on how soon each heals.
    let both = one.len().min(again.len());
    assert!(both > 0 && one[..both] == again[..both], "{one:?} {again:?}");
}

#[test]
fn an_interrupt_leaves_a_partial_report() {
    interrupted_by(Signal::INT);
    interrupted_by(Signal::TERM);
}

fn interrupted_by(signal: Signal) {
    let place = Place::new();
    let profile =
        SHORT.replace("duration_s = 8", "duration_s = 600").replace("quiet_s = 4", "quiet_s = 599");
    let log = std::fs::File::create(place.file("log")).expect("creates");
    let mut command = place.soak(&profile, &[]);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(log).spawn().expect("starts");
    // Load has begun when replies are in the history.
    eventually("replies", || {
        let history = std::fs::read_to_string(place.file("report.history")).unwrap_or_default();
        (history.lines().filter(|line| line.starts_with("ok,")).count() > 100).then_some(())
    });
    kill(child.id(), signal);
    assert_eq!(exit_code(&mut child), Some(130));
    let text = std::fs::read(place.file("report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(report["runs"][0]["verdict"]["code"], "interrupted");
    assert_page_is_whole(&place.file("report.html"));
}

#[test]
fn the_capacity_is_searched_for_and_the_knee_is_in_the_report() {
    let place = Place::new();
    // No rate meets this, so the search ends after few probes.
    let never = SHORT.replace("good_share_min", "good_per_s_min = 1e9\ngood_share_min").replace(
        "kind = \"bursts\", rate = 40, burst = 20, every_s = 1",
        "kind = \"constant\", rate = 2",
    );
    let arguments = ["--find-capacity", "--duration", "3s"];
    let ran = ran(&place, &mut place.soak(&never, &arguments));
    assert_eq!(ran.code, Some(1), "{}", ran.said);
    let capacity = &ran.report["capacity"];
    assert!(
        capacity["rate"].is_null() && capacity["probes"].as_array().is_some_and(|p| p.len() >= 2)
    );
}

#[test]
fn a_search_that_the_harness_cannot_keep_up_with_is_void() {
    let place = Place::new();
    let late = SHORT.replace("lag_share_max = 1", "lag_ms_max = 0.000001");
    let arguments = ["--find-capacity", "--duration", "1s", "--rate", "2"];
    let ran = ran(&place, &mut place.soak(&late, &arguments));
    assert_eq!(ran.code, Some(5), "{}", ran.said);
    assert_eq!(ran.report["capacity"]["limited_by_harness"], true);
}

#[test]
fn a_report_is_no_worse_than_itself() {
    let place = Place::new();
    let quiet = ["--no-faults", "--duration", "2s"];
    let ran = ran(&place, &mut place.soak(SHORT, &quiet));
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    let path = place.file("report.json");
    let compared = |before: &std::path::Path, after: &std::path::Path| {
        let ended = output(forebay(&["soak", "compare"]).arg(before).arg(after));
        (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
    };
    assert_eq!(compared(&path, &path).0, Some(0));
    let mut worse = ran.report.clone();
    let run = &mut worse["runs"][0]["run"];
    run["tallied"]["calm"]["p99_ms"] = 1e6.into();
    for interval in run["intervals"].as_array_mut().expect("intervals") {
        interval["p99_ms"] = 1e6.into();
    }
    let other = place.file("worse.json");
    std::fs::write(&other, worse.to_string()).expect("writes");
    let (code, said) = compared(&path, &other);
    assert!(code == Some(1) && said.contains("worse"), "{said}");
    worse["runs"][0]["verdict"]["code"] = "overloaded".into();
    std::fs::write(&other, worse.to_string()).expect("writes");
    assert_eq!(compared(&path, &other).0, Some(64), "a void run is compared with nothing");
    assert_eq!(compared(&path, &place.file("texts")).0, Some(64));
}

#[test]
fn two_gpus_and_a_cpu_survive_faults_that_do_not_wait_for_each_other() {
    let place = Place::new();
    let chaos = SHORT
        .replace("scenario = \"soak\"", "scenario = \"chaos\"")
        .replace("heal_within_s", "all_share = 0.3\nheal_within_s")
        .replace("\"device_out_of_memory\"", "\"trap\", \"fail_starts=1\", \"slow=2\"")
        .replace("duration_s = 8", "duration_s = 12")
        .replace("quiet_s = 4", "quiet_s = 8");
    let mut command = place.soak(&chaos, &["--device", "cuda:0,cuda:1,cpu", "--seed", "5"]);
    command.env("FOREBAY_SUPERVISOR__BACKOFF_MIN_MS", "1");
    command.env("FOREBAY_SUPERVISOR__BACKOFF_MAX_MS", "20");
    command.env("FOREBAY_SUPERVISOR__DWELL_MIN_MS", "10");
    let ran = ran(&place, &mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    let run = &ran.report["runs"][0]["run"];
    assert_eq!((&run["best_level"], &run["level_at_end"]), (&"gpu(2)".into(), &"gpu(2)".into()));
    let places: std::collections::BTreeSet<&str> =
        run["faults"].as_array().expect("faults").iter().filter_map(|f| f["on"].as_str()).collect();
    assert!(places.len() >= 2 && !places.contains("cpu"), "{places:?}");
}
