//! `forebay drill` as it is called, with fake workers on two GPU rungs and a CPU: what it finds, what
//! it writes, and how it ends.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../../xtask/src/history.rs"]
#[allow(clippy::unwrap_used, reason = "its own tests use it")]
mod judge;
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

/// Where the judge of histories says what it finds.
mod console {
    #[expect(clippy::print_stdout, reason = "shown with a test that fails")]
    pub(crate) fn say(line: &str) {
        println!("{line}");
    }
}

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

use forebay::events::{Event, EventKind};
use serde_json::Value;
use support::script::Script;
use support::tiny::{TinyModel, text};
use support::{exists, forebay_with_fake, output};

/// A drill of two fake GPUs and a CPU, at a rate that any machine keeps up with.
fn drill(model: &TinyModel, folder: &Path, arguments: &[&str]) -> Command {
    let lines: Vec<String> = (0..40).map(text).collect();
    let input = folder.join("lines.txt");
    std::fs::write(&input, lines.join("\n")).expect("writes");
    let mut command = forebay_with_fake(&["drill", "--device", "cuda:0,cuda:1,cpu", "--json"]);
    command.args(["--calm", "300ms", "--pause", "300ms", "--rate", "300"]).args(arguments);
    command.arg("--model").arg(model.path()).arg("--input").arg(&input);
    command.env("FOREBAY_SUPERVISOR__BACKOFF_MIN_MS", "1");
    command.env("FOREBAY_SUPERVISOR__BACKOFF_MAX_MS", "20");
    command.env("FOREBAY_SUPERVISOR__RESTARTS_MAX", "1000");
    command
}

fn report(command: &mut Command, code: i32) -> Value {
    let Output { status, stdout, stderr } = output(command);
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{said}");
    serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_drill_without_loss_ends_well_and_its_history_is_whole() {
    let model = TinyModel::scripted(&Script { delay_us: 500, ..Script::default() });
    let folder = tempfile::tempdir().expect("folder");
    let (history, answers) = (folder.path().join("history.csv"), folder.path().join("answers.csv"));
    let mut command = drill(
        &model,
        folder.path(),
        &["--fault", "kill,flip_output_bit", "--fault", "fail_starts=2"],
    );
    command.arg("--history").arg(&history).arg("--answers").arg(&answers);
    // Each text has its own; the drill lasts longer.
    command.args(["--deadline", "1s"]);
    let report = report(&mut command, 0);
    for count in ["lost", "wrong", "twice"] {
        assert_eq!(report[count], 0, "{count}: {report}");
    }
    let count = |name: &str| report[name].as_u64().expect("a count");
    assert!(count("refused") < count("replies") - count("errors"), "{report}");
    let faults = report["faults"].as_array().expect("rows");
    let names = faults.iter().map(|row| format!("{} {}", row["fault"], row["on"]).replace('"', ""));
    let expected =
        ["kill cuda:0", "kill cuda:1", "flip_output_bit cuda:0", "flip_output_bit cuda:1"];
    assert_eq!(names.take(4).collect::<Vec<_>>(), expected);
    assert_eq!(faults.len(), 6);
    for row in faults.iter().filter(|row| row["fault"] != "flip_output_bit") {
        assert!(row["detected_ms"].is_f64() && row["healed_ms"].is_f64(), "{row}");
    }
    assert_eq!(
        (report["level"].as_str(), report["level_at_end"].as_str()),
        (Some("gpu(2)"), Some("gpu(2)"))
    );
    let text = std::fs::read_to_string(&history).expect("a history");
    let mut kinds: HashMap<&str, u64> = HashMap::new();
    for line in text.lines() {
        *kinds.entry(line.split(',').next().unwrap_or_default()).or_default() += 1;
    }
    let count = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
    assert_eq!(count("invoke"), count("ok") + count("err") + count("refused"));
    assert_eq!((count("fault"), count("end"), count("forebay-history")), (6, 1, 1));
    assert_eq!(Some(count("invoke")), report["offered"].as_u64());
    // 40 texts on three rungs, and the head.
    let known = std::fs::read_to_string(&answers).expect("answers");
    assert_eq!(known.lines().count(), 1 + 3 * 40);
    for pid in model.pids() {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
}

/// Milliseconds from `from` to the first event after it for which `is` holds.
fn ms_until(events: &[Event], from: usize, is: impl Fn(&EventKind) -> bool) -> f64 {
    let found = events[from..].iter().find(|event| is(&event.kind)).expect("it happened");
    found.since(&events[from]).as_secs_f64() * 1e3
}

#[test]
fn the_times_are_those_of_the_event_log_and_the_judge_accepts_the_history() {
    let model = TinyModel::scripted(&Script { delay_us: 500, ..Script::default() });
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str| folder.path().join(name);
    let mut command = drill(&model, folder.path(), &["--fault", "kill,stop", "--on", "cuda:0"]);
    command.arg("--history").arg(file("history.csv")).arg("--answers").arg(file("answers.csv"));
    command.env("FOREBAY_EVENTS__FOLDER", file("events"));
    command.env("FOREBAY_CUDA__BATCH_DEADLINE_MS", "1000");
    // Only what is stopped is late, also on a busy machine.
    command.env("FOREBAY_HEDGE__FLOOR_MS", "200");
    let report = report(&mut command, 0);
    assert!(judge::check(&[file("history.csv")], &file("answers.csv")).is_ok());

    let events = forebay::events::read(&file("events")).expect("a log").events;
    let injected = |event: &Event| matches!(event.kind, EventKind::FaultInjected { .. });
    let places: Vec<usize> = (0..events.len()).filter(|at| injected(&events[*at])).collect();
    let rows = report["faults"].as_array().expect("rows");
    assert_eq!((rows.len(), places.len()), (2, 2), "{report}");
    for (row, from) in rows.iter().zip(places) {
        let detected = ms_until(&events, from, |kind| match kind {
            EventKind::SlotChanged { device, to, .. } => {
                device == "cuda:0" && (to == "suspect" || to == "exited")
            }
            kind => matches!(kind, EventKind::Hedged { device, .. } if device == "cuda:0"),
        });
        let level = |is: &dyn Fn(&str) -> bool| {
            ms_until(&events, from, |kind| match kind {
                EventKind::LevelChanged { to, .. } => is(to),
                _ => false,
            })
        };
        let (demoted, healed) = (level(&|to| to != "gpu(2)"), level(&|to| to == "gpu(2)"));
        for (name, expected) in
            [("detected_ms", detected), ("demoted_ms", demoted), ("healed_ms", healed)]
        {
            let told = row[name].as_f64().expect("a time");
            // The log on disk has the same nanoseconds; only the sum is rounded.
            assert!((told - expected).abs() < 1e-3, "{name}: {told} is not {expected}: {row}");
        }
    }
}

#[test]
fn wrong_answers_are_counted_and_fail_the_drill() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    let arguments = ["--fault", "flip_weight_bit", "--on", "cuda:1", "--heal-within", "1s"];
    let mut command = drill(&model, folder.path(), &arguments);
    let report = report(&mut command, 1);
    assert!(report["wrong"].as_u64().expect("a count") > 0, "{report}");
    assert_eq!((report["lost"].as_u64(), report["twice"].as_u64()), (Some(0), Some(0)));
}

#[test]
fn nonsense_is_refused() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    for (arguments, said) in [
        (&["--fault", "explode"][..], "no fault is called"),
        (&["--fault", "kill", "--on", "gpu"], "alternating"),
        (&["--fault", "kill", "--on", "cuda:5"], "no rung on cuda:5"),
        (&["--fault", "kill", "--for", "5"], "such as 90s"),
        (&[], "--fault"),
    ] {
        let Output { status, stderr, .. } = output(&mut drill(&model, folder.path(), arguments));
        let error = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(64), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?} does not say {said:?}: {error}");
    }
}
