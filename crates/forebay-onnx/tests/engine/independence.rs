//! A row has the same bits whatever stands next to it and however the batch is cut.

use forebay_onnx::{EngineOptions, Precision, Session, SubBatchLimits};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{self, Geometry, Synthetic, bits};

/// States of each row when it is encoded alone.
fn alone(session: &mut Session, ids: &[u32], boundaries: &[u32]) -> Vec<Vec<u32>> {
    let row = |pair: &[u32]| {
        let text = &ids[pair[0] as usize..pair[1] as usize];
        bits(session.encode(text, &[0, text.len() as u32]).unwrap().row(0))
    };
    boundaries.windows(2).map(row).collect()
}

fn check(folder: &forebay_model::ModelFolder, options: &EngineOptions, lengths: &[usize]) {
    let (ids, boundaries) = support::batch(lengths, folder.encoder().vocab, 11);
    let mut single = Session::load(folder, options).unwrap();
    let expected = alone(&mut single, &ids, &boundaries);
    for (rows_max, widths_max, intra_threads) in [(64, 4, 2), (3, 2, 1), (64, 1, 1), (200, 16, 1)] {
        let sub_batch = SubBatchLimits { rows_max, widths_max, ..options.sub_batch };
        let options = EngineOptions { sub_batch, intra_threads, ..options.clone() };
        let mut session = Session::load(folder, &options).unwrap();
        for attempt in 0..2 {
            let states = session.encode(&ids, &boundaries).unwrap();
            for (row, expected) in expected.iter().enumerate() {
                assert!(
                    bits(states.row(row)) == *expected,
                    "row {row} of {} tokens differs, {options:?}, attempt {attempt}",
                    lengths[row],
                );
            }
        }
    }
}

/// Every length up to the limit, twice, so that rows share runs with equals and others.
fn many_lengths(limit: usize, step: usize) -> Vec<usize> {
    let once = (1..limit + 1).step_by(step);
    once.clone().rev().chain(once).collect()
}

#[test]
fn rows_of_random_mixes_do_not_see_their_neighbours() {
    let synthetic = Synthetic::new(&Geometry::default(), 6);
    let folder = synthetic.open();
    let mut rng = StdRng::seed_from_u64(7);
    for precision in [Precision::F32, Precision::Int8] {
        let mut session = Session::load(&folder, &support::options(precision)).unwrap();
        for _ in 0..60 {
            // From one width to all of them, so that blocks stay empty in some mixes.
            let longest = rng.random_range(1..=70);
            let lengths: Vec<usize> =
                (0..rng.random_range(1..40)).map(|_| rng.random_range(1..=longest)).collect();
            let (ids, boundaries) = support::batch(&lengths, folder.encoder().vocab, rng.random());
            let states = session.encode(&ids, &boundaries).unwrap();
            let together: Vec<Vec<u32>> =
                (0..lengths.len()).map(|row| bits(states.row(row))).collect();
            assert!(together == alone(&mut session, &ids, &boundaries), "{precision}, {lengths:?}");
        }
    }
}

#[test]
fn sessions_that_share_their_tables_agree() {
    let synthetic = Synthetic::new(&Geometry::default(), 8);
    let folder = synthetic.open();
    let lengths = many_lengths(40, 3);
    let (ids, boundaries) = support::batch(&lengths, folder.encoder().vocab, 12);
    for precision in [Precision::F32, Precision::Int8] {
        let options =
            |intra_threads| EngineOptions { intra_threads, ..support::options(precision) };
        let mut first = Session::load(&folder, &options(2)).unwrap();
        let mut second = Session::load_beside(&folder, &options(1), Some(&first)).unwrap();
        let states = second.encode(&ids, &boundaries).unwrap();
        let together: Vec<Vec<u32>> = (0..lengths.len()).map(|row| bits(states.row(row))).collect();
        assert!(together == alone(&mut first, &ids, &boundaries), "{precision}");
    }
}

#[test]
fn f32_rows_of_a_small_encoder_do_not_see_their_neighbours() {
    let synthetic = Synthetic::new(&Geometry::default(), 3);
    check(&synthetic.open(), &support::options(Precision::F32), &many_lengths(70, 1));
}

#[test]
fn int8_rows_of_a_small_encoder_do_not_see_their_neighbours() {
    let synthetic = Synthetic::new(&Geometry::default(), 4);
    check(&synthetic.open(), &support::options(Precision::Int8), &many_lengths(70, 1));
}

#[test]
fn the_real_model_gives_the_same_bits_with_all_threads_alone_and_with_half_of_them_side_by_side() {
    let folder = support::real_model();
    let lengths = many_lengths(133, 11);
    let (ids, boundaries) = support::batch(&lengths, folder.encoder().vocab, 13);
    for precision in [Precision::F32, Precision::Int8] {
        let load = |intra_threads, other: Option<&Session>| {
            let options = EngineOptions { intra_threads, ..support::options(precision) };
            Session::load_beside(&folder, &options, other).unwrap()
        };
        let mut whole = load(2, None);
        let halves = [load(1, Some(&whole)), load(1, Some(&whole))];
        let expected = whole.encode(&ids, &boundaries).unwrap();
        let rows = lengths.len();
        // Each half has a part of the rows at a time, as it has in a worker.
        std::thread::scope(|scope| {
            let (expected, ids, boundaries) = (&expected, &ids, &boundaries);
            for (half, mut session) in halves.into_iter().enumerate() {
                scope.spawn(move || {
                    for parts in [2, 3, rows] {
                        for part in (half..parts).step_by(2) {
                            let (from, to) = (part * rows / parts, (part + 1) * rows / parts);
                            let start = boundaries[from];
                            let own: Vec<u32> =
                                boundaries[from..=to].iter().map(|at| at - start).collect();
                            let text = &ids[start as usize..boundaries[to] as usize];
                            let states = session.encode(text, &own).unwrap();
                            for row in from..to {
                                let same = bits(states.row(row - from)) == bits(expected.row(row));
                                assert!(same, "{precision}: row {row}, part {part} of {parts}");
                            }
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn rows_of_the_real_model_do_not_see_their_neighbours() {
    let folder = support::real_model();
    for precision in [Precision::F32, Precision::Int8] {
        check(&folder, &support::options(precision), &many_lengths(140, 11));
    }
}
