//! Devices that compute wrong numbers: found by their known answers, put away, and counted.

use forebay::Fault;
use forebay::Level;
use forebay::events::{Event, EventKind};

use crate::history::{assert_chain, words};
use crate::load::{GPU, OTHER, Outcome, patient, script, under_load, under_load_of};
use crate::support::eventually;

/// Known answers and probes as often as can be.
fn watchful(config: &mut forebay::Config) {
    patient(config);
    config.canary.interval_ms = 100;
    config.supervisor.quarantine_probe_ms = vec![100];
}

/// Embeddings that were reported as suspect.
fn suspect(outcome: &Outcome) -> u64 {
    let replies = outcome.events.iter().map(|event| match event.kind {
        EventKind::CanaryFailed { replies, .. } => replies,
        _ => 0,
    });
    replies.sum()
}

#[test]
fn a_flipped_weight_is_found_put_away_and_the_second_time_for_good() {
    let outcome = under_load_of(&script(), watchful, |loaded| {
        loaded.inject(GPU, Fault::FlipWeightBit);
        loaded.happened(GPU, "quarantined canary", 1);
        // A probe computes rightly, and it serves again.
        loaded.happened(GPU, "released by ladder", 1);
        loaded.comes_back();
        loaded.serves();
        loaded.inject(GPU, Fault::FlipWeightBit);
        loaded.happened(GPU, "quarantined operator", 1);
        loaded.serves();
        let level = loaded.runtime.level();
        assert!(level == Level::Gpu(1), "{level}");
        // Nothing but a word ends this.
        let starts = |event: &&Event| words(event) == "quarantined to starting";
        assert_eq!(loaded.events().iter().filter(starts).count(), 1);
        assert!(loaded.runtime.release(GPU));
    });
    outcome.assert_no_error();
    assert!(outcome.wrong <= suspect(&outcome), "{} wrong rows were not counted", outcome.wrong);
    let found = ["fault flip_weight_bit", "canary failed", "serving to exited", "ended"];
    let canary = ["exited to quarantined", "quarantined canary", "quarantined to starting"];
    let probed = ["starting to warming", "warming to probation", "released by ladder"];
    let operator = ["exited to quarantined", "quarantined operator", "released by operator"];
    let restarted = ["quarantined to backoff", "backoff to starting", "starting to warming"];
    let serves = ["probation to serving"];
    // Each time the story begins anew.
    let second = outcome.events.iter().rposition(|event| words(event) == found[0]);
    let (first, second) = outcome.events.split_at(second.expect("injected twice"));
    assert_chain(first, GPU, &[&found[..], &canary, &probed, &serves].concat());
    let served = ["warming to probation", serves[0]];
    let chain = assert_chain(second, GPU, &[&found[..], &operator, &restarted, &served].concat());
    let EventKind::CanaryFailed { reason, .. } = &chain[1].kind else { panic!("{:?}", chain[1]) };
    assert!(reason.contains("differs from its first result"), "{reason}");
    let EventKind::Quarantined { probe_after_ms: None, detail, .. } = &chain[5].kind else {
        panic!("{:?}", chain[5]);
    };
    assert!(detail.contains(reason.as_str()), "{detail}");
}

#[test]
fn whatever_both_devices_compute_is_counted_until_their_canaries_find_them() {
    let outcome = under_load_of(&script(), watchful, |loaded| {
        loaded.inject(GPU, Fault::FlipWeightBit);
        loaded.inject(OTHER, Fault::FlipWeightBit);
        for device in [GPU, OTHER] {
            loaded.happened(device, "quarantined canary", 1);
            loaded.happened(device, "released by ladder", 1);
        }
    });
    outcome.assert_no_error();
    assert!(outcome.wrong <= suspect(&outcome), "{} wrong rows were not counted", outcome.wrong);
}

#[test]
fn flipped_output_bits_never_get_out_and_are_no_reason_to_put_a_device_away() {
    const FLIPS: u64 = 20;
    let outcome = under_load(|loaded| {
        for flips in 1..=FLIPS {
            loaded.inject_when_up(if flips % 2 == 0 { GPU } else { OTHER }, Fault::FlipOutputBit);
            eventually("a refused answer", || {
                let refused = loaded.counted("forebay_reply_check_failures_total", "checksum");
                (refused >= flips).then_some(())
            });
            // Two flips of one text would be an answer that nobody can give.
            loaded.answers_everybody();
        }
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 0));
    let put_away = |event: &Event| matches!(event.kind, EventKind::Quarantined { .. });
    assert!(!outcome.events.iter().any(put_away));
}
