//! Bundles: made twice they are the same, they serve from anywhere without help, and whatever is
//! wrong with one is found and named.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../serve/client.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod client;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

mod damage;
mod making;
mod serving;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use sha2::{Digest, Sha256};

use support::tiny::TinyModel;
use support::{forebay, output};

/// A model and a place for bundles of it.
struct Shop {
    model: TinyModel,
    folder: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        Self { model: TinyModel::new(), folder }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `forebay bundle` to this place.
    fn bundle(&self, name: &str, more: &[&str]) -> Output {
        let (model, place) = (self.model.path().display().to_string(), self.place(name));
        let place = place.display().to_string();
        let arguments = ["bundle", "--model", &model, "--output", &place];
        output(&mut forebay(&[&arguments, more].concat()))
    }

    /// A bundle that was made.
    fn made(&self, name: &str) -> PathBuf {
        let output = self.bundle(name, &[]);
        assert!(output.status.success(), "{}", said(&output));
        self.place(name)
    }
}

/// What a command wrote, to both streams.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Whether `forebay doctor` finds nothing wrong with a bundle, and what it says.
fn doctor(bundle: &Path) -> (Option<i32>, String) {
    let output = output(&mut forebay(&["doctor", "--bundle", &bundle.display().to_string()]));
    (output.status.code(), said(&output))
}

/// Asserts that the doctor calls the bundle broken with these words.
#[track_caller]
fn assert_found(bundle: &Path, words: &[&str]) {
    let (code, said) = doctor(bundle);
    assert_eq!(code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(said.contains("BROKEN") && said.contains("help: "), "{said}");
}

/// Writes the manifest of a bundle anew, as somebody who changes one on purpose can.
fn reseal(bundle: &Path, change: impl Fn(&str) -> String) {
    let path = bundle.join("MANIFEST.sha256");
    let text = fs::read_to_string(&path).expect("a manifest");
    let sum = |bytes: &[u8]| -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let line = |line: &str| match line.split_once("  ") {
        Some((_, file)) if !line.starts_with('#') => {
            let bytes = fs::read(bundle.join(file)).expect("is there");
            format!("{}  {file}\n", sum(&bytes))
        }
        _ => format!("{line}\n"),
    };
    let lines = text.lines().filter(|line| !line.starts_with("# seal "));
    let text = change(&lines.map(line).collect::<String>());
    let seal = sum(text.as_bytes());
    fs::write(&path, format!("{text}# seal {seal}\n")).expect("writes");
}
