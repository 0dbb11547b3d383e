//! The program that asks for embeddings never maps an inference or GPU library; its worker does.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use forebay::EmbedOptions;
use forebay::config::Rungs;
use support::tiny::{TinyModel, text};
use support::{real_config, start};

fn maps(process: &str) -> String {
    std::fs::read_to_string(format!("/proc/{process}/maps")).expect("its maps can be read")
}

#[test]
fn only_the_worker_maps_the_engine() {
    let model = TinyModel::new();
    let mut config = real_config(model.path());
    // Devices are looked for, too, and not by this process.
    config.devices.rungs = Rungs::Auto;
    let runtime = start(config);
    let texts: Vec<String> = (0..2_000).map(text).collect();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()));
        let mut looks = 0;
        // At least once, and again as long as it embeds.
        while looks == 0 || !run.is_finished() {
            let own = maps("self");
            for library in ["libonnxruntime", "libcuda", "libcublas", "libnvrtc", "libnvidia"] {
                assert!(!own.contains(library), "the host has mapped {library}");
            }
            looks += 1;
        }
        let results = run.join().expect("no panic").expect("accepted");
        assert!(results.iter().all(Result::is_ok));
    });
    runtime.settled();
    let workers = runtime.status().workers;
    let cpu = workers.iter().find(|worker| worker.device == "cpu").and_then(|worker| worker.pid);
    let cpu = maps(&cpu.expect("the CPU serves").to_string());
    assert!(cpu.contains("libonnxruntime"), "the look finds what is there");
    assert!(!cpu.contains("libcuda"), "the CPU's worker needs no driver");
    assert!(runtime.shutdown().drained);
}
