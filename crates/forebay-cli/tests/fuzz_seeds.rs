//! The seeds of the fuzz targets go through what the targets call, on every toolchain, so that
//! neither rots.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a crate of its own elsewhere")]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A target's name, and what it calls.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("config", targets::config),
    ("event_log", targets::event_log),
    ("http_request_body", targets::http_request_body),
    ("model_files", targets::model_files),
    ("worker_messages", targets::worker_messages),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn every_seed_passes_and_so_does_what_is_near_it() {
    for (name, target) in TARGETS {
        let seeds = files(&fuzz().join("seeds").join(name));
        assert!(seeds.len() >= 4, "{name} has {} seeds", seeds.len());
        for seed in seeds {
            let bytes = fs::read(&seed).expect("reads");
            target(&bytes);
            for cut in [0, 1, bytes.len() / 3, bytes.len().saturating_sub(1)] {
                target(&bytes[..cut.min(bytes.len())]);
            }
        }
    }
}

#[test]
fn every_target_is_replayed_and_built() {
    let stem = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let sources: BTreeSet<String> = files(&fuzz().join("fuzz_targets")).iter().map(stem).collect();
    let seeds: BTreeSet<String> = files(&fuzz().join("seeds")).iter().map(stem).collect();
    let replayed = BTreeSet::from(TARGETS.map(|(name, _)| name.to_owned()));
    assert_eq!(sources, replayed);
    assert_eq!(seeds, replayed);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("reads");
    for name in &replayed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
