//! Each fault once, and several together.

use std::time::{Duration, Instant};

use forebay::config::Device;
use forebay::{EmbedOptions, Fault, Level};

use crate::load::{GPU, OTHER, alone, config, under_load};
use crate::support::script::Script;
use crate::support::tiny::TinyModel;
use crate::support::{assert_right, eventually, start};

/// Faults that end their worker: exactly one is replaced, for a reason that says so, and nobody
/// hears of it.
fn ends_its_worker(fault: Fault, said: &str) {
    let outcome = under_load(|loaded| {
        loaded.inject(GPU, fault);
        loaded.restarted(1);
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 1), "{fault}");
    assert!(outcome.ends.iter().any(|end| end.contains(said)), "{fault}: {:?}", outcome.ends);
}

#[test]
fn a_killed_worker() {
    ends_its_worker(Fault::Kill, "signal 9");
}

#[test]
fn a_stopped_worker() {
    ends_its_worker(Fault::Stop, "worker.batch_deadline_ms");
}

#[test]
fn a_trap() {
    ends_its_worker(Fault::Trap, "signal 6");
}

#[test]
fn an_illegal_address() {
    ends_its_worker(Fault::IllegalAddress, "signal 11");
}

#[test]
fn an_endless_kernel() {
    ends_its_worker(Fault::EndlessKernel, "worker.batch_deadline_ms");
}

#[test]
fn a_device_without_memory_fails_one_batch_and_lives() {
    let outcome = under_load(|loaded| {
        loaded.inject(GPU, Fault::DeviceOutOfMemory);
        eventually("a second run", || {
            (loaded.counted("forebay_batches_rerun_total", "") > 0).then_some(())
        });
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 0));
}

#[test]
fn a_flipped_bit_of_an_answer_is_found_and_costs_a_second_run() {
    let outcome = under_load(|loaded| {
        loaded.inject(GPU, Fault::FlipOutputBit);
        eventually("a refused answer", || {
            (loaded.counted("forebay_reply_check_failures_total", "checksum") > 0).then_some(())
        });
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 0));
}

#[test]
fn a_flipped_weight_gives_wrong_rows_until_its_worker_goes() {
    let outcome = under_load(|loaded| {
        loaded.inject(GPU, Fault::FlipWeightBit);
        eventually("a wrong row", || (loaded.wrong() > 0).then_some(()));
        // Whatever finds it, the end of the worker is the cure.
        loaded.inject_when_up(GPU, Fault::Kill);
        loaded.restarted(1);
        loaded.comes_back();
    });
    outcome.assert_no_error();
    assert_eq!(outcome.restarts, 1);
}

#[test]
fn starts_that_fail_are_tried_again_until_one_does_not() {
    let outcome = under_load(|loaded| {
        loaded.inject(GPU, Fault::FailStarts(3));
        loaded.inject(GPU, Fault::Kill);
        loaded.restarted(4);
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 4));
    let said = |end: &String| end.contains("this start fails");
    assert!(outcome.ends.iter().any(said), "{:?}", outcome.ends);
}

#[test]
fn both_gpus_at_once() {
    for fault in [Fault::Kill, Fault::Trap] {
        let outcome = under_load(|loaded| {
            loaded.inject(GPU, fault);
            loaded.inject(OTHER, fault);
            loaded.restarted(2);
        });
        outcome.assert_few_suspects(2);
        assert_eq!(outcome.wrong, 0, "{fault}");
        if fault == Fault::Kill {
            assert_eq!(outcome.restarts, 2);
        }
    }
}

#[test]
fn one_gpu_after_the_other_again_and_again() {
    let faults = [Fault::Kill, Fault::Trap, Fault::FlipOutputBit, Fault::IllegalAddress];
    let outcome = under_load(|loaded| {
        for (nth, fault) in faults.into_iter().cycle().take(12).enumerate() {
            let device = if nth % 2 == 0 { GPU } else { OTHER };
            loaded.inject_when_up(device, fault);
            loaded.serves();
        }
    });
    outcome.assert_few_suspects(12);
    assert_eq!(outcome.wrong, 0);
    // A request for a fault may find its worker dying of the one before.
    assert!((3..=9).contains(&outcome.restarts), "{} restarts", outcome.restarts);
}

#[test]
fn a_slow_worker_is_slow_until_it_is_told_otherwise() {
    const BATCH: Duration = Duration::from_millis(5);
    let _alone = alone();
    let delay_us = u64::try_from(BATCH.as_micros()).expect("short");
    let model = TinyModel::scripted(&Script { delay_us, ..Script::default() });
    let mut config = config(&model);
    config.devices.rungs = "cpu".parse().expect("a device");
    config.worker.batch_deadline_ms = 60_000;
    let runtime = start(config);
    assert_eq!(runtime.level(), Level::Cpu);
    runtime.inject(Some(Device::Cpu), Fault::Slow(40)).expect("injected");
    let begin = Instant::now();
    assert_right("w1 w2", &runtime.embed("w1 w2", &EmbedOptions::default()));
    assert!(begin.elapsed() >= 40 * BATCH, "{:?}", begin.elapsed());
    runtime.inject(Some(Device::Cpu), Fault::Slow(1)).expect("injected");
    assert_right("w3", &runtime.embed("w3", &EmbedOptions::default()));
    assert!(runtime.shutdown().drained);
}
