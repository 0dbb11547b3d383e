//! What the event log of a runtime must be like: in words that can be compared, and as a whole.

use std::collections::HashMap;

use forebay::config::Device;
use forebay::events::{Event, EventKind};

/// What happened, in a few words and without numbers that differ from run to run.
pub(crate) fn words(event: &Event) -> String {
    match &event.kind {
        EventKind::SlotChanged { from, to, .. } => format!("{from} to {to}"),
        EventKind::LevelChanged { from, to, .. } => format!("level {from} to {to}"),
        EventKind::WorkerEnded { .. } => "ended".to_owned(),
        EventKind::CanaryFailed { .. } => "canary failed".to_owned(),
        EventKind::Quarantined { reason, .. } => format!("quarantined {reason}"),
        EventKind::Released { by, .. } => format!("released by {by}"),
        EventKind::DeviceHealth { verdict, .. } => format!("health {verdict}"),
        EventKind::Hedged { .. } => "hedged".to_owned(),
        EventKind::FaultInjected { fault, .. } => format!("fault {fault}"),
        other => format!("{other:?}"),
    }
}

/// The way of a worker from its end to the next one that serves.
pub(crate) const COMES_BACK: [&str; 6] = [
    "ended",
    "exited to backoff",
    "backoff to starting",
    "starting to warming",
    "warming to probation",
    "probation to serving",
];

/// From the first fault on this device, exactly these things happened to it, each for the one
/// before. Gives their events.
pub(crate) fn assert_chain<'a>(
    events: &'a [Event],
    device: Device,
    expected: &[&str],
) -> Vec<&'a Event> {
    let device = device.to_string();
    let of_device = events.iter().filter(|event| event.kind.device() == Some(&device));
    let is_fault = |event: &Event| matches!(event.kind, EventKind::FaultInjected { .. });
    // What is seen of the device does not belong to it, unless it is trouble.
    let of_device = of_device.filter(|event| !matches!(event.kind, EventKind::DeviceHealth { .. }));
    let chain: Vec<&Event> = of_device.skip_while(|event| !is_fault(event)).collect();
    // The end of the runtime is not part of it.
    let end = chain.iter().position(|event| words(event) == "serving to draining");
    let chain = chain[..end.unwrap_or(chain.len())].to_vec();
    let said: Vec<String> = chain.iter().map(|event| words(event)).collect();
    assert_eq!(said, expected, "{chain:#?}");
    assert_eq!(chain[0].cause, None);
    for pair in chain.windows(2) {
        assert_eq!(pair[1].cause, Some(pair[0].id), "{pair:#?}");
    }
    chain
}

/// Exactly this happened to the level from this event on, and the first of it because of this event.
pub(crate) fn assert_levels(events: &[Event], cause: &Event, expected: &[&str]) {
    let levels = events.iter().filter(|event| event.id > cause.id);
    let levels = levels.filter(|event| matches!(event.kind, EventKind::LevelChanged { .. }));
    let levels: Vec<&Event> = levels.collect();
    let said: Vec<String> = levels.iter().map(|event| words(event)).collect();
    assert!(said.iter().map(String::as_str).take(expected.len()).eq(expected.to_vec()), "{said:?}");
    assert_eq!(levels[0].cause, Some(cause.id), "{:?} after {cause:?}", levels[0]);
}

/// What holds of every log: numbers without a gap, causes before what they lead to, times that rise,
/// slots and level that go on from where they were.
pub(crate) fn assert_sound(events: &[Event]) {
    let mut slots: HashMap<&str, &str> = HashMap::new();
    let mut level = "down";
    for pair in events.windows(2) {
        assert_eq!(pair[1].id.0, pair[0].id.0 + 1, "{pair:#?}");
        assert!(pair[1].mono_ns >= pair[0].mono_ns, "{pair:#?}");
    }
    for event in events {
        assert!(event.cause.is_none_or(|cause| cause < event.id), "{event:?}");
        match &event.kind {
            EventKind::SlotChanged { device, from, to, reason, .. } => {
                let before = slots.insert(device, to).unwrap_or("absent");
                assert_eq!(before, from, "{event:?}");
                assert!(!reason.is_empty(), "{event:?}");
            }
            EventKind::LevelChanged { from, to, reason } => {
                assert_eq!(level, from, "{event:?}");
                assert!(!reason.is_empty() && event.cause.is_some(), "{event:?}");
                level = to;
            }
            EventKind::Lost { .. } | EventKind::Unknown { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    assert_eq!(level, "down", "the level at the end");
}
