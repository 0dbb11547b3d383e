//! Everything that can be wrong with what the program is given: each ends with its exit code, says
//! what was wrong and what helps, and leaves no output that looks complete.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

mod libraries;
mod models;
mod places;
mod texts;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::tiny::TinyModel;
use support::{forebay, forebay_with_fake, output, real_library};

/// A folder with an input of two good lines and a place for the output.
struct Bench {
    folder: tempfile::TempDir,
    model: TinyModel,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("folder"), model: TinyModel::new() };
        bench.input(b"w1 w2\nw3\n");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn input(&self, content: &[u8]) {
        std::fs::write(self.path("in.txt"), content).expect("writes");
    }

    /// `forebay embed` from this input to this output.
    fn embed(&self, command: impl FnOnce(&[&str]) -> Command) -> Command {
        let mut command = command(&["embed"]);
        command.arg("--input").arg(self.path("in.txt"));
        command.arg("--output").arg(self.path("out.npy"));
        command.arg("--model").arg(self.model.path());
        command
    }

    /// The same with the fake worker.
    fn fake(&self) -> Command {
        self.embed(forebay_with_fake)
    }

    /// The same with the real engine.
    fn real(&self) -> Command {
        let mut command = self.embed(forebay);
        command.arg("--onnxruntime").arg(real_library());
        command
    }

    /// Checks that the command fails with this code, says all of this, and leaves no file.
    #[track_caller]
    fn assert_fails(&self, command: &mut Command, code: i32, parts: &[&str]) {
        assert_fails(command, code, parts);
        for name in ["out.npy", "out.npy.partial"] {
            assert!(!self.path(name).exists(), "{name} is left behind");
        }
    }
}

#[track_caller]
fn assert_fails(command: &mut Command, code: i32, parts: &[&str]) {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Reads a small `.npy` file: its header and the number of values.
fn npy(path: &Path) -> (String, usize) {
    let bytes = std::fs::read(path).expect("the output is there");
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let (header, values) = bytes[10..].split_at(header);
    (String::from_utf8_lossy(header).into_owned(), values.len() / 4)
}

#[test]
fn with_nothing_wrong_it_succeeds() {
    let bench = Bench::new();
    for command in [&mut bench.fake(), &mut bench.real()] {
        let output = output(command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(npy(&bench.path("out.npy")).1, 2 * support::tiny::WIDTH);
    }
}
