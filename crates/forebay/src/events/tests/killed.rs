//! Processes that are killed while they write.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// Numbers of rounds of a child before it is killed.
const ROUNDS: [usize; 12] = [1, 2, 30, 3, 11, 1, 60, 7, 23, 2, 41, 5];

/// Files small enough that their ends are met.
fn ring(folder: &Path) -> EventsConfig {
    EventsConfig { segment_bytes: 16_384, segments_max: 64, ..config(folder) }
}

#[test]
fn what_was_written_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().expect("folder");
    let mut before = 0;
    for rounds in ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "events::tests::killed::writer", "--ignored", "--nocapture"])
            .env("FOREBAY_TEST_FOLDER", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let written = |line: std::io::Result<String>| -> u64 {
            let line = line.expect("UTF-8");
            let number = line.strip_prefix("written ").and_then(|number| number.parse().ok());
            number.unwrap_or_else(|| panic!("{line}"))
        };
        let mut last = 0;
        for _ in 0..rounds {
            last = written(lines.next().expect("it writes until it is killed"));
        }
        child.kill().expect("kills");
        // What it had said before it died counts as well.
        let rest: Vec<_> = lines.collect();
        let rest_whole = rest.into_iter().filter(|line| line.is_ok());
        last = rest_whole.map(written).last().unwrap_or(last);
        child.wait().expect("a child");
        let history = read(folder.path()).expect("readable");
        assert_eq!(history.gaps, []);
        assert!(history.damage.iter().all(|damage| damage.kind == DamageKind::TornTail));
        assert!(history.damage.len() <= 1, "{:?}", history.damage);
        // A fast child may have sent the oldest out of the ring.
        let numbers = numbers(&history.events);
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        assert!(numbers.last() >= Some(&last), "{:?} of {last}", numbers.last());
        assert!(last > before, "it went on where the last one ended");
        before = last;
    }
    let (log, _) = open(&ring(folder.path()));
    write(&log, 1);
    whole(folder.path());
}

#[test]
#[ignore = "run by the test above, in a process of its own that is killed"]
fn writer() {
    let folder = std::env::var_os("FOREBAY_TEST_FOLDER").expect("started by the test above");
    let (log, _) = open(&ring(folder.as_ref()));
    loop {
        let mut last = EventId(0);
        for nth in 0..9 {
            last = log.record(None, fault("x".repeat(nth * 9)));
        }
        assert!(log.flush(GENEROUS));
        eprintln!("written {}", last.0);
    }
}
