//! The ladder over real engines: a rung that cannot serve this model, a device that computes wrong
//! numbers, and one of two that fails.

use forebay::blocking::Runtime;
use forebay::config::{Device, Fallback};
use forebay::events::{Event, EventKind};
use forebay::{EmbedOptions, Fault, Level, WorkerState};

use crate::driver::FakeDriver;
use crate::support::tiny::TinyModel;
use crate::support::{eventually, restarts, start};
use crate::{assert_right, config, embed, gpu, short_texts, shut_down};

const GPU: Device = Device::Cuda(0);
const OTHER: Device = Device::Cuda(1);

/// Waits for an event of this runtime, and gives it.
fn happened(runtime: &Runtime, what: &str, is: impl Fn(&EventKind) -> bool) -> Event {
    eventually(what, || {
        let events = runtime.events().recent(usize::MAX);
        events.into_iter().find(|event| is(&event.kind))
    })
}

#[test]
fn a_model_that_only_the_cpu_can_read_is_served_by_it_and_the_log_says_why() {
    // Narrower than any model that the kernels can compute.
    let (driver, model) = (FakeDriver::new(&[]), TinyModel::new());
    let mut config = config(&driver);
    config.model.path = model.path().to_owned();
    config.devices.fallback = Fallback::Cpu;
    let runtime = start(config);
    runtime.settled();
    assert_eq!(runtime.level(), Level::Cpu);
    let status = gpu(&runtime);
    assert_eq!(status.state, WorkerState::Quarantined);
    let why = status.last_end.expect("a reason");
    assert!(why.contains("hidden_size"), "{why}");
    let put_away = happened(&runtime, "quarantine", |kind| {
        matches!(kind, EventKind::Quarantined { device, reason, detail, .. }
            if device == "cuda:0" && reason == "start" && detail.contains("hidden_size"))
    });
    // From the end of its process to the quarantine, each for the one before.
    let events = runtime.events().recent(usize::MAX);
    let cause = |event: &Event| {
        let cause = event.cause.expect("it has one");
        events.iter().find(|event| event.id == cause).cloned().expect("it is there")
    };
    let exited = cause(&put_away);
    assert!(matches!(&exited.kind, EventKind::SlotChanged { to, .. } if to == "quarantined"));
    assert!(matches!(cause(&exited).kind, EventKind::WorkerEnded { .. }));
    assert!(runtime.embed("w1 w2", &EmbedOptions::default()).is_ok());
    assert!(runtime.shutdown().drained);
}

#[test]
fn of_two_gpus_one_computes_wrongly_and_the_other_breaks() {
    let driver = FakeDriver::new(&["devices 2"]);
    let mut config = config(&driver);
    config.devices.rungs = "cuda:0,cuda:1".parse().expect("devices");
    config.faults.enabled = true;
    config.canary.interval_ms = 100;
    config.supervisor.quarantine_probe_ms = vec![100];
    // Far above what a batch takes here, on any machine.
    config.cuda.batch_deadline_ms = 60_000;
    config.hedge.enabled = false;
    let runtime = start(config);
    runtime.settled();
    assert_eq!(runtime.level(), Level::Gpu(2));

    // Known answers find it, and it is gone with its worker.
    runtime.inject(Some(OTHER), Fault::FlipWeightBit).expect("injected");
    let failed = happened(&runtime, "wrong known answers", |kind| {
        matches!(kind, EventKind::CanaryFailed { .. })
    });
    let EventKind::CanaryFailed { device, reason, replies, .. } = &failed.kind else {
        panic!("{failed:?}");
    };
    assert_eq!((device.as_str(), *replies), ("cuda:1", 0), "nobody has asked for anything");
    assert!(reason.contains("differs from its first result"), "{reason}");
    happened(
        &runtime,
        "quarantine",
        |kind| matches!(kind, EventKind::Quarantined { reason, .. } if reason == "canary"),
    );
    happened(&runtime, "its end", |kind| matches!(kind, EventKind::Released { .. }));
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));

    runtime.inject(Some(GPU), Fault::Trap).expect("injected");
    let texts = short_texts(20);
    assert_right(&embed(&runtime, &texts), &texts);
    let ended = happened(
        &runtime,
        "the end of the other",
        |kind| matches!(kind, EventKind::WorkerEnded { device, .. } if device == "cuda:0"),
    );
    let EventKind::WorkerEnded { reason, log, .. } = &ended.kind else { panic!("{ended:?}") };
    assert!(reason.contains("sticky_cuda") && log.contains("(719)"), "{reason}: {log}");
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    assert_eq!(restarts(&runtime), 2);
    shut_down(runtime);
}
