//! Disks that are full for a while, at any byte.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::super::format::segment_path;
use super::*;
use crate::config::EventSync;

/// Waits, without a time of its own, until the log has used up its room or has written everything.
fn settled(log: &EventLog) {
    let until = std::time::Instant::now() + GENEROUS;
    while !log.is_full() && !log.flush(Duration::ZERO) {
        assert!(std::time::Instant::now() < until, "{log:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_disk_that_is_full_from_any_byte_on_costs_nothing_once_it_has_room() {
    let folder = tempfile::tempdir().expect("folder");
    let config =
        EventsConfig { sync: EventSync::None, segment_bytes: 700, ..config(folder.path()) };
    let (log, _) = open(&config);
    for bytes in 0..640 {
        log.leave_room(bytes);
        for nth in 0..5 {
            log.record(None, fault(nth));
        }
        settled(&log);
        // A reader sees whole events and perhaps an incomplete one, whatever the writer is at.
        let history = read(folder.path()).expect("readable");
        assert!(history.damage.iter().all(|damage| damage.kind == DamageKind::TornTail));
        assert_eq!(history.gaps, []);
        log.fail_writes(false);
        assert!(log.flush(GENEROUS), "with room for {bytes} bytes: {log:?}");
        let events = whole(folder.path());
        assert_eq!(events.last().expect("some").id, EventId(5 * (bytes + 1)));
        assert_eq!(events[events.len() - 5..], log.recent(5));
    }
}

#[test]
fn what_the_queue_cannot_keep_is_counted_in_the_log() {
    let folder = tempfile::tempdir().expect("folder");
    let config = EventsConfig { queue_events_max: 16, ..config(folder.path()) };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = metrics::with_local_recorder(&recorder, Metrics::new);
    let (log, _) = EventLog::open(&config, Arc::new(metrics)).expect("opens");
    log.fail_writes(true);
    for nth in 0..100 {
        log.record(None, fault(nth));
    }
    assert!(!log.flush(Duration::ZERO));
    assert_eq!(log.recent(1_000).len(), 100, "all are in memory");
    log.fail_writes(false);
    assert!(log.flush(GENEROUS), "{log:?}");
    let events = whole(folder.path());
    let kept = log.recent(1_000);
    let mut lost = 0;
    for event in &events {
        match event.kind {
            EventKind::Lost { events } => lost += events,
            _ => assert_eq!(*event, kept[event.id.0 as usize - 1]),
        }
    }
    let is_lost = |event: &&Event| matches!(event.kind, EventKind::Lost { .. });
    let written = events.len() - events.iter().filter(is_lost).count();
    assert_eq!(written as u64 + lost, 100);
    assert!(lost > 0, "the queue holds 16");
    // The newest say what the state of things is.
    assert_eq!(events[events.len() - 16..], kept[84..]);
    let shown = recorder.handle().render();
    let sample = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    assert_eq!(sample("forebay_events_total"), Some(100.0), "{shown}");
    assert_eq!(sample("forebay_events_lost_total"), Some(lost as f64), "{shown}");
    assert_eq!(sample("forebay_events_waiting"), Some(0.0), "{shown}");
    // The log goes on after the loss.
    write(&log, 2);
    assert_eq!(numbers(&whole(folder.path())[events.len()..]), [101, 102]);
}

#[test]
fn the_end_does_not_wait_for_a_disk_that_stays_full() {
    let folder = tempfile::tempdir().expect("folder");
    let config = EventsConfig { retry_ms: 3_600_000, ..config(folder.path()) };
    let (log, _) = open(&config);
    write(&log, 3);
    log.fail_writes(true);
    log.record(None, fault("unwritten"));
    drop(log);
    assert_eq!(numbers(&whole(folder.path())), [1, 2, 3]);
    // The folder is free again.
    let (log, _) = open(&config);
    assert_eq!(log.record(None, fault("again")), EventId(4));
}

#[test]
fn an_oldest_file_that_cannot_be_removed_stops_the_ring_until_it_can() {
    let folder = tempfile::tempdir().expect("folder");
    let config = EventsConfig { segment_bytes: 400, segments_max: 2, ..config(folder.path()) };
    let (log, _) = open(&config);
    write(&log, 2);
    drop(log);
    // A folder with something in it is no file that can be removed.
    let first = segment_path(folder.path(), 1);
    std::fs::remove_file(&first).expect("removes");
    std::fs::create_dir_all(first.join("in the way")).expect("creates");
    let (log, _) = open(&config);
    for nth in 0..10 {
        log.record(None, fault(nth));
    }
    std::fs::remove_dir_all(&first).expect("removes");
    assert!(log.flush(GENEROUS), "{log:?}");
    assert_eq!(
        whole(folder.path()).last().map(|event| event.id),
        log.recent(1).pop().map(|e| e.id)
    );
}

/// The system itself refuses, in the middle of a write: the limit on the size of files, in a
/// process of its own.
#[test]
fn a_limit_of_the_system_is_survived() {
    let folder = tempfile::tempdir().expect("folder");
    let test = std::env::current_exe().expect("this program");
    // The signal that comes with the limit would end the process; to ignore it is inherited.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 8; exec \"$0\" \"$@\""])
        .arg(test)
        .args(["--exact", "events::tests::room::within_a_limit", "--ignored", "--nocapture"])
        .env("FOREBAY_TEST_FOLDER", folder.path())
        .process_group(0)
        .output()
        .expect("starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(whole(folder.path()).len(), 200);
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn within_a_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let folder = std::env::var_os("FOREBAY_TEST_FOLDER").expect("started by the test above");
    let (log, _) = open(&config(folder.as_ref()));
    for nth in 0..200 {
        log.record(None, fault(nth));
    }
    // Far more than 8 blocks of 512 or 1,024 bytes.
    let failing = || {
        let history = read(folder.as_ref()).expect("readable");
        history.damage.iter().any(|damage| damage.kind == DamageKind::TornTail)
    };
    let until = std::time::Instant::now() + GENEROUS;
    while !failing() {
        assert!(std::time::Instant::now() < until, "{log:?}");
        std::thread::yield_now();
    }
    assert!(!log.flush(Duration::ZERO));
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    assert!(log.flush(GENEROUS), "{log:?}");
}
