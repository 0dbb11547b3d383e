//! Workers that break the protocol: what they say is refused, they are replaced, and no caller gets
//! a row that is not its own.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use forebay::EmbedOptions;
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
