//! Both sides of one arena, mapped twice in one process as host and worker would map it.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::os::fd::OwnedFd;

use forebay_arena::{ArenaError, HostArena, SlotTable, WorkerArena};
use forebay_protocol::ArenaSpec;
use proptest::prelude::*;

const SPEC: ArenaSpec = ArenaSpec { slots: 3, tokens_max: 64, rows_max: 8, row_values: 4 };

fn both() -> (HostArena, SlotTable<()>, WorkerArena) {
    let (host, table) = HostArena::create(SPEC).expect("creates");
    let fd = host.fd().try_clone_to_owned().expect("duplicates");
    let worker = WorkerArena::open(fd, SPEC).expect("opens");
    (host, table, worker)
}

proptest! {
    #[test]
    fn rows_arrive_as_written_and_output_comes_back(
        rows in proptest::collection::vec(proptest::collection::vec(any::<u32>(), 1..8), 1..8),
    ) {
        let (host, mut table, worker) = both();
        let mut lease = table.lease().expect("free");
        let (count, tokens) =
            host.write_rows(&mut lease, rows.iter().map(Vec::as_slice)).expect("fits");
        let mut claimed = worker.claim(lease.slot(), count, tokens).expect("claims");
        let bounds = claimed.cu_seqlens().to_vec();
        for (index, row) in rows.iter().enumerate() {
            let range = bounds[index] as usize..bounds[index + 1] as usize;
            prop_assert_eq!(&claimed.ids()[range], row.as_slice());
        }
        for (index, value) in claimed.output_mut().iter_mut().enumerate() {
            *value = index as f32 + 0.5;
        }
        drop(claimed);
        let values = rows.len() * SPEC.row_values as usize;
        let output = host.read_output(&lease, values).expect("reads");
        prop_assert!(output.iter().enumerate().all(|(i, v)| *v == i as f32 + 0.5));
    }

    #[test]
    fn messages_are_cut_on_a_character(text in "\\PC{0,80}") {
        let (host, mut table, worker) = both();
        let mut lease = table.lease().expect("free");
        host.write_rows(&mut lease, [[1_u32].as_slice()].into_iter()).expect("fits");
        let bytes = worker.claim(lease.slot(), 1, 1).expect("claims").write_message(&text);
        let read = host.read_message(&lease, bytes as usize).expect("reads");
        prop_assert!(text.starts_with(&read));
        prop_assert!(read.len() == text.len() || read.len() + 4 > 8 * 4 * 4);
    }
}

#[test]
fn output_of_many_pieces_is_whole_and_each_value_is_shown_once() {
    let spec = ArenaSpec { slots: 1, tokens_max: 64, rows_max: 64, row_values: 201 };
    let (host, mut table) = HostArena::create::<()>(spec).expect("creates");
    let fd = host.fd().try_clone_to_owned().expect("duplicates");
    let worker = WorkerArena::open(fd, spec).expect("opens");
    let mut lease = table.lease().expect("free");
    host.write_rows(&mut lease, std::iter::repeat_n([7_u32].as_slice(), 64)).expect("fits");
    let mut claimed = worker.claim(lease.slot(), 64, 64).expect("claims");
    for (index, value) in claimed.output_mut().iter_mut().enumerate() {
        *value = index as f32;
    }
    drop(claimed);
    let mut out = vec![-1.0; 20_000];
    for rows in [64, 1, 64] {
        let mut shown = Vec::new();
        let values = rows * 201;
        host.read_output_into(&lease, values, &mut out, |piece| shown.extend_from_slice(piece))
            .expect("reads");
        assert!(out.len() == values && shown == out);
        assert!(out.iter().enumerate().all(|(index, value)| *value == index as f32));
    }
    assert!(host.read_output_into(&lease, 64 * 201 + 1, &mut out, |_| {}).is_err());
    assert_eq!(out.len(), 64 * 201, "it is as it was");
}

#[test]
fn a_batch_that_does_not_fit_is_refused_before_anything_is_handed_over() {
    let (host, mut table, _worker) = both();
    let mut lease = table.lease().expect("free");
    let long = vec![1_u32; 65];
    for rows in [vec![], vec![long.as_slice()], vec![&long[..1]; 9]] {
        let refused = host.write_rows(&mut lease, rows.into_iter());
        assert!(matches!(refused, Err(ArenaError::DoesNotFit { .. })), "{refused:?}");
    }
}

#[test]
fn a_slot_is_claimed_once_and_its_boundaries_must_be_sound() {
    let (host, mut table, worker) = both();
    let mut lease = table.lease().expect("free");
    host.write_rows(&mut lease, [[1_u32, 2].as_slice(), &[3]].into_iter()).expect("fits");
    let slot = lease.slot();
    let first = worker.claim(slot, 2, 3).expect("claims");
    assert!(matches!(worker.claim(slot, 2, 3), Err(ArenaError::InUse { .. })));
    drop(first);
    assert!(matches!(worker.claim(slot, 2, 4), Err(ArenaError::Boundaries { index: 2, .. })));
    assert!(matches!(worker.claim(slot, 1, 3), Err(ArenaError::Boundaries { index: 1, .. })));
    assert!(matches!(worker.claim(3, 2, 3), Err(ArenaError::NoSuchSlot { .. })));
    worker.claim(slot, 2, 3).expect("a refused claim leaves the slot claimable");
}

#[test]
fn a_lease_of_another_arena_is_refused() {
    let (host, _table, _worker) = both();
    let mut foreign = SlotTable::<()>::new(3).lease().expect("free");
    let rows = [[1_u32].as_slice()].into_iter();
    assert!(matches!(host.write_rows(&mut foreign, rows), Err(ArenaError::ForeignLease { .. })));
}

#[test]
fn memory_that_could_shrink_or_has_another_size_is_refused() {
    let file = tempfile::tempfile().expect("creates");
    let unsealed = WorkerArena::open(OwnedFd::from(file), SPEC);
    assert!(matches!(unsealed, Err(ArenaError::Unsealed { .. } | ArenaError::Os { .. })));
    let (host, _table) = HostArena::create::<()>(SPEC).expect("creates");
    let fd = host.fd().try_clone_to_owned().expect("duplicates");
    let other = ArenaSpec { slots: 4, ..SPEC };
    assert!(matches!(WorkerArena::open(fd, other), Err(ArenaError::Size { .. })));
}
