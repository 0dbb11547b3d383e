//! `forebay selftest` and `forebay bench` as they are called: what they print and write, and how
//! they end without a GPU or with a wrong command line. No figure is judged.

#![allow(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::tiny::{TinyModel, text};
use support::{forebay, forebay_with_fake, output};

fn code_and_error(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = output(command);
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A command that ends with 64 and says each of these.
fn assert_usage(arguments: &[&str], said: &[&str]) {
    let (code, error) = code_and_error(&mut forebay(arguments));
    assert_eq!(code, Some(64), "{arguments:?}: {error}");
    for part in said {
        assert!(error.contains(part), "{arguments:?} does not say {part:?}: {error}");
    }
}

fn lines(folder: &Path, count: usize) -> String {
    let path = folder.join("lines.txt");
    let lines: Vec<String> = (0..count).map(text).collect();
    std::fs::write(&path, lines.join("\n")).expect("writes");
    path.to_str().expect("UTF-8").to_owned()
}

/// Whether this machine has a driver, so that what is said of a missing one cannot be tested.
fn has_driver() -> bool {
    Path::new("/proc/driver/nvidia/version").exists() || Path::new("/dev/nvidiactl").exists()
}

#[test]
fn a_command_line_that_makes_no_sense_is_explained() {
    assert_usage(&["selftest", "--device", "cpu"], &["cpu", "--device cuda:0", "doctor"]);
    assert_usage(&["selftest", "--device", "cuda:0,cuda:1"], &["one device", "cuda:0,cuda:1"]);
    assert_usage(&["selftest", "--device", "cuda:0", "--precision", "int8"], &["int8", "f16,bf16"]);
    let model = TinyModel::new();
    let model = model.path().to_str().expect("UTF-8");
    let engine = |rest: &[&'static str], said: &[&str]| {
        assert_usage(&[&["bench", "engine", "--model", model], rest].concat(), said);
    };
    engine(&["--shapes", "8x0"], &["8x0", "ROWSxTOKENS"]);
    engine(&["--mix-batch", "4"], &["--mix"]);
    engine(&["--device", "cpu", "--precision", "f16"], &["cpu", "f32 or int8"]);
    engine(&["--device", "cuda:0", "--precision", "f32"], &["cuda:0", "f16 or bf16"]);
    engine(&["--device", "cpu", "--shapes", "1x512"], &["1x512", "positions"]);
    let pipeline = ["bench", "pipeline", "--input", "x", "--model", model];
    assert_usage(&[&pipeline[..], &["--rate", "0"]].concat(), &["above 0"]);
    assert_usage(&[&pipeline[..], &["--seconds", "3"]].concat(), &["--rate"]);
}

#[test]
fn without_a_driver_the_gpu_commands_end_with_69_and_say_what_is_missing() {
    if has_driver() {
        return;
    }
    let model = TinyModel::new();
    let model = model.path().to_str().expect("UTF-8");
    let folder = tempfile::tempdir().expect("folder");
    let csv = folder.path().join("engine.csv");
    let csv = csv.to_str().expect("UTF-8");
    for arguments in [
        &["selftest", "--device", "cuda:0"][..],
        &["selftest", "--device", "auto", "--quick", "--json", "--model", model],
        &[
            "bench", "engine", "--device", "cuda:0", "--model", model, "--shapes", "1x4", "--csv",
            csv,
        ],
    ] {
        let (code, error) = code_and_error(&mut forebay(arguments));
        assert_eq!(code, Some(69), "{arguments:?}: {error}");
        for part in ["cuda:0 cannot be used", "libcuda.so.1", "forebay doctor"] {
            assert!(error.contains(part), "{arguments:?} does not say {part:?}: {error}");
        }
    }
}

#[test]
fn a_model_that_is_not_there_is_named_before_any_device_is_opened() {
    let (code, error) =
        code_and_error(&mut forebay(&["selftest", "--device", "cuda:0", "--model", "/no"]));
    assert_eq!(code, Some(66), "{error}");
}

#[test]
fn the_engine_on_the_cpu_is_measured_with_a_row_for_each_case() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("engine.csv");
    let input = lines(folder.path(), 10);
    let library = support::real_library();
    let mut command = forebay(&["bench", "engine", "--device", "cpu", "--shapes", "1x4,3x5"]);
    command.args(["--mix", &input, "--mix-batch", "4", "--iterations", "3", "--csv"]).arg(&path);
    command.arg("--model").arg(model.path()).arg("--onnxruntime").arg(library);
    let Output { status, stdout, stderr } = output(&mut command);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let table = String::from_utf8_lossy(&stdout).into_owned();
    let text = std::fs::read_to_string(&path).expect("reads");
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let column = |name: &str| -> Vec<&str> {
        let index = columns.iter().position(|column| *column == name);
        rows.iter().map(|row| row[index.unwrap_or_else(|| panic!("no {name}"))]).collect()
    };
    assert_eq!(column("case"), ["shape", "shape", "mix"], "{table}");
    assert_eq!(column("precision"), ["f32"; 3]);
    // Ten lines are two whole batches of four.
    assert_eq!(column("rows"), ["1", "3", "4"]);
    assert_eq!(column("tokens_per_row")[..2], ["4", "5"]);
    assert_eq!(column("tokens")[..2], ["4.0", "15.0"]);
    assert_eq!(column("runs"), ["3"; 3]);
    for name in ["device_ms_p50", "host_ms_p50", "host_ms_p99", "texts_per_s", "tokens_per_s"] {
        for value in column(name) {
            assert!(value.parse::<f64>().is_ok_and(|value| value > 0.0), "{name}: {text}");
        }
    }
    assert_eq!(table.lines().filter(|line| line.contains("f32")).count(), 3, "{table}");
}

#[test]
fn the_pipeline_is_measured_under_open_loop_load_with_a_timeline() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    let trace = folder.path().join("trace.json");
    let input = lines(folder.path(), 40);
    let mut command = forebay_with_fake(&["bench", "pipeline", "--json", "--rounds", "1"]);
    command.args(["--single-runs", "5", "--rate", "200", "--seconds", "0.5", "--input", &input]);
    command.arg("--model").arg(model.path()).arg("--trace").arg(&trace);
    let Output { status, stdout, stderr } = output(&mut command);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{said}");
    assert!(said.contains("0 left out") && said.contains("no worker on a GPU"), "{said}");
    let report: Value = serde_json::from_slice(&stdout).expect("one JSON object");
    let open = &report["open_loop"];
    let count = |name: &str| open[name].as_u64().unwrap_or_else(|| panic!("no {name}: {open}"));
    assert!(count("offered") > 50, "{open}");
    assert_eq!(count("offered"), count("answered") + count("refused") + count("failed"));
    assert_eq!((count("failed"), &open["first_error"]), (0, &Value::Null));
    for name in ["p50_ms", "p95_ms", "p99_ms", "max_ms", "lag_p99_ms"] {
        assert!(open[name].as_f64().is_some_and(|value| value >= 0.0), "{name}: {open}");
    }
    assert_eq!(report["bulk"]["texts"], 40);
    let text = std::fs::read(&trace).expect("a timeline");
    let timeline: Value = serde_json::from_slice(&text).expect("JSON");
    let events = timeline["traceEvents"].as_array().expect("a list");
    let tracks: Vec<&str> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .filter_map(|event| event["args"]["name"].as_str())
        .collect();
    for track in ["request", "tokenize", "waiting", "in flight", "reply"] {
        assert!(tracks.contains(&track), "{tracks:?} lack {track}");
    }
    for span in events.iter().filter(|event| event["ph"] == "X") {
        let number = |name: &str| span[name].as_f64().filter(|value| *value >= 0.0);
        assert!(number("ts").is_some() && number("dur").is_some(), "{span}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 2, "no part is left");
}

#[test]
fn a_timeline_that_cannot_be_created_is_refused_before_anything_starts() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    let input = lines(folder.path(), 3);
    let mut command = forebay_with_fake(&["bench", "pipeline", "--input", &input]);
    command.arg("--model").arg(model.path()).arg("--trace").arg(folder.path().join("no/t.json"));
    let (code, error) = code_and_error(&mut command);
    assert_eq!(code, Some(73), "{error}");
    assert!(model.pids().is_empty(), "no worker was started for nothing");
}
