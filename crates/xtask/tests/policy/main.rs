//! The repository's own rules, as tests: what may depend on what, and how sources are kept.
//!
//! Each test lists everything it objects to before it fails, with the remedy.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod dependencies;
mod files;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Fails with all `objections`, if there are any.
fn assert_none(objections: &[String], rule: &str) {
    assert!(objections.is_empty(), "{rule}\n  {}", objections.join("\n  "));
}
