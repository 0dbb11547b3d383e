//! The log as a whole: written, cut, flipped, killed, out of room, and read again.

mod damage;
mod killed;
mod room;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::EventsConfig;
use crate::metrics::Metrics;

/// Far above what anything here takes.
const GENEROUS: Duration = Duration::from_secs(60);

/// An event as a writer would have made it; one number is one millisecond.
pub(super) fn event(id: u64, cause: u64, kind: EventKind) -> Event {
    Event {
        id: EventId(id),
        cause: (cause > 0).then_some(EventId(cause)),
        boot: "boot".to_owned(),
        mono_ns: 1_000_000 * id,
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + id),
        kind,
    }
}

pub(super) fn slot(device: &str, from: &str, to: &str) -> EventKind {
    EventKind::SlotChanged {
        device: device.to_owned(),
        incarnation: 1,
        from: from.to_owned(),
        to: to.to_owned(),
        reason: String::new(),
    }
}

fn config(folder: &Path) -> EventsConfig {
    EventsConfig { folder: folder.to_owned(), retry_ms: 10, ..EventsConfig::default() }
}

fn open(config: &EventsConfig) -> (EventLog, EventHistory) {
    EventLog::open(config, Arc::new(Metrics::new())).unwrap_or_else(|error| panic!("{error}"))
}

fn fault(name: impl std::fmt::Display) -> EventKind {
    EventKind::FaultInjected { device: None, fault: name.to_string() }
}

/// Records `events` events and has them written.
fn write(log: &EventLog, events: u64) {
    for nth in 0..events {
        log.record(None, fault(nth));
    }
    assert!(log.flush(GENEROUS), "{log:?}");
}

/// The log, which must be whole.
fn whole(folder: &Path) -> Vec<Event> {
    let history = read(folder).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(history.damage, []);
    assert_eq!(history.gaps, []);
    assert_eq!((history.events_left_out, history.damage_left_out), (0, 0));
    history.events
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id.0).collect()
}

#[test]
fn what_is_recorded_is_read_back_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let config = config(folder.path());
    let (log, history) = open(&config);
    assert_eq!(history, EventHistory::default());
    let first = log.record(None, slot("cuda:0", "absent", "starting"));
    let second = log.record(Some(first), fault("kill"));
    assert_eq!((first, second), (EventId(1), EventId(2)));
    let kept = log.recent(10);
    assert_eq!(kept[1].cause, Some(first));
    assert_eq!(log.recent(1), kept[1..]);
    // The last handle waits for what is not written.
    drop(log);
    assert_eq!(whole(folder.path()), kept);
    let (log, history) = open(&config);
    assert_eq!(history.events, kept);
    assert_eq!(log.last_of_before_start(), kept);
    assert_eq!(log.recent(10), []);
    assert_eq!(log.record(Some(first), fault("stop")), EventId(3));
    drop(log);
    let all = whole(folder.path());
    assert_eq!(numbers(&all), [1, 2, 3]);
    assert!(all.iter().all(|event| event.boot == boot_id()));
    assert!(all.windows(2).all(|pair| pair[0].mono_ns <= pair[1].mono_ns));
}

#[test]
fn without_a_folder_the_newest_events_are_in_memory() {
    let config = EventsConfig { recent_events_max: 3, ..EventsConfig::default() };
    let (log, history) = open(&config);
    assert_eq!(history, EventHistory::default());
    write(&log, 5);
    assert_eq!(numbers(&log.recent(10)), [3, 4, 5]);
    assert_eq!(numbers(&log.recent(2)), [4, 5]);
    assert_eq!(log.recent(0), []);
    assert_eq!(log.last_of_before_start(), []);
}

#[test]
fn a_folder_has_one_writer_and_any_number_of_readers() {
    let folder = tempfile::tempdir().expect("folder");
    let config = config(folder.path());
    let (log, _) = open(&config);
    write(&log, 2);
    let refused = EventLog::open(&config, Arc::new(Metrics::new())).expect_err("in use");
    assert!(matches!(refused, EventLogError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("events.folder"), "{refused}");
    assert_eq!(whole(folder.path()).len(), 2);
    let clone = log.clone();
    drop(log);
    assert_eq!(clone.record(None, fault("later")), EventId(3));
    drop(clone);
    assert_eq!(open(&config).1.events.len(), 3);
}

#[test]
fn a_folder_that_cannot_be_is_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writes");
    let refused = EventLog::open(&config(&file), Arc::new(Metrics::new())).expect_err("a file");
    assert!(matches!(refused, EventLogError::Folder { .. }), "{refused}");
    assert!(matches!(read(&file), Err(EventReadError::Unreadable { .. })));
    let absent = read(&folder.path().join("absent"));
    assert!(matches!(absent, Err(EventReadError::NotThere { .. })), "{absent:?}");
    assert_eq!(read(folder.path()).expect("readable"), EventHistory::default());
}

#[test]
fn the_ring_keeps_the_newest_files_only() {
    let folder = tempfile::tempdir().expect("folder");
    let config = EventsConfig { segment_bytes: 16_384, segments_max: 3, ..config(folder.path()) };
    let mut last = 0;
    for _ in 0..4 {
        let (log, _) = open(&config);
        write(&log, 400);
        last += 400;
        drop(log);
        let events = whole(folder.path());
        assert_eq!(events.last().expect("some").id, EventId(last));
        let files = std::fs::read_dir(folder.path()).expect("a folder").flatten();
        let sizes: Vec<u64> = files.map(|file| file.metadata().expect("a file").len()).collect();
        assert!(sizes.len() <= 3 + 1, "files and the lock: {sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 16_384), "{sizes:?}");
        assert!(events.len() as u64 <= last);
    }
    assert!(whole(folder.path())[0].id > EventId(1_000), "the oldest are gone");
}

#[test]
fn who_follows_sees_each_event_once() {
    let folder = tempfile::tempdir().expect("folder");
    let config = EventsConfig { segment_bytes: 16_384, ..config(folder.path()) };
    let (log, _) = open(&config);
    write(&log, 3);
    let mut follower = Follower::after(folder.path(), &read(folder.path()).expect("readable"));
    let mut next = 4;
    for events in [0, 1, 500, 0, 7] {
        write(&log, events);
        let (new, gaps) = follower.poll().expect("readable");
        assert_eq!(numbers(&new), (next..next + events).collect::<Vec<_>>());
        assert_eq!(gaps, []);
        next += events;
    }
    // One that was asleep while the ring went on hears how much it missed.
    let config = EventsConfig { segments_max: 2, ..config };
    drop(log);
    let (log, _) = open(&config);
    write(&log, 2_000);
    let (new, gaps) = follower.poll().expect("readable");
    let first = new.first().expect("some").id;
    assert_eq!(gaps, [Gap { first: EventId(next), events: first.0 - next }]);
    assert!(Follower::after(Path::new("/nowhere"), &EventHistory::default()).poll().is_err());
}

#[test]
fn another_boot_is_told_apart_in_the_same_file() {
    let folder = tempfile::tempdir().expect("folder");
    let mut bytes = Vec::new();
    for (id, boot) in [(1, "first"), (2, "second")] {
        let event = Event { boot: boot.to_owned(), ..event(id, 0, fault("kill")) };
        format::put_boot(&mut bytes, boot, &event);
        format::put_event(&mut bytes, &event, format::boot_tag(boot));
    }
    std::fs::write(format::segment_path(folder.path(), 1), bytes).expect("writes");
    let (log, history) = open(&config(folder.path()));
    let boots: Vec<&str> = history.events.iter().map(|event| event.boot.as_str()).collect();
    assert_eq!(boots, ["first", "second"]);
    write(&log, 1);
    assert_eq!(whole(folder.path())[2].boot, boot_id());
    assert_eq!(read(folder.path()).expect("readable").segments, 1);
}

#[test]
fn what_another_release_wrote_is_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let mut bytes = Vec::new();
    let payload = r#"{"kind":"eclipse","of":"the moon"}"#;
    let event = event(1, 0, EventKind::Unknown { payload: payload.to_owned() });
    format::put_payload(&mut bytes, &event, 0, payload.as_bytes());
    std::fs::write(format::segment_path(folder.path(), 1), bytes).expect("writes");
    assert_eq!(whole(folder.path())[0].kind, event.kind);
}

#[test]
fn an_event_survives_json() {
    let (event, json) = (event(7, 3, slot("cpu", "a", "b")), |event: &Event| {
        serde_json::to_value(event).expect("it is JSON")
    });
    let text = json(&event);
    assert_eq!(text["kind"], "slot_changed");
    assert_eq!((&text["id"], &text["cause"]), (&7.into(), &3.into()));
    assert_eq!(text["wall_ns"], 1_000_007_000_000_u64);
    assert_eq!(serde_json::from_value::<Event>(text).expect("it is an event"), event);
}
