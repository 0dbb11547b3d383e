//! The bytes as files of an event log: as they are, and with the sums of their records put right.

use std::cell::OnceCell;

use forebay::events;
use tempfile::TempDir;

const MAGIC: [u8; 4] = [0xfb, b'E', b'V', 1];
/// Bytes before the payload; the last four are the sum.
const HEADER_BYTES: usize = 48;
const SUM_AT: usize = 44;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// Reads a folder with one such file, then with two. What was read must be in order.
pub fn event_log(data: &[u8]) {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
        let file = |name: &str| folder.path().join(name);
        let (first, second) =
            (file("00000000000000000001.events"), file("00000000000000000003.events"));
        std::fs::write(&first, data).expect("a file can be written");
        read(folder);
        std::fs::write(&second, with_sums(data)).expect("a file can be written");
        read(folder);
        std::fs::remove_file(&second).expect("it is there");
    });
}

fn read(folder: &TempDir) {
    let history = events::read(folder.path()).expect("the folder is there");
    let ids: Vec<u64> = history.events.iter().map(|event| event.id.0).collect();
    assert!(ids.is_sorted(), "events out of order: {ids:?}");
    for event in &history.events {
        assert!(events::explain(&history.events, event.id).is_some(), "{}", event.id.0);
    }
    let standing = events::standing_quarantines(&history.events, "0e1f");
    assert!(standing.len() <= history.events.len());
}

/// The same bytes with the sum that each record should have.
fn with_sums(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let end = at + HEADER_BYTES + length;
        if header[..4] != MAGIC || end > bytes.len() {
            at += 1;
            continue;
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes[at..at + SUM_AT]);
        sum.update(&bytes[at + HEADER_BYTES..end]);
        bytes[at + SUM_AT..at + HEADER_BYTES].copy_from_slice(&sum.finalize().to_le_bytes());
        at = end;
    }
    bytes
}
