//! The CUDA rung without a GPU: real workers over a fake driver (`tests/fake_cuda`), which computes
//! on the CPU, runs streams in random order where no event orders them, and fails on demand.
//!
//! The kernels are not under test here, only everything around them: libraries and devices, weights
//! and memory, captured graphs, streams and events, the four stages, and every way to fail.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

mod driver;
mod faults;
mod injected;
mod ladder;
mod machine;
mod serving;

use forebay::blocking::Runtime;
use forebay::config::{CachePlace, Fallback};
use forebay::{Config, EmbedOptions, EmbedResult, WorkerStatus};

use driver::FakeDriver;
use support::reference::{Reference, cosine, reference};
use support::{exists, real_config, real_model};

/// A configuration for the real model on `cuda:0` of the fake driver, and on nothing else.
fn config(driver: &FakeDriver) -> Config {
    let mut config = real_config(&real_model());
    config.devices.rungs = "cuda:0".parse().expect("a device");
    config.devices.fallback = Fallback::None;
    // It is always the same folder.
    config.model.verify_manifest = false;
    config.cuda.libraries = vec![driver.folder()];
    config.cuda.cache = CachePlace::At(driver.file("cache"));
    // Several batches for a handful of texts.
    config.cuda.rows_max = 4;
    config.supervisor.backoff_min_ms = 1;
    config.supervisor.backoff_max_ms = 20;
    config
}

/// Some short texts of the reference, of every kind.
fn short_texts(count: usize) -> Vec<Reference> {
    let short = reference().into_iter().filter(|reference| reference.text.len() <= 60);
    let all: Vec<Reference> = short.collect();
    let step = all.len() / count;
    all.into_iter().step_by(step).take(count).collect()
}

fn embed(runtime: &Runtime, texts: &[Reference]) -> Vec<Vec<f32>> {
    let texts = texts.iter().map(|reference| reference.text.clone()).collect();
    let results = runtime.embed_batch(texts, &EmbedOptions::bulk()).expect("accepted");
    let row = |result: EmbedResult| result.unwrap_or_else(|error| panic!("{error}")).vector;
    results.into_iter().map(row).collect()
}

/// F16 with sums in F32 is this close to the reference.
fn assert_right(rows: &[Vec<f32>], texts: &[Reference]) {
    assert_eq!(rows.len(), texts.len());
    for (row, Reference { kind, text, row: expected }) in rows.iter().zip(texts) {
        let cosine = cosine(row, expected);
        assert!(cosine >= 0.9999, "{cosine} for the {kind} text {text:?}");
    }
}

/// What is known of the GPU's worker.
fn gpu(runtime: &Runtime) -> WorkerStatus {
    let workers = runtime.status().workers;
    workers.into_iter().find(|worker| worker.device == "cuda:0").expect("a rung")
}

/// Ends in order, without leaving a process behind.
fn shut_down(runtime: Runtime) {
    let workers = runtime.status().workers;
    let pids: Vec<u32> = workers.into_iter().filter_map(|worker| worker.pid).collect();
    assert!(!pids.is_empty());
    assert!(runtime.shutdown().drained);
    for pid in pids {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
}
