//! Workers that break the protocol: what they say is refused, they are replaced, and no caller gets
//! a row that is not its own.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use forebay::EmbedOptions;
use forebay::blocking::Runtime;
use support::script::{Rogue, Script};
use support::tiny::{TinyModel, text};
use support::{assert_right, exists, fake_config, restarts, start};

/// The first incarnation breaks the protocol in this way, the next ones keep to it.
fn once(rogue: Rogue) -> TinyModel {
    TinyModel::scripted(&Script { rogue: Some(rogue), incarnations: 1, ..Script::default() })
}

#[test]
fn a_worker_that_says_nonsense_is_replaced_and_its_work_done_again() {
    for (rogue, said) in [
        (Rogue::Garbage, "descriptor starts with 0xa5a5a5a5"),
        (Rogue::Half, "descriptor of 32 bytes"),
        (Rogue::WrongShape, "rows and tokens, expected"),
        (Rogue::HostMessage, "Run from a worker"),
    ] {
        let model = once(rogue);
        let runtime = start(fake_config(model.path()));
        let texts: Vec<String> = (0..100).map(text).collect();
        let results = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
        texts.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
        assert_eq!(restarts(&runtime), 1, "{rogue:?}");
        let end = runtime.status().workers[0].last_end.clone().expect("an end");
        assert!(end.contains("broke the protocol") && end.contains(said), "{rogue:?}: {end}");
        assert!(runtime.shutdown().drained);
    }
}

#[test]
fn answers_that_belong_to_nothing_are_dropped_and_counted() {
    let metrics = forebay::metrics::prometheus::install().expect("the only recorder");
    for rogue in [Rogue::WrongGeneration, Rogue::Duplicate] {
        let before = dropped(&metrics.render());
        let model = once(rogue);
        let runtime = start(fake_config(model.path()));
        let texts: Vec<String> = (0..100).map(text).collect();
        let results = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
        texts.iter().zip(&results).for_each(|(text, result)| assert_right(text, result));
        // The last of them may still be on its way.
        support::eventually("dropped answers", || {
            (dropped(&metrics.render()) >= before + 7).then_some(())
        });
        assert_eq!(restarts(&runtime), 0, "{rogue:?}");
        assert!(runtime.shutdown().drained);
    }
}

/// Answers that were not used so far.
fn dropped(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("forebay_answers_dropped_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_worker_that_does_not_drain_is_ended() {
    let model = once(Rogue::IgnoreDrain);
    let mut config = fake_config(model.path());
    config.worker.drain_deadline_ms = 100;
    let runtime = start(config);
    assert_right("w1", &runtime.embed("w1", &EmbedOptions::default()));
    assert!(runtime.shutdown().drained);
    for pid in model.pids() {
        assert!(!exists(pid), "worker {pid} is left behind");
    }
}

#[test]
fn a_worker_whose_rows_do_not_arrive_as_written_is_replaced_and_none_of_them_is_used() {
    let model = once(Rogue::WrongChecksum);
    let runtime = start(fake_config(model.path()));
    let texts: Vec<String> = (0..100).map(text).collect();
    let results = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).expect("accepted");
    for (text, result) in texts.iter().zip(&results) {
        match result {
            Ok(_) => assert_right(text, result),
            // It ran twice before there had been enough of it, or was alone in it at its end.
            Err(error) => {
                assert!(["invalid_result", "poison_input"].contains(&error.code()), "{error}");
            }
        }
    }
    assert_eq!(restarts(&runtime), 1);
    let end = runtime.status().workers[0].last_end.clone().expect("an end");
    assert!(end.contains("checksum"), "{end}");
    assert!(runtime.shutdown().drained);
}

#[test]
fn a_worker_that_says_nothing_after_its_greeting_is_given_up_at_the_deadline() {
    let model = once(Rogue::Silent);
    let mut config = fake_config(model.path());
    config.worker.batch_deadline_ms = 500;
    let runtime = start(config);
    assert_right("w1 w2", &runtime.embed("w1 w2", &EmbedOptions::default()));
    let end = runtime.status().workers[0].last_end.clone().expect("an end");
    assert!(end.contains("worker.batch_deadline_ms"), "{end}");
    assert!(runtime.shutdown().drained);
    assert!(model.pids().into_iter().all(|pid| !exists(pid)), "a worker is left behind");
}

#[test]
fn a_slow_start_is_waited_for_and_one_that_is_too_slow_is_not() {
    let slow = |start_delay_ms| {
        TinyModel::scripted(&Script { start_delay_ms, incarnations: 1, ..Script::default() })
    };
    let model = slow(300);
    let runtime = start(fake_config(model.path()));
    assert_right("w1", &runtime.embed("w1", &EmbedOptions::default()));
    assert_eq!(restarts(&runtime), 0);
    assert!(runtime.shutdown().drained);
    let model = slow(600_000);
    let mut config = fake_config(model.path());
    config.worker.start_deadline_ms = 1_000;
    let error = Runtime::start(config).expect_err("it is the only worker").to_string();
    assert!(error.contains("worker.start_deadline_ms"), "{error}");
}

#[test]
fn a_worker_that_claims_more_than_its_slots_is_refused() {
    let model = once(Rogue::TooManySideBySide);
    let config = fake_config(model.path());
    let slots = config.worker.slots;
    let error = Runtime::start(config).expect_err("it is the only worker").to_string();
    assert!(error.contains(&format!("{} batches side by side", slots + 1)), "{error}");
}
