//! The committed reference of the real model, which sentence-transformers made in F32
//! (`fixtures/make_reference.py`), and how close an embedding is to it.

use serde_json::Value;

const TEXTS: &str = include_str!("../fixtures/reference_texts.jsonl");
const ROWS: &[u8] = include_bytes!("../fixtures/reference_f32.npy");

/// One text with its row.
pub(crate) struct Reference {
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) row: Vec<f32>,
}

/// All of it, in the order of the files.
pub(crate) fn reference() -> Vec<Reference> {
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

/// The cosine of the angle between two rows.
pub(crate) fn cosine(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}
