//! `forebay soak` as it is called: against servers with a planted fault, each of which it must find
//! and name, against the daemon, and against the library.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod daemon;
mod library;
mod page;
mod planted;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::tiny::{TinyModel, text};
use support::{forebay_with_fake, output};

/// A folder with a model, texts of its words, and room for reports.
struct Place {
    model: TinyModel,
    folder: tempfile::TempDir,
}

/// What a run said.
struct Ran {
    code: Option<i32>,
    said: String,
    report: Value,
}

impl Place {
    fn new() -> Self {
        let place = Self { model: TinyModel::new(), folder: tempfile::tempdir().expect("folder") };
        let lines: Vec<String> = (0..60).map(text).collect();
        std::fs::write(place.file("texts"), lines.join("\n")).expect("writes");
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn profile(&self, text: &str) -> PathBuf {
        let path = self.file("profile.toml");
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// `forebay soak` with these texts and this profile.
    fn soak(&self, profile: &str, arguments: &[&str]) -> Command {
        let mut command = forebay_with_fake(&["soak", "--log-level", "error"]);
        command.arg("--profile").arg(self.profile(profile));
        command.arg("--model").arg(self.model.path()).arg("--texts").arg(self.file("texts"));
        command.arg("--report").arg(self.file("report")).args(arguments);
        command
    }
}

/// Runs a soak test to its end.
fn ran(place: &Place, command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = output(command);
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let report = std::fs::read(place.file("report.json")).unwrap_or_default();
    let report = serde_json::from_slice(&report).unwrap_or_default();
    Ran { code: status.code(), said, report }
}

/// Whether the page has everything in itself.
fn assert_page_is_whole(path: &Path) {
    let page = std::fs::read_to_string(path).expect("a page");
    assert!(page.contains("<script type=\"application/json\" id=\"data\">{"));
    for outside in ["src=", "<link rel=\"stylesheet", "@import", "url(", "fetch("] {
        assert!(!page.contains(outside), "{outside}");
    }
    for open in ["@TITLE@", "@STYLE@", "@SCRIPT@", "@DATA@"] {
        assert!(!page.contains(open), "{open}");
    }
}
