//! The CUDA rung at work: right rows, whatever their way through memory and however they are cut
//! into batches.

use std::collections::BTreeSet;

use forebay::Level;
use forebay::config::{CudaCopies, Rungs};

use crate::driver::FakeDriver;
use crate::support::reference::{Reference, reference};
use crate::support::start;
use crate::{assert_right, config, embed, gpu, short_texts, shut_down};

/// Libraries named like CUDA's that a process has loaded.
fn cuda_libraries(pid: u32) -> BTreeSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let named = |path: &&str| path.contains("/libcuda") || path.contains("/libnvrtc");
    paths.filter(named).map(str::to_owned).collect()
}

#[test]
fn auto_finds_the_gpu_and_embeds_with_it_alone() {
    let driver = FakeDriver::new(&[]);
    let mut config = config(&driver);
    config.devices.rungs = Rungs::Auto;
    let runtime = start(config.clone());
    assert_eq!(runtime.level(), Level::Gpu(1));
    let worker = gpu(&runtime);
    assert!(worker.details["gpu"].starts_with("Forebay fake GPU"), "{worker:?}");
    assert_eq!(worker.details["kernels"], "nvrtc 13.0");
    assert_eq!((worker.engine.as_str(), worker.precision.as_str()), ("cuda native", "f16"));
    let loaded = cuda_libraries(worker.pid.expect("it runs"));
    let fakes = ["libcuda.so.1", "libnvrtc.so.13"].map(|name| driver.file(name));
    assert_eq!(loaded, fakes.map(|path| path.display().to_string()).into(), "not the fake alone");

    let texts = short_texts(20);
    let rows = embed(&runtime, &texts);
    assert_right(&rows, &texts);
    // Each by itself, in another order: in other batches, buckets and places.
    for (text, row) in texts.iter().zip(&rows).rev() {
        let text = Reference { kind: String::new(), text: text.text.clone(), row: Vec::new() };
        assert!(embed(&runtime, &[text])[0] == *row, "company changed a text's bits");
    }
    shut_down(runtime);

    // What was compiled is kept, and what is computed stays the same.
    let runtime = start(config);
    assert_eq!(gpu(&runtime).details["kernels"], "cubin cache");
    assert!(embed(&runtime, &texts) == rows, "another start changed bits");
    shut_down(runtime);
}

#[test]
fn copied_and_mapped_batches_are_the_same_and_the_timeline_has_every_stage() {
    let texts = short_texts(24);
    let run = |copies| {
        let driver = FakeDriver::new(&["trace 1"]);
        let mut config = config(&driver);
        config.cuda.copies = copies;
        config.cuda.trace = Some(driver.file("timeline.jsonl"));
        let runtime = start(config);
        let rows = embed(&runtime, &texts);
        shut_down(runtime);
        // Behind the last graph come the canary and the batches.
        let calls = driver.calls();
        let served = calls.rsplit(|(_, call)| call.starts_with("graph of")).next();
        let count = |name: &str| {
            served.expect("a last part").iter().filter(|(_, call)| call == name).count()
        };
        let counts = ["cuGraphLaunch", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"].map(count);
        (rows, counts, std::fs::read_to_string(driver.file("timeline.jsonl")).expect("a timeline"))
    };
    let (copied, [batches, inwards, outwards], timeline) = run(CudaCopies::Copy);
    assert_right(&copied, &texts);
    // Two of the canary, and four texts in one at most.
    assert!(batches >= 2 + 6, "{batches} batches");
    assert_eq!((inwards, outwards), (batches, batches));
    let lines: Vec<serde_json::Value> =
        timeline.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for kind in ["thread", "stream"] {
        for stage in ["copy-in", "infer", "pool", "copy-out"] {
            let track = format!("{kind} {stage}");
            let count = lines.iter().filter(|line| line["track"] == track).count();
            assert_eq!(count, batches - 2, "{track}: {timeline}");
        }
    }
    // Stages of one batch follow each other, on one axis.
    for batch in 1..=batches - 2 {
        let start_us = |stage: &str| {
            let track = format!("stream {stage}");
            let line = lines.iter().find(|line| line["batch"] == batch && line["track"] == track);
            line.expect("a line")["start_us"].as_f64().expect("a number")
        };
        let starts = ["copy-in", "infer", "pool", "copy-out"].map(start_us);
        assert!(starts.is_sorted(), "{batch}: {starts:?}");
    }

    let (mapped, [batches, inwards, outwards], timeline) = run(CudaCopies::Mapped);
    assert!(mapped == copied, "the way through memory changed bits");
    assert!(batches >= 2 + 6, "{batches} batches");
    assert_eq!((inwards, outwards), (0, 0));
    assert!(timeline.contains("stream infer") && !timeline.contains("stream copy"), "{timeline}");
}

#[test]
fn more_tokens_than_a_batch_has_are_split_by_the_host_and_by_the_engine() {
    // Three of these are more than the smallest device batch holds.
    let long = |reference: &Reference| reference.text.len() >= 1000;
    let texts: Vec<Reference> = reference().into_iter().filter(long).take(6).collect();
    let driver = FakeDriver::new(&[]);
    let mut by_host = config(&driver);
    by_host.cuda.rows_max = 1024;
    by_host.cuda.tokens_max = 512;
    let runtime = start(by_host.clone());
    let rows = embed(&runtime, &texts);
    assert_right(&rows, &texts);
    shut_down(runtime);

    // Now the host may send more at once than the device has memory for.
    for copies in [CudaCopies::Copy, CudaCopies::Mapped] {
        let driver = FakeDriver::new(&["trace 1"]);
        let mut config = by_host.clone();
        config.cuda.libraries = vec![driver.folder()];
        config.cuda.trace = Some(driver.file("timeline.jsonl"));
        config.cuda.copies = copies;
        config.cuda.tokens_max = 4096;
        config.cuda.memory_bytes_max = 64 << 20;
        // Nothing keeps batches small.
        config.batch.tokens_min = 4096;
        config.batch.duration_target_ms = 60_000;
        config.batch.bulk_duration_target_ms = 60_000;
        let runtime = start(config);
        let worker = gpu(&runtime);
        assert_eq!(worker.details["tokens_max"], "512", "{worker:?}");
        assert!(embed(&runtime, &texts) == rows, "splitting changed bits");
        shut_down(runtime);
        let timeline = std::fs::read_to_string(driver.file("timeline.jsonl")).expect("a timeline");
        let batches = timeline.matches("thread infer").count();
        let graphs = driver.calls().iter().filter(|(_, call)| call == "cuGraphLaunch").count() - 2;
        assert!(graphs > batches, "{graphs} device batches for {batches} batches");
    }
}
