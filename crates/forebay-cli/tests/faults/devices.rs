//! What the management library says of a device, and what becomes of the worker there: the real
//! monitor process over a fake library, and fake workers under load.

use forebay::config::Device;
use forebay::events::{Event, EventKind};
use forebay::{Config, Fault, Level, WorkerState};

use crate::history::words;
use crate::library::FakeNvml;
use crate::load::{GPU, Loaded, OTHER, Outcome, patient, script, under_load_of};
use crate::support::eventually;

/// Both devices are there and well.
const WELL: &str = "devices - 2";

/// The fake library numbers its devices against the order of the bus: this is `cuda:0`.
fn of_gpu(setting: &str) -> [&str; 2] {
    [WELL, setting]
}

fn watched(fake: &FakeNvml) -> impl FnOnce(&mut Config) + use<> {
    let library = fake.path();
    move |config| {
        patient(config);
        config.health.nvml = Some(library);
        config.health.interval_ms = 20;
        config.health.start_deadline_ms = 30_000;
        config.health.report_deadline_ms = 500;
        config.health.backoff_min_ms = 1;
        config.health.backoff_max_ms = 20;
    }
}

/// What happened to a device, in words, from the first time that this did.
fn story(outcome: &Outcome, device: Device, from: &str) -> Vec<String> {
    let device = device.to_string();
    let of_device = outcome.events.iter().filter(|event| event.kind.device() == Some(&device));
    of_device.map(words).skip_while(|said| said != from).collect()
}

/// Waits until the monitor has said this of the first GPU so often.
fn said(loaded: &Loaded, verdict: &str, times: usize) {
    loaded.happened(GPU, &format!("health {verdict}"), times);
}

/// What it has said of a device last, in words.
fn last_said(loaded: &Loaded, device: Device) -> String {
    let (events, device) = (loaded.events(), device.to_string());
    let is_said = |event: &&Event| matches!(event.kind, EventKind::DeviceHealth { .. });
    let mut said = events.iter().filter(is_said);
    said.rfind(|event| event.kind.device() == Some(&device)).map(words).unwrap_or_default()
}

#[test]
fn a_device_that_needs_a_reset_is_left_alone_until_it_is_well() {
    let fake = FakeNvml::new(&[WELL]);
    let outcome = under_load_of(&script(), watched(&fake), |loaded| {
        said(loaded, "fine", 1);
        fake.say(&of_gpu("recovery_action 1 1"));
        loaded.happened(GPU, "quarantined reset", 1);
        loaded.answers_everybody();
        assert_eq!(loaded.runtime.level(), Level::Gpu(1));
        fake.say(&[WELL]);
    });
    // Its texts are not to blame.
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 1));
    let expected = [
        "health needs_reset",
        "serving to exited",
        "ended",
        "exited to quarantined",
        "quarantined reset",
        "health fine",
        "quarantined to starting",
        "starting to warming",
        "warming to probation",
        "released by ladder",
        "probation to serving",
    ];
    let story = story(&outcome, GPU, expected[0]);
    assert_eq!(story[..expected.len()], expected, "{story:?}");
}

#[test]
fn a_worker_on_a_hot_device_waits_for_it_to_cool_before_it_serves_again() {
    let fake = FakeNvml::new(&[WELL]);
    let outcome = under_load_of(&script(), watched(&fake), |loaded| {
        said(loaded, "fine", 1);
        // What serves goes on serving.
        fake.say(&of_gpu("temperature 1 89"));
        said(loaded, "no_promotion", 1);
        loaded.answers_everybody();
        assert_eq!(loaded.runtime.level(), Level::Gpu(2));
        loaded.inject(GPU, Fault::Kill);
        loaded.happened(GPU, "warming to probation", 2);
        loaded.answers_everybody();
        assert_eq!(loaded.runtime.level(), Level::Gpu(1));
        assert_eq!(loaded.runtime.status().workers[0].state, WorkerState::Probation);
        fake.say(&[WELL]);
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 1));
    let story = story(&outcome, GPU, "health no_promotion");
    let cooled = story.iter().position(|said| said == "health fine").expect("it cooled");
    assert_eq!(
        story[cooled - 1..cooled + 2],
        ["warming to probation", "health fine", "probation to serving"]
    );
}

#[test]
fn a_monitor_that_hangs_or_lies_changes_nothing_for_the_workers() {
    let fake = FakeNvml::new(&[WELL]);
    let outcome = under_load_of(&script(), watched(&fake), |loaded| {
        said(loaded, "fine", 1);
        for fault in [Fault::MonitorLies, Fault::MonitorHang] {
            // A monitor that has just been started may not listen yet.
            eventually("a device that is not known", || {
                loaded.runtime.inject(None, fault).unwrap_or_else(|error| panic!("{error}"));
                (last_said(loaded, GPU) == "health unknown").then_some(())
            });
            loaded.answers_everybody();
            for device in [GPU, OTHER] {
                eventually("a well device", || {
                    (last_said(loaded, device) == "health fine").then_some(())
                });
            }
        }
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 0));
}
