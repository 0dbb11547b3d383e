//! Small random encoders against the plain f64 reference.

use forebay_onnx::{Precision, Session};

use crate::support::{self, Geometry, Synthetic, reference};

/// Lengths that fill, straddle and exceed a rounded width, in no order.
const LENGTHS: [usize; 9] = [5, 17, 1, 16, 33, 2, 15, 64, 32];

/// Largest difference of any state to the reference, and the smallest cosine of any token.
fn compare(geometry: &Geometry, precision: Precision, seed: u64) -> (f64, f64) {
    let synthetic = Synthetic::new(geometry, seed);
    let mut session = Session::load(&synthetic.open(), &support::options(precision)).unwrap();
    let (ids, boundaries) = support::batch(&LENGTHS, geometry.vocab, seed);
    let states = session.encode(&ids, &boundaries).unwrap();
    assert_eq!((states.rows(), states.width()), (LENGTHS.len(), geometry.hidden));
    assert_eq!(states.tokens(), ids.len());
    let (mut largest, mut smallest) = (0.0_f64, 1.0_f64);
    for (row, pair) in boundaries.windows(2).enumerate() {
        let text = &ids[pair[0] as usize..pair[1] as usize];
        let expected = reference::encode(geometry, &synthetic.tensors, text);
        assert_eq!(states.row(row).len(), text.len() * geometry.hidden);
        for (token, expected) in states.row(row).chunks_exact(geometry.hidden).zip(&expected) {
            for (&value, expected) in token.iter().zip(expected) {
                largest = largest.max((f64::from(value) - expected).abs());
            }
            let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
            smallest = smallest.min(support::cosine(token, &expected));
        }
    }
    (largest, smallest)
}

fn geometries() -> Vec<Geometry> {
    let default = Geometry::default;
    vec![
        default(),
        Geometry { activation: "gelu_new", ..default() },
        Geometry { activation: "relu", ..default() },
        Geometry { heads: 1, layers: 1, ..default() },
        Geometry { heads: 8, hidden: 48, intermediate: 100, ..default() },
        Geometry { heads: 64, layers: 3, ..default() },
        Geometry { model_type: "roberta", ..default() },
    ]
}

#[test]
fn f32_states_are_the_references() {
    for (seed, geometry) in geometries().iter().enumerate() {
        let (largest, _) = compare(geometry, Precision::F32, seed as u64);
        assert!(largest < 5e-5, "{geometry:?}: {largest}");
    }
}

#[test]
fn int8_states_are_close_to_the_references() {
    for (seed, geometry) in geometries().iter().enumerate() {
        let (_, smallest) = compare(geometry, Precision::Int8, seed as u64);
        assert!(smallest > 0.99, "{geometry:?}: {smallest}");
    }
}

#[test]
fn the_reference_has_the_known_values_of_gelu() {
    // x·Φ(x) with Φ(1) = 0.8413447460685429.
    assert!((reference::activate("gelu", 1.0) - 0.841_344_746_068_542_9).abs() < 1e-12);
    assert!((reference::activate("gelu", -1.0) + 0.158_655_253_931_457_1).abs() < 1e-12);
}
