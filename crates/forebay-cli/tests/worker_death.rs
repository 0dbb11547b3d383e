//! Workers that die, hang or do not start: the runtime goes on, gives no wrong row and loses none,
//! and leaves no process behind.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::time::Duration;

use forebay::blocking::Runtime;
use forebay::{EmbedOptions, EmbedResult, Level, StartError};
use rustix::process::Signal;
use support::script::{Script, Start};
use support::tiny::{BAD_ID, BAD_WORD, TinyModel, text};
use support::{assert_right, eventually, exists, fake_config, kill, restarts, start, worker_pid};

fn texts(count: usize) -> Vec<String> {
    (0..count).map(text).collect()
}

fn slow() -> Script {
    Script { delay_us: 2_000, ..Script::default() }
}

/// Embeds in a thread of its own, while `meanwhile` does something to the worker.
fn embed_while(
    runtime: &Runtime,
    texts: &[String],
    meanwhile: impl FnOnce(&dyn Fn() -> bool),
) -> Vec<EmbedResult> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| runtime.embed_batch(texts.to_vec(), &EmbedOptions::bulk()));
        meanwhile(&|| run.is_finished());
        run.join().expect("no panic").expect("accepted")
    })
}

fn shut_down(runtime: Runtime, model: &TinyModel) {
    assert!(runtime.shutdown().drained);
    assert!(!model.pids().is_empty());
    for pid in model.pids() {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
}

#[test]
fn a_killed_worker_costs_no_row_and_no_order() {
    let model = TinyModel::scripted(&slow());
    let runtime = start(fake_config(model.path()));
    let texts = texts(3_000);
    let results = embed_while(&runtime, &texts, |_| {
        // In the middle of the run: something is under way, something is done.
        eventually("work under way", || {
            let queues = runtime.status().queues;
            queues.iter().any(|queue| queue.under_way > 300).then_some(())
        });
        kill(worker_pid(&runtime).expect("a worker serves"), Signal::KILL);
    });
    assert_eq!(results.len(), texts.len());
    texts.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
    assert_eq!(restarts(&runtime), 1);
    let end = runtime.status().workers[0].last_end.clone().expect("an end");
    assert!(end.contains("signal 9"), "{end}");
    shut_down(runtime, &model);
}

#[test]
fn killed_again_and_again_it_ends_with_right_rows_and_typed_errors() {
    let model = TinyModel::scripted(&slow());
    let runtime = start(fake_config(model.path()));
    let texts = texts(600);
    let mut kills = 0;
    let results = embed_while(&runtime, &texts, |finished| {
        let mut last = None;
        // So often that the run cannot be through before.
        while kills < 30 && !finished() {
            if let Some(pid) = worker_pid(&runtime).filter(|pid| last != Some(*pid)) {
                kill(pid, Signal::KILL);
                (last, kills) = (Some(pid), kills + 1);
            }
            std::thread::yield_now();
        }
    });
    assert!(kills > 2, "the run was over after {kills} kills");
    assert_eq!(results.len(), texts.len());
    for (text, result) in texts.iter().zip(&results) {
        match result {
            Ok(_) => assert_right(text, result),
            // A text whose second run was cut short by a kill looks like the culprit.
            Err(error) => assert_eq!(error.code(), "poison_input", "{error}"),
        }
    }
    // And after the storm it serves as before.
    let after = runtime.embed("w1 w2", &EmbedOptions::default());
    assert_right("w1 w2", &after);
    shut_down(runtime, &model);
}

#[test]
fn a_text_that_kills_its_worker_is_named_and_its_neighbours_succeed() {
    let model = TinyModel::scripted(&Script { die_on: vec![BAD_ID], ..slow() });
    let runtime = start(fake_config(model.path()));
    let mut texts = texts(100);
    texts[37] = format!("w7 {BAD_WORD} w8");
    let results = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
    for (number, (text, result)) in texts.iter().zip(&results).enumerate() {
        if number == 37 {
            let error = result.as_ref().expect_err("it kills");
            assert_eq!(error.code(), "poison_input");
            assert!(error.to_string().contains("2 times"), "{error}");
        } else {
            assert_right(text, result);
        }
    }
    assert!(restarts(&runtime) <= 2, "{} restarts", restarts(&runtime));
    shut_down(runtime, &model);
}

#[test]
fn a_hung_worker_is_ended_and_its_work_done_by_the_next() {
    // Only the first worker hangs, so even the text that it hung at succeeds.
    let script = Script { hang_on: vec![BAD_ID], incarnations: 1, ..Script::default() };
    let model = TinyModel::scripted(&script);
    let mut config = fake_config(model.path());
    config.worker.batch_deadline_ms = 300;
    let runtime = start(config);
    let mut texts = texts(60);
    texts[20] = BAD_WORD.to_owned();
    let results = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
    texts.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
    assert_eq!(restarts(&runtime), 1);
    let end = runtime.status().workers[0].last_end.clone().expect("an end");
    assert!(end.contains("worker.batch_deadline_ms"), "{end}");
    shut_down(runtime, &model);
}

#[test]
fn failed_batches_and_rows_are_run_alone_before_they_count() {
    for (script, code) in [
        (Script { fail_on: vec![BAD_ID], ..Script::default() }, "inference"),
        (Script { refuse_on: vec![BAD_ID], ..Script::default() }, "inference"),
        (Script { nan_on: vec![BAD_ID], ..Script::default() }, "invalid_result"),
    ] {
        let model = TinyModel::scripted(&script);
        let runtime = start(fake_config(model.path()));
        let mut texts = texts(50);
        texts[11] = BAD_WORD.to_owned();
        let results = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
        for (number, (text, result)) in texts.iter().zip(&results).enumerate() {
            if number == 11 {
                assert_eq!(result.as_ref().expect_err("bad").code(), code);
            } else {
                assert_right(text, result);
            }
        }
        assert_eq!(restarts(&runtime), 0);
        shut_down(runtime, &model);
    }
}

#[test]
fn a_worker_that_cannot_start_says_why_and_leaves_nothing() {
    for (how, said) in [
        (Start::Fail, "the fake worker was told to fail"),
        (Start::Exit, "exited with code 3"),
        (Start::Hang, "worker.start_deadline_ms"),
    ] {
        let model = TinyModel::scripted(&Script { start: how, ..Script::default() });
        let mut config = fake_config(model.path());
        config.worker.start_deadline_ms = 1_000;
        config.supervisor.restarts_max = 1;
        match Runtime::start(config) {
            Err(StartError::Worker { reason }) => assert!(reason.contains(said), "{reason}"),
            other => panic!("{how:?}: {other:?}"),
        }
        assert!(!model.pids().is_empty());
        for pid in model.pids() {
            assert!(!exists(pid), "{how:?}: worker {pid} is left behind");
        }
    }
}

#[test]
fn a_worker_killed_during_its_start_is_started_again() {
    let script =
        Script { start: Start::Hang, from_incarnation: 2, incarnations: 1, ..Script::default() };
    let model = TinyModel::scripted(&script);
    let runtime = start(fake_config(model.path()));
    kill(model.pids()[0], Signal::KILL);
    let second = eventually("a second worker", || model.pids().get(1).copied());
    kill(second, Signal::KILL);
    let third = eventually("a third worker", || {
        worker_pid(&runtime).filter(|pid| model.pids().get(2) == Some(pid))
    });
    assert!(exists(third));
    assert_eq!(restarts(&runtime), 2);
    assert_right("w1", &runtime.embed("w1", &EmbedOptions::default()));
    shut_down(runtime, &model);
}

#[test]
fn what_a_restart_does_not_cure_makes_the_runtime_unavailable_at_once() {
    // It serves, dies, and cannot be started again.
    let script = Script { start: Start::Fail, from_incarnation: 2, ..Script::default() };
    let model = TinyModel::scripted(&script);
    let runtime = start(fake_config(model.path()));
    kill(model.pids()[0], Signal::KILL);
    let mut levels = runtime.watch_level();
    eventually("level down", || (levels.current() == Level::Down).then_some(()));
    let result = eventually("a refusal", || {
        runtime.embed("w1", &EmbedOptions::default()).err().filter(|e| e.code() == "unavailable")
    });
    assert!(result.to_string().contains("told to fail"), "{result}");
    drop(levels.clone());
    shut_down(runtime, &model);
    assert!(futures_end(&mut levels), "a watch ends with its runtime");
}

/// Whether a watch tells that its runtime is gone.
fn futures_end(levels: &mut forebay::LevelWatch) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let end = async { while levels.changed().await.is_some() {} };
        tokio::time::timeout(support::GENEROUS, end).await.is_ok()
    })
}

#[test]
fn a_dropped_runtime_leaves_no_process_and_answers_everything() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let hold = model.hold();
    let tickets: Vec<_> = (0..200)
        .map(|number| runtime.submit(text(number), &EmbedOptions::bulk()).expect("accepted"))
        .collect();
    drop(runtime);
    for ticket in tickets {
        let result = ticket.wait(Some(support::GENEROUS)).expect("answered");
        let code = result.expect_err("not computed").code();
        assert!(["shutting_down", "internal"].contains(&code), "{code}");
    }
    for pid in model.pids() {
        eventually("end of the worker", || (!exists(pid)).then_some(()));
    }
    drop(hold);
}

#[test]
fn a_shutdown_does_not_wait_longer_than_it_is_told_to() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let hold = model.hold();
    let ticket = runtime.submit("w1", &EmbedOptions::bulk()).expect("accepted");
    assert!(!runtime.shutdown_within(Duration::from_millis(50)).drained);
    let result = ticket.wait(Some(support::GENEROUS)).expect("answered");
    assert!(result.is_err(), "{result:?}");
    for pid in model.pids() {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
    drop(hold);
}

#[test]
fn a_killed_real_worker_changes_no_bit_of_the_output() {
    let config = || {
        let mut config = support::real_config(&support::real_model());
        config.batch.rows_max = 32;
        config.supervisor.backoff_min_ms = 1;
        config.supervisor.backoff_max_ms = 20;
        config.admission.down_grace_ms = 60_000;
        config
    };
    let words = ["brake", "pressure", "low", "door", "open", "lidar", "lost", "robot", "stops"];
    let texts: Vec<String> = (0..600)
        .map(|number| {
            let words =
                (0..1 + number % 13).map(|word| words[(number * 5 + word * 7) % words.len()]);
            format!("{number} {}", words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let undisturbed = start(config());
    let expected = undisturbed.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
    assert!(undisturbed.shutdown().drained);
    let runtime = start(config());
    let results = embed_while(&runtime, &texts, |_| {
        eventually("work done and work under way", || {
            let queues = runtime.status().queues;
            queues.iter().any(|queue| (1..400).contains(&queue.under_way)).then_some(())
        });
        kill(worker_pid(&runtime).expect("a worker serves"), Signal::KILL);
    });
    assert_eq!(restarts(&runtime), 1);
    assert!(runtime.shutdown().drained);
    let rows = |results: Vec<EmbedResult>| -> Vec<Vec<f32>> {
        results.into_iter().map(|result| result.expect("embedded").vector).collect()
    };
    let (expected, found) = (rows(expected), rows(results));
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found == expected, "row {number} differs: {found:?} {expected:?}");
    }
}
