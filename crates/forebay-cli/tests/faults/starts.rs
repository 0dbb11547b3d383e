//! Rungs that cannot start: the best level that there is serves, and says why it is no better.

use forebay::blocking::Runtime;
use forebay::events::{Event, EventKind};
use forebay::{EmbedOptions, Level, WorkerState, WorkerStatus};

use crate::load::{alone, config};
use crate::support::script::{Script, Start};
use crate::support::tiny::TinyModel;
use crate::support::{assert_right, eventually, exists, start};

/// How a start fails here, the reason that is to be given, and the quarantine that follows.
const WAYS: [(Start, &str, &str); 3] = [
    (Start::Fail, "the fake worker was told to fail", "start"),
    (Start::Exit, "code 3", "intensity"),
    (Start::Hang, "worker.start_deadline_ms", "start"),
];

fn worker(runtime: &Runtime, device: &str) -> WorkerStatus {
    let workers = runtime.status().workers;
    workers.into_iter().find(|worker| worker.device == device).expect("a rung")
}

/// What the log says about why this device is put away.
fn quarantine(events: &[Event], device: &str) -> (String, String) {
    let of = |event: &Event| match &event.kind {
        EventKind::Quarantined { device: one, reason, detail, .. } if one == device => {
            Some((reason.clone(), detail.clone()))
        }
        _ => None,
    };
    events.iter().find_map(of).expect("it is in quarantine")
}

/// Starts with rungs that cannot: what serves is this level, and each of the others says why.
fn starts_without(devices: &[&str], (how, said, reason): (Start, &str, &str), level: Level) {
    let _alone = alone();
    let devices_dead = devices.iter().map(ToString::to_string).collect();
    let model =
        TinyModel::scripted(&Script { start: how, devices: devices_dead, ..Script::default() });
    let mut config = config(&model);
    config.supervisor.restarts_max = 2;
    // As short as a busy machine allows to the others.
    config.worker.start_deadline_ms = if how == Start::Hang { 3_000 } else { 60_000 };
    let runtime = start(config);
    runtime.settled();
    assert_eq!(runtime.level(), level, "{devices:?} {how:?}");
    assert_right("w1 w2", &runtime.embed("w1 w2", &EmbedOptions::default()));
    for device in devices {
        // One that ends without a word is tried again until that is too often.
        let why = eventually("quarantine", || {
            let status = worker(&runtime, device);
            let put_away = status.state == WorkerState::Quarantined;
            put_away.then(|| status.last_end.expect("a reason"))
        });
        assert!(why.contains(said), "{device}: {why}");
        let (short, detail) = quarantine(&runtime.events().recent(usize::MAX), device);
        assert_eq!(short, reason);
        assert!(detail.contains(said), "{device}: {detail}");
    }
    assert!(runtime.shutdown().drained);
    for pid in model.pids() {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
}

#[test]
fn one_gpu_dead_at_start() {
    for way in WAYS {
        starts_without(&["cuda:0"], way, Level::Gpu(1));
    }
}

#[test]
fn both_gpus_dead_at_start() {
    for way in WAYS {
        starts_without(&["cuda:0", "cuda:1"], way, Level::Cpu);
    }
}

#[test]
fn the_cpu_dead_at_start() {
    starts_without(&["cpu"], WAYS[0], Level::Gpu(2));
}

#[test]
fn with_everything_dead_at_start_every_reason_is_given() {
    let _alone = alone();
    let model = TinyModel::scripted(&Script { start: Start::Fail, ..Script::default() });
    let error = Runtime::start(config(&model)).expect_err("nothing can serve").to_string();
    for device in ["cuda:0", "cuda:1", "cpu"] {
        let reason = format!("{device}: the fake worker was told to fail");
        assert!(error.contains(&reason), "{error}");
    }
}
