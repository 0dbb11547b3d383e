//! all-MiniLM-L6-v2: known distances, INT8 beside F32, several sessions at once.

use forebay_model::{ModelFolder, Scratch, pooling};
use forebay_onnx::{Precision, Session, TokenStates};

use crate::support::{self, bits, cosine};

const TEXTS: [&str; 12] = [
    "A man is playing a guitar.",
    "Someone plays an acoustic guitar on stage.",
    "Battery voltage dropped below 22.4 V on the left drive.",
    "The left motor's battery is running low.",
    "Lidar return rate fell under 40 percent in heavy rain.",
    "Gripper closed on the part and the force sensor reads 12 N.",
    "Emergency stop pressed by the operator at dock 7.",
    "The quarterly report is due on Friday.",
    "Pose estimate diverged after the wheel slipped on the ramp; the filter was reset and the \
     vehicle waited for three consistent scans before it moved on towards the loading bay.",
    "ok",
    "Kühlmitteltemperatur zu hoch, Leistung wird begrenzt.",
    "",
];

fn tokenize(folder: &ModelFolder) -> (Vec<u32>, Vec<u32>) {
    let tokenizer = folder.tokenizer().unwrap();
    let (mut scratch, mut ids, mut boundaries) = (Scratch::default(), Vec::new(), vec![0]);
    for text in TEXTS {
        tokenizer.encode(text, folder.tokens_max(), &mut scratch, &mut ids).unwrap();
        boundaries.push(ids.len() as u32);
    }
    (ids, boundaries)
}

fn pool(folder: &ModelFolder, states: &TokenStates) -> Vec<Vec<f32>> {
    let row = |index| {
        let mut out = vec![0.0; states.width()];
        pooling::pool_rows(folder.pooling(), states.row(index), states.width(), &mut out).unwrap();
        out
    };
    (0..states.rows()).map(row).collect()
}

fn embed(folder: &ModelFolder, precision: Precision) -> Vec<Vec<f32>> {
    let (ids, boundaries) = tokenize(folder);
    let mut session = Session::load(folder, &support::options(precision)).unwrap();
    pool(folder, &session.encode(&ids, &boundaries).unwrap())
}

/// Pairs of rows and the cosine that sentence-transformers 6.2.0 gives them in F32.
const COSINES: [(usize, usize, f64); 8] = [
    (0, 1, 0.639922),
    (2, 3, 0.555127),
    (0, 7, -0.024472),
    (2, 7, 0.039752),
    (1, 6, 0.056997),
    (5, 8, 0.240051),
    (9, 11, 0.556132),
    (4, 10, -0.051913),
];

#[test]
fn f32_embeddings_are_those_of_sentence_transformers() {
    let rows = embed(&support::real_model(), Precision::F32);
    for (left, right, expected) in COSINES {
        let found = cosine(&rows[left], &rows[right]);
        assert!((found - expected).abs() < 5e-6, "{left}, {right}: {found}, not {expected}");
    }
}

#[test]
fn int8_embeddings_are_close_to_f32() {
    let folder = support::real_model();
    let (exact, quantized) = (embed(&folder, Precision::F32), embed(&folder, Precision::Int8));
    let cosines: Vec<f64> =
        exact.iter().zip(&quantized).map(|(exact, other)| cosine(exact, other)).collect();
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    assert!(mean > 0.995, "mean {mean}");
    assert!(cosines.iter().all(|&cosine| cosine > 0.985), "{cosines:?}");
    assert!(mean < 1.0 - 1e-6, "INT8 that equals F32 is not INT8: {mean}");
}

#[test]
fn sessions_in_several_threads_agree() {
    let folder = support::real_model();
    let (ids, boundaries) = tokenize(&folder);
    let run = || {
        let mut session = Session::load(&folder, &support::options(Precision::F32)).unwrap();
        let states = session.encode(&ids, &boundaries).unwrap();
        (0..states.rows()).map(|row| bits(states.row(row))).collect::<Vec<_>>()
    };
    let (left, right) = std::thread::scope(|scope| {
        let (left, right) = (scope.spawn(run), scope.spawn(run));
        (left.join().unwrap(), right.join().unwrap())
    });
    assert!(left == right);
}
