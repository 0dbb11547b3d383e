//! A server with a planted fault gives the exit code of that fault, and the first counter-example with
//! the line that repeats it.

use std::process::{Child, Command, Stdio};

use crate::support::eventually;
use crate::{Place, Ran, assert_page_is_whole, ran};

const PLANTED: &str = env!("CARGO_BIN_EXE_forebay-planted");

/// A planted server; it ends with the test.
struct Server(Child);

impl Server {
    fn start(place: &Place, planted: &str) -> Self {
        let socket = place.file("socket");
        let mut command = Command::new(PLANTED);
        command.arg(&socket).arg(planted).stdin(Stdio::null());
        let server = Self(command.spawn().expect("starts"));
        eventually("its socket", || socket.exists().then_some(()));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// As many requests as the machine gives, for faults that are rare.
const PEAK: &str = r#"
name = "peak"
scenario = "offline"
warmup_s = 0
duration_s = 10
[load]
concurrency = 8
reply_wait_ms = 3000
[leak]
sample_s = 0.1
settle_share = 0.3
seconds_min = 5
growth_mib_per_hour_max = 600
[harness]
lag_share_max = 1
rest_s = 0.5
"#;

/// A steady rate. However busy the machine is, no run is void for it, here and above.
const STEADY: &str = r#"
name = "steady"
scenario = "server"
warmup_s = 0
duration_s = 10
[load]
arrivals = { kind = "constant", rate = 150 }
connections_max = 1
[leak]
required = []
[harness]
lag_share_max = 1
rest_s = 0.5
"#;

const FAULTS: &str = r#"
name = "faults"
scenario = "soak"
warmup_s = 0
duration_s = 6
quiet_s = 4
[load]
arrivals = { kind = "poisson", rate = 50 }
[faults]
kinds = ["slow=2"]
gap_min_s = 0.5
gap_max_s = 1
lasts_s = 0.1
heal_within_s = 1
[leak]
required = []
[harness]
lag_share_max = 1
rest_s = 0.5
"#;

/// A steady rate at which these must be reached.
fn steady_with(objectives: &str) -> String {
    format!("{STEADY}[objectives]\n{objectives}\n")
}

/// What this target gives under this profile.
fn soak(profile: &str, planted: &str, arguments: &[&str]) -> (Place, Ran) {
    let place = Place::new();
    let _server = Server::start(&place, planted);
    let target = format!("unix:{}", place.file("socket").display());
    let mut command = place.soak(profile, &["--target", &target, "--seed", "7"]);
    let ran = ran(&place, command.args(arguments));
    (place, ran)
}

/// Fails unless the run ended so; the report says the same.
fn assert_code(ran: &Ran, code: i32, word: &str) {
    assert_eq!(ran.code, Some(code), "{}", ran.said);
    assert_eq!(ran.report["runs"][0]["verdict"]["code"], word, "{}", ran.said);
}

/// Fails unless the first counter-example says this, with a request and the line that repeats it.
fn assert_example(place: &Place, ran: &Ran, what: &str) {
    let example = ran.report["runs"][0]["run"]["counter_example"].as_str().expect("an example");
    assert!(example.contains(what), "{example}");
    assert!(ran.said.contains(example), "{}", ran.said);
    assert!(ran.said.contains("repeat it with: "), "{}", ran.said);
    assert!(ran.said.contains("forebay soak --profile"), "{}", ran.said);
    assert!(ran.said.contains("--seed 7"), "{}", ran.said);
    let mut check = crate::support::forebay(&["soak", "check"]);
    let checked = crate::support::output(check.arg(place.file("report.history")));
    assert_eq!(checked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&checked.stdout).contains(what));
}

#[test]
fn a_healthy_server_passes() {
    let (place, ran) = soak(PEAK, "nothing", &[]);
    assert_code(&ran, 0, "pass");
    let run = &ran.report["runs"][0]["run"];
    assert!(run["tallied"]["offered"].as_u64() > Some(1000), "{}", run["tallied"]);
    assert_eq!(run["tallied"]["offered"], run["tallied"]["good"]);
    assert!(run["samples"].as_array().is_some_and(|samples| !samples.is_empty()));
    assert_page_is_whole(&place.file("report.html"));
    let csv = std::fs::read_to_string(place.file("report.csv")).expect("CSV");
    assert_eq!(csv.lines().count(), 1 + 10);
    let mut check = crate::support::forebay(&["soak", "check"]);
    let checked = crate::support::output(check.arg(place.file("report.history")));
    assert_eq!(checked.status.code(), Some(0));
}

#[test]
fn a_leak_of_a_kibibyte_per_request_is_found() {
    let (_place, ran) = soak(PEAK, "leak", &[]);
    assert_code(&ran, 3, "leak");
    assert!(ran.said.contains("memory of host"), "{}", ran.said);
}

#[test]
fn processes_that_nobody_waits_for_are_found() {
    let (_place, ran) = soak(STEADY, "zombies", &["--duration", "2s"]);
    assert_code(&ran, 3, "leak");
    assert!(ran.said.contains("processes of the target"), "{}", ran.said);
}

#[test]
fn one_request_in_ten_thousand_that_is_dropped_is_found() {
    let (place, ran) = soak(PEAK, "drop", &[]);
    assert_code(&ran, 2, "promise_broken");
    assert_example(&place, &ran, "no reply within 3000 ms");
}

#[test]
fn a_second_answer_is_found() {
    let (place, ran) = soak(PEAK, "twice", &[]);
    assert_code(&ran, 2, "promise_broken");
    let run = &ran.report["runs"][0]["run"];
    assert!(run["counter_example_request"].is_u64(), "{}", run["counter_example"]);
    assert_example(&place, &ran, "request ");
    let (place, ran) = soak(PEAK, "two_rows", &[]);
    assert_code(&ran, 2, "promise_broken");
    assert_example(&place, &ran, "1 texts and 2 vectors");
}

#[test]
fn the_vector_of_another_text_is_found() {
    let (place, ran) = soak(PEAK, "swap", &[]);
    assert_code(&ran, 2, "promise_broken");
    assert_example(&place, &ran, "1 - cosine is");
}

#[test]
fn one_request_in_ten_that_fails_is_found() {
    let strict = steady_with("errors_with_faults = [\"worker_lost\"]");
    let (_place, ran) = soak(&strict, "fails", &["--duration", "2s"]);
    assert_code(&ran, 1, "objective_missed");
    assert!(ran.said.contains("internal"), "{}", ran.said);
}

#[test]
fn a_value_that_is_no_number_is_found() {
    let (place, ran) = soak(PEAK, "null", &[]);
    assert_code(&ran, 2, "promise_broken");
    assert_example(&place, &ran, "can be read");
}

#[test]
fn a_stall_of_200_ms_misses_the_objective() {
    let (_place, ran) = soak(&steady_with("max_ms = 150"), "stall_200ms", &[]);
    assert_code(&ran, 1, "objective_missed");
    assert!(ran.said.contains("max_ms"), "{}", ran.said);
}

#[test]
fn the_profile_of_the_program_finds_a_stall_of_200_ms() {
    // At equal distances, so that whenever the stall comes it meets as many requests.
    let profile = include_str!("../../../../config/soak/smoke.toml")
        .replace(r#"kind = "poisson""#, r#"kind = "constant""#)
        .replace("lag_ms_max = 100", "lag_share_max = 1");
    // From the warm-up to the second stall.
    let short = ["--no-faults", "--remote", "--duration", "30s", "--rate", "100"];
    let (_place, ran) = soak(&profile, "stall_200ms", &short);
    assert_code(&ran, 1, "objective_missed");
    assert!(ran.said.contains("calm_p999_ms"), "{}", ran.said);
}

#[test]
fn a_stall_shows_from_when_requests_were_due_and_hides_from_when_they_were_sent() {
    let (_place, ran) = soak(&steady_with("max_ms = 150"), "stall_1s", &[]);
    assert_code(&ran, 1, "objective_missed");
    let tallied = &ran.report["runs"][0]["run"]["tallied"];
    let p999 = |name: &str| tallied[name]["p999_ms"].as_f64().expect("a time");
    // One of 1,500 requests was under way; 150 were due while nothing was answered.
    assert!(p999("from_due") > 900.0, "{tallied}");
    assert!(p999("from_sent") < 500.0, "{tallied}");
}

#[test]
fn time_that_a_request_waited_for_a_connection_counts_against_its_deadline() {
    let class = "[[classes]]\npriority = \"control\"\nshare = 1\ndeadline_ms = 500\n[leak]";
    let strict = steady_with("good_share_min = 0.99")
        .replace("[leak]", class)
        .replace("rest_s", "slack_ms = 1000\nrest_s");
    let (_place, ran) = soak(&strict, "stall_1s", &[]);
    assert_code(&ran, 1, "objective_missed");
    let tallied = &ran.report["runs"][0]["run"]["tallied"];
    // Those that were due in the first half of the second have not left in time.
    assert!(tallied["by_kind"]["deadline_before_sent"].as_u64() > Some(10), "{tallied}");
}

#[test]
fn a_request_that_waits_for_a_connection_and_then_for_its_answer_is_not_given_up() {
    let few = STEADY.replace("rate = 150", "rate = 2").replace(
        "connections_max = 1",
        "connections_max = 1\nreply_wait_ms = 5000\nconnection_wait_ms = 5000",
    );
    let (_place, ran) = soak(&few, "slow", &["--duration", "1s"]);
    assert_code(&ran, 0, "pass");
    let tallied = &ran.report["runs"][0]["run"]["tallied"];
    // The first was due as the measured time began; the second waited for it and for its answer.
    assert_eq!(tallied["offered"], tallied["served"], "{tallied}");
    assert!(tallied["from_due"]["max_ms"].as_f64() > Some(7000.0), "{tallied}");
}

#[test]
fn a_level_that_never_comes_back_is_found() {
    let place_admin = |place: &Place| place.file("socket").display().to_string();
    let place = Place::new();
    let _server = Server::start(&place, "never_heals");
    let target = format!("unix:{}", place_admin(&place));
    let admin = place_admin(&place);
    let mut command = place.soak(FAULTS, &["--target", &target, "--admin", &admin]);
    let ran = ran(&place, &mut command);
    assert_code(&ran, 4, "not_healed");
    assert!(ran.said.contains("level at the end"), "{}", ran.said);
}

#[test]
fn a_target_that_is_not_at_its_best_is_not_taken_for_whole() {
    let soon = STEADY.replace("rest_s", "level_wait_s = 0.5\nrest_s");
    let (_place, ran) = soak(&soon, "half", &["--duration", "1s"]);
    assert_eq!(ran.code, Some(4), "{}", ran.said);
    assert!(ran.said.contains("gpu(1) and not at gpu(2)"), "{}", ran.said);
    let (_place, ran) = soak(&soon, "half", &["--duration", "1s", "--expect-level", "gpu(1)"]);
    assert_code(&ran, 0, "pass");
    let (_place, ran) = soak(&soon, "silent", &["--duration", "1s"]);
    assert_eq!(ran.code, Some(69), "{}", ran.said);
    assert!(ran.said.contains("does not say how it is"), "{}", ran.said);
}

#[test]
fn a_target_whose_processes_were_not_seen_long_enough_does_not_pass() {
    let judged = STEADY.replace("required = []", "required = [\"host\"]");
    let (_place, ran) = soak(&judged, "nothing", &["--duration", "1s"]);
    assert_code(&ran, 1, "objective_missed");
    assert!(ran.said.contains("memory of host"), "{}", ran.said);
    let (_place, ran) = soak(&judged, "nothing", &["--duration", "1s", "--remote"]);
    assert_code(&ran, 0, "pass");
}

#[test]
fn a_generator_that_is_late_voids_the_result() {
    // No thread wakes up within a nanosecond of the time asked for.
    let late = STEADY.replace("lag_share_max = 1", "lag_ms_max = 0.000001");
    let (_place, ran) = soak(&late, "nothing", &["--duration", "2s"]);
    assert_code(&ran, 5, "overloaded");
}

/// A profile whose history has no room for anything.
fn without_history() -> String {
    STEADY.replace("lag_share_max = 1", "lag_share_max = 1\nhistory_mib_max = 0")
}

#[test]
fn a_history_that_is_full_leaves_the_figures_and_voids_them() {
    let short = without_history();
    let (place, ran) = soak(&short, "nothing", &["--duration", "2s"]);
    assert_code(&ran, 5, "overloaded");
    assert!(ran.said.contains("history_mib_max"), "{}", ran.said);
    assert!(ran.said.contains("not judged") && !ran.said.contains("kept"), "{}", ran.said);
    assert_page_is_whole(&place.file("report.html"));
}

#[test]
fn a_run_that_ends_early_ends_neither_those_beside_it_nor_the_search_for_the_capacity() {
    let place = Place::new();
    let _server = Server::start(&place, "nothing");
    let target = format!("unix:{}", place.file("socket").display());
    let to = ["--target", &target, "--duration", "1s"];
    let mut command = place.soak(&without_history(), &to);
    let beside = ran(&place, command.args(["--beside", &target]));
    assert_code(&beside, 5, "overloaded");
    assert_eq!(beside.report["runs"].as_array().map(Vec::len), Some(2), "{}", beside.said);
    let mut command = place.soak(&without_history(), &to);
    let search = ran(&place, command.args(["--find-capacity", "--rate", "2"]));
    assert_eq!(search.code, Some(5), "{}", search.said);
    let capacity = &search.report["capacity"];
    assert!(capacity["probes"].as_array().is_some_and(|probes| probes.len() > 1), "{capacity}");
}

#[test]
fn faults_that_cannot_be_injected_are_a_mistake() {
    let place = Place::new();
    std::fs::write(place.file("faults"), "1 cpu kill\n5 cpu kill\n").expect("writes");
    let named = place.file("faults").display().to_string();
    // No [faults], a closed scenario, the search for the capacity, a line in the quiet phase.
    let all: [(&str, &[&str]); 4] = [
        (STEADY, &[]),
        (FAULTS, &["--scenario", "offline"]),
        (FAULTS, &["--find-capacity"]),
        (FAULTS, &[]),
    ];
    for (profile, arguments) in all {
        let mut command = place.soak(profile, &["--faults", &named]);
        let ran = ran(&place, command.args(arguments));
        assert_eq!(ran.code, Some(64), "{arguments:?} {}", ran.said);
    }
}

#[test]
fn what_is_not_there_cannot_be_tested() {
    let place = Place::new();
    let mut command = place.soak(PEAK, &["--target", "unix:/nowhere/at/all"]);
    assert_eq!(ran(&place, &mut command).code, Some(69));
    let mut command = place.soak("name = 'x'", &[]);
    assert_eq!(ran(&place, &mut command).code, Some(64));
}
