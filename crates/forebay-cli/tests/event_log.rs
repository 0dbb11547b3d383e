//! `forebay events` and `forebay explain` on logs that are whole, damaged, growing and absent.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use forebay::config::EventsConfig;
use forebay::events::{EventId, EventKind, EventLog};
use forebay::metrics::Metrics;

use support::{GENEROUS, forebay, output};

fn slot(device: &str, from: &str, to: &str) -> EventKind {
    EventKind::SlotChanged {
        device: device.to_owned(),
        incarnation: 2,
        from: from.to_owned(),
        to: to.to_owned(),
        reason: String::new(),
    }
}

fn log(folder: &Path) -> EventLog {
    let config = EventsConfig { folder: folder.to_owned(), ..EventsConfig::default() };
    let opened = EventLog::open(&config, Arc::new(Metrics::new()));
    opened.unwrap_or_else(|error| panic!("{error}")).0
}

/// A worker of one of two GPUs crashes and is back.
fn crash(folder: &Path) -> EventLog {
    let log = log(folder);
    log.record(
        None,
        EventKind::RuntimeStarted {
            release: "0.1.0".to_owned(),
            model: "tiny".to_owned(),
            fingerprint: "f".to_owned(),
            devices: vec!["cuda:0".to_owned(), "cuda:1".to_owned()],
        },
    );
    let ended = log.record(
        None,
        EventKind::WorkerEnded {
            device: "cuda:0".to_owned(),
            incarnation: 1,
            pid: Some(4242),
            reason: "signal 9".to_owned(),
            log: "last words\x1b[31m\nand more".to_owned(),
        },
    );
    let exited = log.record(Some(ended), slot("cuda:0", "serving", "exited"));
    let (from, to) = ("gpu(2)".to_owned(), "gpu(1)".to_owned());
    log.record(Some(exited), EventKind::LevelChanged { from, to, reason: String::new() });
    log.record(None, slot("cuda:1", "serving", "suspect"));
    log.record(None, slot("cuda:0", "probation", "serving"));
    assert!(log.flush(GENEROUS), "{log:?}");
    log
}

/// The only file of the log.
fn segment(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let mut segments = files.filter(|path| path.extension().is_some_and(|end| end == "events"));
    segments.next().expect("a file of the log")
}

fn command(arguments: &[&str], folder: &Path) -> Command {
    let mut command = forebay(arguments);
    command.arg("--folder").arg(folder);
    command
}

/// What the command prints, its standard error and its exit code.
fn said(mut command: Command) -> (Vec<String>, String, Option<i32>) {
    let output = output(&mut command);
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!error.contains("panicked"), "{error}");
    (lines.lines().map(str::to_owned).collect(), error, output.status.code())
}

#[test]
fn events_are_shown_as_a_table_and_as_json() {
    let folder = tempfile::tempdir().expect("folder");
    let _running = crash(folder.path());
    let (lines, error, code) = said(command(&["events", "--utc"], folder.path()));
    assert_eq!((lines.len(), error.as_str(), code), (6, "", Some(0)));
    assert!(lines[0].contains("#1  forebay 0.1.0 started: tiny on cuda:0, cuda:1"), "{lines:?}");
    assert!(lines[1].contains("#2  worker 1 of cuda:0 ended (process 4242): signal 9"));
    assert!(lines[3].contains("level gpu(2) to gpu(1)"), "{lines:?}");
    assert!(lines[5].contains("#6  cuda:0 serves"), "{lines:?}");
    let (time, _) = lines[0].split_once("Z  ").expect("a time in UTC");
    assert_eq!(time.len(), "2026-07-30 12:00:00.123".len());

    let (lines, _, code) = said(command(&["events", "--json"], folder.path()));
    let values = lines.iter().map(|line| serde_json::from_str(line).expect("JSON"));
    let values: Vec<serde_json::Value> = values.collect();
    assert_eq!((values.len(), code), (6, Some(0)));
    assert_eq!((&values[2]["kind"], &values[2]["cause"]), (&"slot_changed".into(), &2.into()));
    assert!(values[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{values:?}");
}

#[test]
fn events_are_chosen_by_count_time_and_device() {
    let folder = tempfile::tempdir().expect("folder");
    drop(crash(folder.path()));
    let count = |options: &[&str]| {
        let arguments: Vec<&str> = ["events"].iter().chain(options).copied().collect();
        let (lines, error, code) = said(command(&arguments, folder.path()));
        assert_eq!((error.as_str(), code), ("", Some(0)));
        lines.len()
    };
    assert_eq!(count(&["--last", "2"]), 2);
    assert_eq!(count(&["--last", "100"]), 6);
    assert_eq!(count(&["--device", "cuda:0"]), 3);
    assert_eq!(count(&["--device", "cuda:0,cuda:1"]), 4);
    assert_eq!(count(&["--device", "cuda:0", "--last", "1"]), 1);
    assert_eq!(count(&["--since", "1h"]), 6);
    assert_eq!(count(&["--since", "2100-01-01"]), 0);
    let (_, error, code) = said(command(&["events", "--since", "soon"], folder.path()));
    assert_eq!(code, Some(64));
    assert!(error.contains("is no time; write 10m"), "{error}");
}

#[test]
fn the_folder_comes_from_the_configuration() {
    let folder = tempfile::tempdir().expect("folder");
    drop(crash(folder.path()));
    let mut configured = forebay(&["events"]);
    configured.env("FOREBAY_EVENTS__FOLDER", folder.path());
    assert_eq!(said(configured).0.len(), 6);
    let (_, error, code) = said(forebay(&["events"]));
    assert_eq!(code, Some(64));
    assert!(error.contains("`events.folder` is not set") && error.contains("--folder"), "{error}");
    // A log can be read while the configuration is broken.
    let mut broken = command(&["explain", "2"], folder.path());
    broken.env("FOREBAY_EVENTS__FOLDER", "x").env("FOREBAY_BATCH__TOKENS_MAX", "none");
    assert_eq!(said(broken).2, Some(0));
}

#[test]
fn damage_and_gaps_are_told_and_the_rest_is_shown() {
    let folder = tempfile::tempdir().expect("folder");
    drop(crash(folder.path()));
    let path = segment(folder.path());
    let whole = std::fs::read(&path).expect("reads");
    let mut bytes = whole.clone();
    let at = bytes.windows(8).position(|window| window == b"last wor").expect("the second event");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("writes");
    let (lines, error, code) = said(command(&["events"], folder.path()));
    assert_eq!((lines.len(), code), (5, Some(0)));
    assert!(error.contains("are no record"), "{error}");
    assert!(error.contains("warning: event #2 is missing"), "{error}");
    let (lines, _, code) = said(command(&["explain", "4"], folder.path()));
    assert_eq!(code, Some(0));
    assert_eq!(lines[0], "caused by event #2, which is no longer in the log");

    std::fs::write(&path, &whole[..whole.len() - 1]).expect("writes");
    let (lines, error, code) = said(command(&["events"], folder.path()));
    assert_eq!((lines.len(), code), (5, Some(0)));
    assert!(error.contains("are no complete record"), "{error}");

    std::fs::write(&path, "no log at all").expect("writes");
    let (lines, error, code) = said(command(&["events"], folder.path()));
    assert_eq!((lines.len(), code), (0, Some(65)));
    assert!(error.contains("can be read as an event log") && error.contains("help:"), "{error}");
}

#[test]
fn where_there_is_no_log_it_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    for (place, part) in [
        (folder.path().to_owned(), "there is no event log in"),
        (folder.path().join("absent"), "there is no folder"),
        ("/dev/null".into(), "cannot read the folder /dev/null"),
    ] {
        for arguments in [&["events"][..], &["explain", "1"]] {
            let (lines, error, code) = said(command(arguments, &place));
            assert_eq!((lines.len(), code), (0, Some(66)), "{error}");
            assert!(error.contains(part) && error.contains("help:"), "{error}");
        }
    }
}

#[test]
fn a_story_is_told_from_its_cause_until_the_device_serves() {
    let folder = tempfile::tempdir().expect("folder");
    drop(crash(folder.path()));
    let (lines, _, code) = said(command(&["explain", "3"], folder.path()));
    assert_eq!(code, Some(0));
    let parts = [
        "#2  worker 1 of cuda:0 ended (process 4242): signal 9",
        "| last words\\u{1b}[31m",
        "| and more",
        "later       #3  cuda:0 serving to exited",
        "later       #4  level gpu(2) to gpu(1)",
        "later       #6  cuda:0 serves",
    ];
    assert_eq!(lines.len(), parts.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
        assert_eq!(line.starts_with('>'), part.contains("#3"), "{line:?}");
    }
    let (lines, _, _) = said(command(&["explain", "5"], folder.path()));
    assert_eq!(lines[1], "cuda:1 does not serve at the end of this");

    let (lines, _, code) = said(command(&["explain", "#2", "--json"], folder.path()));
    assert_eq!(code, Some(0));
    let story: serde_json::Value = serde_json::from_str(&lines.concat()).expect("JSON");
    assert_eq!(story["steps"].as_array().map(Vec::len), Some(4));
    assert_eq!(story["steps"][0]["is_asked"], true);
    assert!(story["steps"][1]["after_ms"].as_f64().is_some_and(|after| after >= 0.0), "{story}");

    let (_, error, code) = said(command(&["explain", "7"], folder.path()));
    assert_eq!(code, Some(1));
    assert!(error.contains("there is no event #7") && error.contains("#1 to #6"), "{error}");
    assert_eq!(said(command(&["explain", "seven"], folder.path())).2, Some(64));
}

#[test]
fn a_log_is_followed_while_it_is_written() {
    let folder = tempfile::tempdir().expect("folder");
    let log = crash(folder.path());
    let mut child = command(&["events", "--follow", "--json", "--last", "1"], folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || {
        let line = lines.next().expect("it goes on").expect("UTF-8");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["id"].as_u64()
    };
    assert_eq!(next(), Some(6));
    for id in 7..10 {
        assert_eq!(log.record(None, slot("cuda:1", "suspect", "exited")), EventId(id));
        assert_eq!(next(), Some(id));
    }
    child.kill().expect("kills");
    child.wait().expect("a child");
}
