//! What outlives the program: quarantines and events on disk.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use forebay::blocking::Runtime;
use forebay::config::Device;
use forebay::events::{Event, EventKind};
use forebay::{Config, EmbedOptions, Fault, Level, WorkerState};
use rustix::process::Signal;

use crate::history::words;
use crate::load::{GPU, alone, config};
use crate::support::tiny::{TinyModel, text};
use crate::support::{assert_right, eventually, exit_code, forebay_with_fake, kill, start};

fn logged(folder: &Path) -> Vec<Event> {
    forebay::events::read(folder).expect("a log").events
}

fn is_there(events: &[Event], device: Device, what: &str) -> bool {
    let device = device.to_string();
    let of_device = events.iter().filter(|event| event.kind.device() == Some(&device));
    of_device.into_iter().any(|event| words(event) == what)
}

/// Waits until this has happened to the device in this run.
fn happened(runtime: &Runtime, device: Device, what: &str) {
    eventually(what, || is_there(&runtime.events().recent(usize::MAX), device, what).then_some(()));
}

fn settings(model: &TinyModel, folder: &Path) -> Config {
    let mut config = config(model);
    config.events.folder = folder.to_owned();
    config.canary.interval_ms = 100;
    config.supervisor.quarantine_probe_ms = vec![100];
    config
}

/// The first GPU is put away, also in this run, and says so.
fn assert_put_away(runtime: &Runtime) {
    runtime.settled();
    eventually("the second GPU", || (runtime.level() == Level::Gpu(1)).then_some(()));
    let gpu = runtime.status().workers.swap_remove(0);
    assert_eq!((gpu.state, gpu.incarnation), (WorkerState::Quarantined, 0), "{gpu:?}");
    let why = gpu.last_end.expect("a reason");
    assert!(why.contains("earlier run") && why.contains("computes wrongly"), "{why}");
    let events = runtime.events().recent(usize::MAX);
    assert!(is_there(&events, GPU, "absent to quarantined"), "{events:#?}");
    assert!(is_there(&events, GPU, "quarantined operator"), "{events:#?}");
    assert!(!is_there(&events, GPU, "quarantined to starting"), "{events:#?}");
    assert_right("w1 w2", &runtime.embed("w1 w2", &EmbedOptions::default()));
}

#[test]
fn a_quarantine_outlives_an_end_in_order_and_one_by_force() {
    let _alone = alone();
    let model = TinyModel::new();
    let folder = tempfile::tempdir().expect("folder");
    let runtime = start(settings(&model, folder.path()));
    runtime.settled();
    // Known answers find it, whether or not anybody asks for anything.
    runtime.inject(Some(GPU), Fault::FlipWeightBit).expect("injected");
    happened(&runtime, GPU, "released by ladder");
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    runtime.inject(Some(GPU), Fault::FlipWeightBit).expect("injected");
    happened(&runtime, GPU, "quarantined operator");
    assert!(runtime.shutdown().drained);

    // The next run is killed without a warning, in the middle of its work.
    let mut program = forebay_with_fake(&["embed", "--input", "-", "--output", "-"])
        .env("FOREBAY_DEVICES__RUNGS", "cuda:0,cuda:1")
        .env("FOREBAY_EVENTS__FOLDER", folder.path())
        .arg("--model")
        .arg(model.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let mut stdin = program.stdin.take().expect("piped");
    let feeder = std::thread::spawn(move || {
        let mut number = 0;
        while writeln!(stdin, "{}", text(number)).is_ok() {
            number += 1;
        }
    });
    let before = logged(folder.path()).len();
    let flushed = eventually("the second GPU", || {
        let events = logged(folder.path());
        let serves = is_there(events.get(before..)?, Device::Cuda(1), "probation to serving");
        serves.then_some(events)
    });
    kill(program.id(), Signal::KILL);
    assert_eq!(exit_code(&mut program), None);
    feeder.join().expect("no panic");
    // What was on the disk is there, and perhaps something that was written since.
    let left = logged(folder.path());
    assert_eq!(left[..flushed.len()], flushed);
    assert!(is_there(&left[before..], GPU, "absent to quarantined"));

    let runtime = start(settings(&model, folder.path()));
    assert_put_away(&runtime);
    assert!(!is_there(&left, GPU, "released by operator"));
    assert!(runtime.release(GPU));
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    assert!(runtime.shutdown().drained);

    // Nothing is left of it, and not a number is missing from any of the four runs.
    let runtime = start(settings(&model, folder.path()));
    runtime.settled();
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    assert!(runtime.shutdown().drained);
    let history = forebay::events::read(folder.path()).expect("a log");
    assert!(history.gaps.is_empty() && history.damage.is_empty(), "{history:#?}");
    let numbers = history.events.iter().map(|event| event.id.0);
    assert!(numbers.eq(1..=history.events.len() as u64));
    let starts = |event: &&Event| matches!(event.kind, EventKind::RuntimeStarted { .. });
    let stops = |event: &&Event| matches!(event.kind, EventKind::RuntimeStopped { .. });
    let count = |is: &dyn Fn(&&Event) -> bool| history.events.iter().filter(is).count();
    assert_eq!((count(&starts), count(&stops)), (4, 3));
}
