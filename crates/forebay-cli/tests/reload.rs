//! A runtime that takes another's place under load, and the operator's cap on the level: nothing that
//! was accepted is lost, and what fails leaves everything as it was.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::blocking::Runtime;
use forebay::events::EventKind;
use forebay::{EmbedOptions, Level, PinError, StartError, WorkerState};
use support::script::{Script, Start};
use support::tiny::{TinyModel, text};
use support::{assert_right, eventually, exists, fake_config, restarts, start};

const CLIENTS: usize = 3;
const TEXTS_EACH_ROUND: usize = 40;

/// Embeds texts with whatever runtime is in `place` until `done`; how many.
fn client(place: &RwLock<Option<Runtime>>, done: &AtomicBool, number: usize) -> usize {
    let mut embedded = 0;
    while !done.load(Ordering::Acquire) {
        let texts: Vec<String> = (0..TEXTS_EACH_ROUND).map(|n| text(number * 97 + n)).collect();
        let ticket = {
            let runtime = place.read().expect("no panic");
            let runtime = runtime.as_ref().expect("one is there");
            runtime.submit_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted")
        };
        let Ok(results) = ticket.wait(Some(support::GENEROUS)) else { panic!("no answer") };
        texts.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
        embedded += results.len();
    }
    embedded
}

#[test]
fn another_model_takes_over_under_load_and_nothing_is_lost() {
    let (first, second) = (TinyModel::new(), TinyModel::new());
    let place = RwLock::new(Some(start(fake_config(first.path()))));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let (place, done) = (&place, &done);
                    move || client(place, done, number)
                })
            })
            .collect();
        for model in [&second, &first, &second] {
            let new = {
                let old = place.read().expect("no panic");
                old.as_ref().expect("one is there").start_beside(fake_config(model.path()))
            };
            let new = new.unwrap_or_else(|error| panic!("it does not start: {error}"));
            assert_eq!(new.level(), Level::Cpu, "it serves when it is handed over");
            let old = place.write().expect("no panic").replace(new).expect("one was there");
            assert!(old.shutdown().drained);
        }
        done.store(true, Ordering::Release);
        for client in clients {
            assert!(client.join().expect("no panic") > 0);
        }
    });
    let last = place.into_inner().expect("no panic").expect("one is there");
    assert_eq!(restarts(&last), 0);
    // One log tells of all four, and of three ends.
    let events = last.events().recent(1_000);
    let count = |is: fn(&EventKind) -> bool| events.iter().filter(|event| is(&event.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::RuntimeStarted { .. })), 4);
    assert_eq!(count(|kind| matches!(kind, EventKind::RuntimeStopped { drained: true })), 3);
    assert!(last.shutdown().drained);
    for pid in first.pids().into_iter().chain(second.pids()) {
        assert!(!exists(pid), "a worker is left");
    }
}

#[test]
fn what_cannot_take_over_changes_nothing() {
    let model = TinyModel::new();
    let old = start(fake_config(model.path()));
    let before = old.status().workers;
    let bad_value = {
        let mut config = fake_config(model.path());
        config.batch.tokens_max = 0;
        config
    };
    assert!(matches!(old.start_beside(bad_value), Err(StartError::Config(_))));
    let no_model = fake_config(&model.path().join("nowhere"));
    assert!(matches!(old.start_beside(no_model), Err(StartError::Model(_))));
    let mut other_log = fake_config(model.path());
    other_log.events.recent_events_max += 1;
    let fixed = old.start_beside(other_log).expect_err("the log stays");
    assert!(matches!(fixed, StartError::Fixed { section: "events" }), "{fixed}");
    let fails = TinyModel::scripted(&Script { start: Start::Fail, ..Script::default() });
    let failed = old.start_beside(fake_config(fails.path())).expect_err("no worker starts");
    assert!(matches!(failed, StartError::Worker { .. }), "{failed}");
    for pid in fails.pids() {
        assert!(!exists(pid), "a worker of it is left");
    }
    let after = old.status().workers;
    assert_eq!((before[0].pid, before[0].state), (after[0].pid, after[0].state));
    assert_eq!(old.level(), Level::Cpu);
    assert_right("w1", &old.embed("w1", &EmbedOptions::default()));
    assert!(old.shutdown().drained);
}

#[test]
fn a_cap_takes_gpus_out_of_service_and_passes_on() {
    let model = TinyModel::new();
    let mut config = fake_config(model.path());
    config.devices.rungs = "cuda:0,cuda:1".parse().expect("devices");
    let runtime = start(config.clone());
    runtime.settled();
    assert_eq!(runtime.level(), Level::Gpu(2));
    let texts: Vec<String> = (0..2_000).map(text).collect();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()));
        runtime.pin_level(Some(Level::Gpu(1))).expect("capped");
        assert_eq!(runtime.level(), Level::Gpu(1), "at once");
        runtime.pin_level(Some(Level::Cpu)).expect("capped");
        assert_eq!(runtime.level(), Level::Cpu);
        let results = run.join().expect("no panic").expect("accepted");
        texts.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
    });
    let states = |runtime: &Runtime| -> Vec<WorkerState> {
        runtime.status().workers.iter().map(|worker| worker.state).collect()
    };
    use WorkerState::{Capped, Serving};
    assert_eq!(states(&runtime), [Capped, Capped, Serving]);
    assert_eq!((runtime.status().pinned, restarts(&runtime)), (Some(Level::Cpu), 0));
    let refused = runtime.pin_level(Some(Level::Down)).expect_err("nothing could serve");
    assert_eq!(refused, PinError::NothingLeft { level: Level::Down });
    let new = runtime.start_beside(config).expect("it serves as well as the cap lets it");
    assert!(runtime.shutdown().drained);
    assert_eq!((new.level(), new.status().pinned), (Level::Cpu, Some(Level::Cpu)));
    new.pin_level(None).expect("lifted");
    eventually("the full level", || (new.level() == Level::Gpu(2)).then_some(()));
    assert_eq!(states(&new), [Serving; 3]);
    assert_right("w1", &new.embed("w1", &EmbedOptions::default()));
    let pins = new.events().recent(1_000).into_iter().filter_map(|event| match event.kind {
        EventKind::LevelPinned { level } => Some(level),
        _ => None,
    });
    let level = |level: &str| Some(level.to_owned());
    let pins: Vec<_> = pins.collect();
    assert_eq!(pins, [level("gpu(1)"), level("cpu"), level("cpu"), None]);
    assert!(new.shutdown().drained);
}
