//! A row has the same bits whatever stands next to it and however the batch is cut.

use forebay_onnx::{EngineOptions, Precision, Session, SubBatchLimits};

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
    for (rows_max, intra_threads) in [(64, 2), (3, 1)] {
        let sub_batch = SubBatchLimits { rows_max, ..options.sub_batch };
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
fn rows_of_the_real_model_do_not_see_their_neighbours() {
    let folder = support::real_model();
    for precision in [Precision::F32, Precision::Int8] {
        check(&folder, &support::options(precision), &many_lengths(140, 11));
    }
}
