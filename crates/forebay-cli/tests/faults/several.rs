//! Several devices struck together, and texts that strike them.

use std::sync::atomic::{AtomicU64, Ordering};

use forebay::config::Device;
use forebay::events::{Event, EventKind};
use forebay::{EmbedError, EmbedOptions, Fault};

use crate::history::words;
use crate::load::{GPU, OTHER, patient, script, under_load_of};
use crate::support::script::Script;
use crate::support::tiny::{BAD_ID, BAD_WORD};

/// Whether something of this kind, in the words of [`words`], happened.
fn is_there(events: &[Event], what: &str) -> bool {
    events.iter().any(|event| words(event) == what)
}

#[test]
fn both_gpus_stopped_at_once_leave_the_cpu_to_answer() {
    let outcome = under_load_of(&script(), patient, |loaded| {
        loaded.inject(GPU, Fault::Stop);
        loaded.inject(OTHER, Fault::Stop);
        loaded.restarted(2);
    });
    outcome.assert_few_suspects(2);
    assert_eq!((outcome.wrong, outcome.restarts), (0, 2));
    assert!(is_there(&outcome.events, "level gpu(1) to cpu"), "{:#?}", outcome.events);
}

#[test]
fn all_three_rungs_at_once_and_everything_comes_back() {
    for fault in [Fault::Kill, Fault::Stop] {
        let outcome = under_load_of(&script(), patient, |loaded| {
            for device in [GPU, OTHER, Device::Cpu] {
                loaded.inject(device, fault);
            }
            loaded.restarted(3);
        });
        outcome.assert_few_suspects(3);
        assert_eq!((outcome.wrong, outcome.restarts), (0, 3), "{fault}");
    }
}

#[test]
fn one_gpu_hangs_after_the_other_again_and_again() {
    const ROUNDS: usize = 4;
    let change = |config: &mut forebay::Config| {
        config.cuda.batch_deadline_ms = 500;
    };
    let outcome = under_load_of(&script(), change, |loaded| {
        for round in 0..ROUNDS {
            let device = if round % 2 == 0 { GPU } else { OTHER };
            let fault = if round < 2 { Fault::Stop } else { Fault::EndlessKernel };
            loaded.inject_when_up(device, fault);
            loaded.happened(device, "ended", 1 + round / 2);
            loaded.answers_everybody();
            loaded.comes_back();
        }
    });
    outcome.assert_few_suspects(ROUNDS);
    assert_eq!(outcome.wrong, 0);
    assert!(outcome.restarts >= ROUNDS as u64, "{} restarts", outcome.restarts);
}

#[test]
fn a_text_that_kills_every_worker_is_named_and_costs_nobody_else_anything() {
    const KILLERS: u64 = 3;
    let script = Script { die_on: vec![BAD_ID], ..script() };
    let executed = AtomicU64::new(0);
    let outcome = under_load_of(&script, patient, |loaded| {
        for killer in 0..KILLERS {
            let text = format!("w{killer} {BAD_WORD} w3");
            match loaded.runtime.embed(text, &EmbedOptions::default()) {
                Err(EmbedError::PoisonInput { executions }) => {
                    assert!((1..=2).contains(&executions), "{executions} executions");
                    executed.fetch_add(executions.into(), Ordering::Relaxed);
                }
                other => panic!("{other:?}"),
            }
            loaded.comes_back();
        }
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, executed.into_inner()));
    let put_away = |event: &Event| matches!(event.kind, EventKind::Quarantined { .. });
    assert!(!outcome.events.iter().any(put_away));
    // It is known for what it is: nothing was late, nothing was computed wrongly.
    for what in ["hedged", "canary failed"] {
        assert!(!is_there(&outcome.events, what), "{what}");
    }
}

#[test]
fn everything_that_can_be_asked_for_one_after_the_other() {
    let faults = [
        Fault::FlipOutputBit,
        Fault::DeviceOutOfMemory,
        Fault::Trap,
        Fault::FailStarts(2),
        Fault::Kill,
        Fault::IllegalAddress,
        Fault::MonitorHang,
        Fault::LogDiskFull(true),
        Fault::Kill,
        Fault::LogDiskFull(false),
    ];
    let folder = tempfile::tempdir().expect("a folder for the event log");
    let change = |config: &mut forebay::Config| config.events.folder = folder.path().to_owned();
    let outcome = under_load_of(&script(), change, |loaded| {
        for (nth, fault) in faults.into_iter().enumerate() {
            let device = if nth % 2 == 0 { GPU } else { OTHER };
            if fault.is_of_device() {
                loaded.inject_when_up(device, fault);
            } else {
                loaded.runtime.inject(None, fault).unwrap_or_else(|error| panic!("{error}"));
            }
            loaded.answers_everybody();
        }
    });
    outcome.assert_few_suspects(faults.len());
    assert_eq!(outcome.wrong, 0);
    for fault in faults {
        let injected = format!("fault {}", fault);
        assert!(is_there(&outcome.events, &injected), "{injected}");
    }
}
