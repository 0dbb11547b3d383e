//! Embeddings of the real model against the committed reference, which sentence-transformers made
//! in F32 (`fixtures/make_reference.py`).

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use forebay::EmbedOptions;
use forebay::config::Precision;
use serde_json::Value;
use support::{real_config, real_model, start};

const TEXTS: &str = include_str!("fixtures/reference_texts.jsonl");
const ROWS: &[u8] = include_bytes!("fixtures/reference_f32.npy");

struct Reference {
    kind: String,
    text: String,
    row: Vec<f32>,
}

fn reference() -> Vec<Reference> {
    // Version 1 of the format: magic, version, length of the header, header, values.
    let header = u16::from_le_bytes([ROWS[8], ROWS[9]]) as usize;
    assert_eq!(&ROWS[..8], b"\x93NUMPY\x01\x00");
    let (header, values) = ROWS[10..].split_at(header);
    let header = String::from_utf8_lossy(header);
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let values: Vec<f32> =
        values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let lines: Vec<Value> =
        TEXTS.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() >= 200, "{} texts", lines.len());
    assert_eq!(values.len() % lines.len(), 0);
    let rows = values.chunks_exact(values.len() / lines.len());
    let field = |line: &Value, name: &str| line[name].as_str().expect("a string").to_owned();
    lines
        .iter()
        .zip(rows)
        .map(|(line, row)| Reference {
            kind: field(line, "kind"),
            text: field(line, "text"),
            row: row.to_vec(),
        })
        .collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

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
