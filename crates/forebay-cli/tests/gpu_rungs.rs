//! Rungs on GPUs without a GPU: which there are, what their workers see, and what happens when they
//! go. The fake worker computes for any device that it is told.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use forebay::blocking::Runtime;
use forebay::config::{Device, Fallback, Rungs};
use forebay::events::EventKind;
use forebay::{Config, EmbedOptions, Level, WorkerState};
use support::tiny::{TinyModel, text};
use support::{FAKE_WORKER, assert_right, eventually, fake_config, kill, real_config, start};

/// What a probe says on a machine with two GPUs.
const TWO_GPUS: &str = r#"{"protocol":4,"driver":"13.0","libraries":[],"devices":[
{"ordinal":0,"name":"one","capability":[9,0],"memory_bytes":1,"multiprocessors":1,
"integrated":false,"pci":"","uuid":""},
{"ordinal":1,"name":"two","capability":[9,0],"memory_bytes":1,"multiprocessors":1,
"integrated":false,"pci":"","uuid":""}],"problem":null}"#;

fn rungs(config: &mut Config, listed: &str) {
    config.devices.rungs = listed.parse().expect("devices");
}

/// A worker program that does `probe` when it is asked for devices, after noting that it was.
fn program(folder: &Path, probe: &str) -> PathBuf {
    let path = folder.join("program");
    let script = format!(
        "#!/bin/sh\nif [ -n \"$FOREBAY_WORKER_PROBE\" ]; then\n: > '{}'\n{probe}\nexit\nfi\n\
         exec '{FAKE_WORKER}' \"$@\"\n",
        folder.join("asked").display()
    );
    std::fs::write(&path, script).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("sets");
    path
}

fn devices(runtime: &Runtime) -> Vec<String> {
    runtime.status().workers.into_iter().map(|worker| worker.device).collect()
}

fn pid_of(runtime: &Runtime, device: &str) -> Option<u32> {
    let workers = runtime.status().workers;
    workers.into_iter().find(|worker| worker.device == device).and_then(|worker| worker.pid)
}

/// What a process has in its environment for a variable.
fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let start = format!("{name}=");
    environment.split('\0').find_map(|entry| entry.strip_prefix(&start).map(str::to_owned))
}

#[test]
fn each_gpu_worker_sees_its_own_device_and_the_level_counts_them() {
    let model = TinyModel::new();
    let mut config = fake_config(model.path());
    rungs(&mut config, "cuda:1,cuda:0");
    let runtime = start(config);
    runtime.settled();
    assert_eq!(runtime.level(), Level::Gpu(2));
    assert_eq!(devices(&runtime), ["cuda:1", "cuda:0", "cpu"]);
    for (device, index) in [("cuda:0", 0), ("cuda:1", 1)] {
        let pid = pid_of(&runtime, device).expect("it serves");
        let seen = variable(pid, "CUDA_VISIBLE_DEVICES").expect("set");
        // The machine of the tests may have a list of its own.
        match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(list) => assert_eq!(list.split(',').nth(index).map(str::trim), Some(seen.as_str())),
            Err(_) => {
                assert_eq!(seen, index.to_string());
                assert!(variable(pid, "CUDA_DEVICE_ORDER").is_some());
            }
        }
    }
    assert!(runtime.shutdown().drained);
}

#[test]
fn when_gpus_die_the_cpu_goes_on_and_the_level_comes_back() {
    let model = TinyModel::new();
    let mut config = fake_config(model.path());
    rungs(&mut config, "cuda:0,cuda:1");
    // A killed one stays away long enough to be seen missing.
    config.supervisor.backoff_min_ms = 20;
    let runtime = start(config);
    runtime.settled();
    let mut watch = runtime.watch_level();
    let texts: Vec<String> = (0..3_000).map(text).collect();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()));
        for device in ["cuda:0", "cuda:1"] {
            let pid = pid_of(&runtime, device).expect("it serves");
            kill(pid, rustix::process::Signal::KILL);
        }
        eventually("a lower level", || {
            watch.wait_changed(std::time::Duration::from_secs(1)).filter(|l| *l < Level::Gpu(2))
        });
        let results = run.join().expect("no panic").expect("accepted");
        for (text, result) in texts.iter().zip(&results) {
            assert_right(text, result);
        }
    });
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    let again: Vec<String> = (0..100).map(text).collect();
    let results = runtime.embed_batch(again.clone(), &EmbedOptions::default()).expect("accepted");
    again.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
    assert!(runtime.shutdown().drained);
}

#[test]
fn auto_takes_every_gpu_that_the_probe_finds_and_lists_ask_for_none() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    let mut config = fake_config(model.path());
    config.worker.program = Some(program(folder.path(), &format!("echo '{TWO_GPUS}'")));
    rungs(&mut config, "cpu");
    let runtime = start(config.clone());
    assert_eq!(devices(&runtime), ["cpu"]);
    assert!(runtime.shutdown().drained);
    assert!(!folder.path().join("asked").exists(), "nobody had to ask");
    config.devices.rungs = Rungs::Auto;
    for (fallback, expected) in
        [(Fallback::Cpu, &["cuda:0", "cuda:1", "cpu"][..]), (Fallback::None, &["cuda:0", "cuda:1"])]
    {
        config.devices.fallback = fallback;
        let runtime = start(config.clone());
        runtime.settled();
        assert_eq!(devices(&runtime), expected);
        assert_eq!(runtime.level(), Level::Gpu(2));
        assert!(runtime.shutdown().drained);
    }
    assert!(folder.path().join("asked").exists());
}

#[test]
fn auto_serves_on_the_cpu_when_the_probe_hangs_or_talks_nonsense() {
    for probe in ["exec sleep 1000", "echo what; exit 1"] {
        let model = TinyModel::new();
        let folder = tempfile::tempdir().expect("folder");
        let mut config = fake_config(model.path());
        config.worker.program = Some(program(folder.path(), probe));
        config.devices.rungs = Rungs::Auto;
        config.cuda.probe_deadline_ms = 300;
        let runtime = start(config);
        assert_eq!(devices(&runtime), ["cpu"], "{probe}");
        assert!(folder.path().join("asked").exists(), "{probe}");
        assert!(runtime.shutdown().drained);
    }
}

#[test]
fn a_listed_gpu_that_is_not_there_leaves_the_fallback_to_serve_and_says_why() {
    let model = TinyModel::new();
    let mut config = real_config(model.path());
    config.devices.rungs = Rungs::Listed(vec![Device::Cuda(63)]);
    // A test machine may show some GPUs only, and not this one.
    if std::env::var_os("CUDA_VISIBLE_DEVICES").is_some() {
        return;
    }
    let runtime = start(config.clone());
    runtime.settled();
    assert_eq!(runtime.level(), Level::Cpu);
    let gpu = runtime.status().workers.swap_remove(0);
    assert_eq!(gpu.state, WorkerState::Quarantined);
    let why = gpu.last_end.expect("a reason");
    assert!(why.contains("libcuda.so.1") || why.contains("sees no device"), "{why}");
    let events = runtime.events().recent(usize::MAX);
    let says_why = events.iter().any(|event| match &event.kind {
        EventKind::Quarantined { device, reason, detail, .. } => {
            device == "cuda:63" && reason == "start" && *detail == why
        }
        _ => false,
    });
    assert!(says_why, "{events:#?}");
    assert!(runtime.embed("w1 w2", &EmbedOptions::default()).is_ok());
    assert!(runtime.shutdown().drained);
    config.devices.fallback = Fallback::None;
    let error = Runtime::start(config).expect_err("nothing can serve").to_string();
    assert!(error.starts_with("no worker became ready: cuda:63: "), "{error}");
}
