//! Logs that were cut, flipped, mixed up or are no logs at all: every record that is undamaged is
//! read, in order, and nothing else is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::format::{
    Piece, Sort, boot_tag, pieces, put_boot, put_event, segment_first, segment_path,
};
use super::*;
use crate::config::EventSync;

/// A small log of one file: its bytes, its events, and where the record of each ends.
struct Small {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    events: Vec<Event>,
    ends: Vec<usize>,
}

impl Small {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut bytes = Vec::new();
        let kinds = [
            slot("cuda:0", "absent", "starting"),
            EventKind::Lost { events: 3 },
            slot("cuda:0", "starting", "serving"),
            EventKind::RuntimeStopped { drained: true },
        ];
        let events: Vec<Event> =
            [1, 2, 5, 6].into_iter().zip(kinds).map(|(id, kind)| event(id, id - 1, kind)).collect();
        put_boot(&mut bytes, "boot", &events[0]);
        let tag = boot_tag("boot");
        let ends = events.iter().map(|event| {
            put_event(&mut bytes, event, tag);
            bytes.len()
        });
        let ends = ends.collect();
        Self { folder, bytes, events, ends }
    }

    fn path(&self) -> PathBuf {
        segment_path(self.folder.path(), 1)
    }

    /// What is read when the file holds this.
    fn read(&self, bytes: &[u8]) -> EventHistory {
        std::fs::write(self.path(), bytes).expect("writes");
        read(self.folder.path()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens the log as it is now, appends an event, and returns what is read then.
    fn append(&self) -> EventHistory {
        let config = EventsConfig { sync: EventSync::None, ..config(self.folder.path()) };
        let (log, _) = open(&config);
        log.record(None, fault("appended"));
        assert!(log.flush(GENEROUS), "{log:?}");
        drop(log);
        read(self.folder.path()).unwrap_or_else(|error| panic!("{error}"))
    }
}

#[test]
fn a_log_that_was_cut_at_any_byte_keeps_what_is_whole_and_goes_on_cleanly() {
    let small = Small::new();
    for end in 0..=small.bytes.len() {
        let kept = small.ends.iter().take_while(|record_end| **record_end <= end).count();
        let expected = &small.events[..kept];
        let history = small.read(&small.bytes[..end]);
        assert_eq!(history.events, expected, "cut at {end}");
        assert_eq!(history.gaps, [], "cut at {end}");
        assert!(history.damage.len() <= 1, "cut at {end}: {:?}", history.damage);
        assert!(history.damage.iter().all(|damage| damage.kind == DamageKind::TornTail));
        let history = small.append();
        assert_eq!((&*history.damage, &*history.gaps), (&[][..], &[][..]), "cut at {end}");
        let (last, before) = history.events.split_last().expect("the new one");
        assert_eq!(before, expected, "cut at {end}");
        assert_eq!(last.id.0, before.last().map_or(1, Event::end), "cut at {end}");
    }
}

#[test]
fn any_flipped_bit_costs_the_record_that_it_is_in_and_is_reported() {
    let small = Small::new();
    let boot_end = pieces(&small.bytes).next().expect("the boot record").1;
    for bit in 0..small.bytes.len() * 8 {
        let mut bytes = small.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let hit = small.ends.iter().position(|end| bit / 8 < *end).expect("in the log");
        let mut expected = small.events.clone();
        if bit / 8 < boot_end {
            expected.iter_mut().for_each(|event| event.boot.clear());
        } else {
            expected.remove(hit);
        }
        let history = small.read(&bytes);
        assert_eq!(history.events, expected, "bit {bit}");
        assert_eq!(history.damage.len(), 1, "bit {bit}: {:?}", history.damage);
        // What the last record was cannot be known; any other leaves a hole in the numbers.
        let is_missing = bit / 8 >= boot_end && hit + 1 < small.events.len();
        assert_eq!(history.gaps.len(), usize::from(is_missing), "bit {bit}: {:?}", history.gaps);
        if bit % 31 == 0 {
            let history = small.append();
            let (last, before) = history.events.split_last().expect("the new one");
            assert_eq!(numbers(before), numbers(&expected), "bit {bit}");
            assert_eq!(last.kind, fault("appended"));
            assert_eq!(last.id.0, before.last().map_or(1, Event::end), "bit {bit}");
        }
    }
}

#[test]
fn a_tail_of_zeros_is_cut_off() {
    // As some file systems leave it when the power fails.
    let small = Small::new();
    let mut bytes = small.bytes.clone();
    bytes.resize(bytes.len() + 4_096, 0);
    assert_eq!(small.read(&bytes).events, small.events);
    let history = small.append();
    assert_eq!(history.damage, []);
    assert_eq!(history.events.len(), small.events.len() + 1);
}

/// A log of several files.
fn ring() -> (tempfile::TempDir, EventsConfig, Vec<u64>) {
    let folder = tempfile::tempdir().expect("folder");
    let config = EventsConfig { segment_bytes: 600, ..config(folder.path()) };
    let (log, _) = open(&config);
    write(&log, 20);
    drop(log);
    let names = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    let names = names.filter_map(|entry| segment_first(entry.file_name().to_str()?));
    let mut firsts: Vec<u64> = names.collect();
    firsts.sort_unstable();
    assert!(firsts.len() > 3, "{firsts:?}");
    (folder, config, firsts)
}

#[test]
fn a_file_that_is_gone_or_unreadable_is_a_gap() {
    for spoil in [
        |path: &Path| std::fs::remove_file(path),
        |path: &Path| std::fs::write(path, "no log at all"),
        |path: &Path| std::fs::write(path, ""),
        |path: &Path| std::fs::remove_file(path).and_then(|()| std::fs::create_dir(path)),
    ] {
        let (folder, config, firsts) = ring();
        let all = whole(folder.path());
        let (gone, next) = (firsts[1], firsts[2]);
        spoil(&segment_path(folder.path(), gone)).expect("spoils");
        let history = read(folder.path()).expect("readable");
        let left = all.iter().filter(|event| !(gone..next).contains(&event.id.0)).cloned();
        assert_eq!(history.events, left.collect::<Vec<_>>());
        assert_eq!(history.gaps, [Gap { first: EventId(gone), events: next - gone }]);
        let (log, _) = open(&config);
        assert_eq!(log.record(None, fault("on")), EventId(all.len() as u64 + 1));
        assert!(log.flush(GENEROUS));
    }
}

#[test]
fn a_newest_file_without_a_record_is_used_and_what_it_held_is_a_gap() {
    for spoil in [
        |path: &Path| std::fs::write(path, "no log at all"),
        |path: &Path| std::fs::remove_file(path).and_then(|()| std::fs::create_dir(path)),
    ] {
        let (folder, config, firsts) = ring();
        let newest = firsts[firsts.len() - 1];
        spoil(&segment_path(folder.path(), newest)).expect("spoils");
        let (log, history) = open(&config);
        assert_eq!(history.events.len() as u64, newest - 1);
        let id = log.record(None, fault("on"));
        assert!(id.0 >= newest, "{id}");
        assert!(log.flush(GENEROUS));
        drop(log);
        let history = read(folder.path()).expect("readable");
        assert_eq!(history.events.last().map(|event| event.id), Some(id));
        let missing: u64 = history.gaps.iter().map(|gap| gap.events).sum();
        assert_eq!(missing, id.0 - newest);
    }
}

/// Copies, moves and losses of pieces of a log.
#[derive(Clone, Debug)]
enum Mangle {
    Remove(usize, usize),
    Repeat(usize, usize, usize),
    Insert(usize, Vec<u8>),
    Flip(usize),
}

fn mangle() -> impl Strategy<Value = Mangle> {
    let at = 0_usize..700;
    prop_oneof![
        (at.clone(), 0_usize..200).prop_map(|(at, length)| Mangle::Remove(at, length)),
        (at.clone(), 0_usize..300, at.clone())
            .prop_map(|(from, length, to)| Mangle::Repeat(from, length, to)),
        (at.clone(), prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(at, bytes)| Mangle::Insert(at, bytes)),
        at.prop_map(Mangle::Flip),
    ]
}

impl Mangle {
    fn apply(self, bytes: &mut Vec<u8>) {
        let within = |at: usize, bytes: &[u8]| at.min(bytes.len());
        match self {
            Self::Remove(at, length) => {
                let at = within(at, bytes);
                bytes.drain(at..within(at + length, bytes));
            }
            Self::Repeat(from, length, to) => {
                let from = within(from, bytes);
                let piece = bytes[from..within(from + length, bytes)].to_vec();
                let to = within(to, bytes);
                bytes.splice(to..to, piece);
            }
            Self::Insert(at, piece) => {
                let at = within(at, bytes);
                bytes.splice(at..at, piece);
            }
            Self::Flip(at) => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x10;
                }
            }
        }
    }
}

/// Bytes with the beginnings of records among them.
fn almost_records() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        Just(Small::new().bytes[..4].to_vec()),
        Just(Small::new().bytes[..48].to_vec()),
        Just(Small::new().bytes),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic_or_lose_count(bytes in almost_records()) {
        let mut end = 0;
        for (at, length, piece) in pieces(&bytes) {
            prop_assert_eq!(at, end);
            prop_assert!(length > 0);
            if piece == (Piece::Damage { is_tail: true }) {
                prop_assert_eq!(at + length, bytes.len());
            }
            end = at + length;
        }
        prop_assert_eq!(end, bytes.len());
        let small = Small::new();
        let history = small.read(&bytes);
        prop_assert!(history.events.windows(2).all(|pair| pair[0].id < pair[1].id));
        let history = small.append();
        prop_assert_eq!(&history.events.last().expect("the new one").kind, &fault("appended"));
    }

    #[test]
    fn a_mangled_log_gives_only_what_was_written_in_order(
        mangles in prop::collection::vec(mangle(), 1..5)
    ) {
        let small = Small::new();
        let mut bytes = small.bytes.clone();
        mangles.into_iter().for_each(|mangle| mangle.apply(&mut bytes));
        let intact = pieces(&bytes).filter(
            |(_, _, piece)| matches!(piece, Piece::Record(record) if record.sort == Sort::Event),
        );
        let intact = intact.count();
        let history = small.read(&bytes);
        prop_assert!(history.events.windows(2).all(|pair| pair[0].end() <= pair[1].id.0));
        let written: BTreeMap<u64, &Event> =
            small.events.iter().map(|event| (event.id.0, event)).collect();
        for event in &history.events {
            let written = written.get(&event.id.0).map(|event| (&event.kind, event.mono_ns));
            prop_assert_eq!(written, Some((&event.kind, event.mono_ns)));
        }
        let out_of_order = history
            .damage
            .iter()
            .filter(|damage| matches!(damage.kind, DamageKind::OutOfOrder { .. }));
        prop_assert_eq!(history.events.len() + out_of_order.count(), intact);
    }
}
