//! How the program ends when it is told to, and what becomes of its worker when it cannot even
//! be told.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use support::script::{HELD_FILE, Script};
use support::tiny::{TinyModel, text};
use support::{children_of, eventually, exists, exit_code, forebay_with_fake, kill};

/// A run over an input that never ends, so that only the test can end it.
struct Run {
    child: Child,
    model: TinyModel,
    folder: tempfile::TempDir,
    /// Feeds the program until it is gone.
    feeder: std::thread::JoinHandle<()>,
}

impl Run {
    fn start() -> Self {
        Self::start_with(Script::default())
    }

    fn start_with(script: Script) -> Self {
        let model = TinyModel::scripted(&Script { delay_us: 1_000, ..script });
        let folder = tempfile::tempdir().expect("temporary folder");
        let output = folder.path().join("rows.npy");
        let arguments = ["embed", "--input", "-", "--output", &output.display().to_string()];
        let mut child = forebay_with_fake(&arguments)
            .args(["--model", &model.path().display().to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        let feeder = std::thread::spawn(move || {
            let mut number = 0;
            while writeln!(stdin, "{}", text(number)).is_ok() {
                number += 1;
            }
        });
        let run = Self { child, model, folder, feeder };
        // In the middle of it: rows have been written, more are under way.
        eventually("rows on the disk", || {
            let partial = run.files().into_iter().find(|path| is_partial(path))?;
            (std::fs::metadata(partial).ok()?.len() > 100_000).then_some(())
        });
        assert_eq!(children_of(run.child.id()), run.model.pids());
        run
    }

    /// Kills the program and waits for its worker to end.
    fn dies_with_its_worker(&mut self) {
        let pids = self.model.pids();
        kill(self.child.id(), Signal::KILL);
        assert_eq!(exit_code(&mut self.child), None);
        for pid in pids {
            // Its new parent, whoever that is, may take its time to reap it.
            eventually("end of the worker", || (!exists(pid) || is_zombie(pid)).then_some(()));
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).expect("can be listed");
        entries.map(|entry| entry.expect("can be listed").path()).collect()
    }
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "partial")
}

#[test]
fn a_signal_ends_the_run_in_order_and_leaves_nothing() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut run = Run::start();
        kill(run.child.id(), signal);
        assert_eq!(exit_code(&mut run.child), Some(code));
        assert_eq!(run.files(), Vec::<PathBuf>::new(), "files are left behind");
        for pid in run.model.pids() {
            assert!(!exists(pid), "worker {pid} is left behind");
        }
        let mut said = String::new();
        let mut stderr = run.child.stderr.take().expect("piped");
        std::io::Read::read_to_string(&mut stderr, &mut said).expect("UTF-8");
        assert!(said.contains("interrupted") && said.contains("was not written"), "{said}");
        run.feeder.join().expect("no panic");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_still_leaves_no_file() {
    let mut run = Run::start();
    // The worker does not answer any more, so the first signal waits for the drain.
    let hold = run.model.hold();
    kill(run.child.id(), Signal::INT);
    kill(run.child.id(), Signal::TERM);
    let code = exit_code(&mut run.child);
    assert!(code == Some(130) || code == Some(143), "{code:?}");
    assert!(!run.files().iter().any(|path| is_partial(path)), "{:?}", run.files());
    drop(hold);
    for pid in run.model.pids() {
        eventually("end of the worker", || (!exists(pid) || is_zombie(pid)).then_some(()));
    }
    run.feeder.join().expect("no panic");
}

#[test]
fn a_worker_does_not_outlive_its_host() {
    let mut run = Run::start();
    run.dies_with_its_worker();
    run.feeder.join().expect("no panic");
}

#[test]
fn nor_does_one_whose_reader_of_the_socket_is_stuck_in_its_step() {
    let mut run = Run::start_with(Script { hold_copy_in: true, ..Script::default() });
    let hold = run.model.hold();
    eventually("a batch stuck in copy-in", || run.model.file(HELD_FILE).exists().then_some(()));
    run.dies_with_its_worker();
    drop(hold);
    run.feeder.join().expect("no panic");
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn a_run_to_the_end_leaves_only_its_output() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("temporary folder");
    let (input, rows) = (folder.path().join("in.txt"), folder.path().join("out.jsonl"));
    let lines: Vec<String> = (0..500).map(text).collect();
    std::fs::write(&input, lines.join("\n")).expect("writes");
    let arguments = ["embed", "--input", &input.display().to_string()];
    let mut command = forebay_with_fake(&arguments);
    command.args(["--output", &rows.display().to_string()]);
    command.args(["--model", &model.path().display().to_string()]);
    let output = support::output(&mut command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = std::fs::read_to_string(&rows).expect("the output is there");
    assert_eq!(found.lines().count(), lines.len());
    for (number, (line, text)) in found.lines().zip(&lines).enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(row["index"], number);
        let vector = row["embedding"].as_array().expect("an array").iter();
        let vector: Vec<f32> = vector.map(|v| v.as_f64().expect("a number") as f32).collect();
        assert_eq!(vector, support::tiny::expected(text), "row {number}");
    }
    for pid in model.pids() {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("can be listed").count(), 2);
}
