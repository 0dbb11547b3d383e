//! Embeddings of the real model on the CPU against the committed reference.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use forebay::EmbedOptions;
use forebay::config::Precision;
use support::reference::{Reference, cosine, reference};
use support::{real_config, real_model, start};

/// The cosine of each text's embedding to its reference.
fn cosines(precision: Precision, reference: &[Reference]) -> Vec<f64> {
    let mut config = real_config(&real_model());
    config.model.precision = precision;
    let runtime = start(config);
    let texts = reference.iter().map(|reference| reference.text.clone()).collect();
    let results = runtime.embed_batch(texts, &EmbedOptions::bulk()).expect("accepted");
    assert!(runtime.shutdown().drained);
    let rows = results.into_iter().map(|result| result.expect("embedded").vector);
    rows.zip(reference).map(|(row, reference)| cosine(&row, &reference.row)).collect()
}

#[test]
fn f32_is_the_reference_within_rounding() {
    let reference = reference();
    for (cosine, Reference { kind, text, .. }) in
        cosines(Precision::F32, &reference).into_iter().zip(&reference)
    {
        assert!(cosine >= 0.99999, "{cosine} for the {kind} text {text:?}");
    }
}

#[test]
fn int8_is_close_to_the_reference() {
    let reference = reference();
    let cosines = cosines(Precision::Int8, &reference);
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    assert!(mean >= 0.99, "mean cosine {mean}");
}
