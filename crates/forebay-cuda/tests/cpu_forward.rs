//! The CPU forward pass that the engine is held against, held against sentence-transformers: the
//! embeddings of the real model that are committed with the command line's tests.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::PathBuf;

use forebay_cuda::selftest::{KnownAnswer, cpu_forward};
use forebay_cuda::{CudaError, Dtype};
use forebay_model::{EncoderWeights, ModelFolder, Scratch};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../forebay-cli/tests/fixtures");

/// Texts short enough for a few seconds without optimisation.
const TOKENS_MAX: usize = 7;

/// The folder of all-MiniLM-L6-v2: `FOREBAY_MODEL`, or where the setup command puts it.
fn model() -> ModelFolder {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.forebay/models/all-MiniLM-L6-v2");
    let path = std::env::var_os("FOREBAY_MODEL").map_or_else(|| default.into(), PathBuf::from);
    assert!(
        path.join("tokenizer.json").is_file(),
        "{} is not the model folder: run `cargo xtask setup`, or set FOREBAY_MODEL",
        path.display()
    );
    ModelFolder::open_unverified(&path).unwrap()
}

/// Texts with their embeddings.
fn reference(width: usize) -> Vec<(String, Vec<f32>)> {
    let texts = std::fs::read_to_string(format!("{FIXTURES}/reference_texts.jsonl")).unwrap();
    let array = std::fs::read(format!("{FIXTURES}/reference_f32.npy")).unwrap();
    // Version 1 of the format: magic, version, length of the header, header, values.
    assert_eq!(&array[..8], b"\x93NUMPY\x01\x00");
    let header = usize::from(u16::from_le_bytes([array[8], array[9]]));
    let (values, rest) = array[10 + header..].as_chunks::<4>();
    assert!(rest.is_empty());
    let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let text = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["text"].as_str().unwrap().to_owned()
    };
    let texts: Vec<String> = texts.lines().map(text).collect();
    assert_eq!(texts.len() * width, values.len());
    texts.into_iter().zip(values.chunks_exact(width).map(<[f32]>::to_vec)).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

#[test]
fn cpu_forward_gives_the_embeddings_of_sentence_transformers() {
    let folder = model();
    let width = folder.width();
    let tokenizer = folder.tokenizer().unwrap();
    let weights = folder.weights().unwrap();
    let tensors = EncoderWeights::from(&weights, folder.encoder()).unwrap();

    let (mut ids, mut cu, mut rows) = (Vec::new(), vec![0_u32], Vec::new());
    let mut scratch = Scratch::default();
    // Spread over the kinds of text, which come in runs.
    for (text, row) in reference(width).into_iter().step_by(5) {
        let before = ids.len();
        let limit = folder.tokens_max();
        tokenizer.encode(&text, limit, &mut scratch, &mut ids).unwrap();
        if ids.len() - before > TOKENS_MAX || rows.len() == 10 {
            ids.truncate(before);
        } else {
            cu.push(ids.len() as u32);
            rows.push((text, row));
        }
    }
    assert!(rows.len() >= 10, "{} texts", rows.len());
    assert!(cu.windows(2).any(|pair| pair[1] - pair[0] >= 6), "{cu:?}");

    let got = cpu_forward(folder.encoder(), &tensors, folder.pooling(), &ids, &cu).unwrap();
    assert_eq!(got.len(), rows.len() * (width + 1));
    for (got, (text, row)) in got.chunks_exact(width + 1).zip(&rows) {
        let (got, norm) = (&got[..width], got[width]);
        let cosine = cosine(got, row);
        assert!(cosine >= 0.99999, "{cosine} for {text:?}");
        let length: f64 = got.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((length - 1.0).abs() < 1e-5 && norm > 0.1, "{length} {norm} for {text:?}");
    }
}

#[test]
fn the_known_answer_of_the_real_model_is_not_that_of_another() {
    let folder = model();
    let weights = folder.weights().unwrap();
    let (encoder, pooling) = (folder.encoder(), folder.pooling());
    // One layer is enough to be wrong in, and quick without optimisation.
    let mut tensors = EncoderWeights::from(&weights, encoder).unwrap();
    tensors.layers.truncate(1);
    let known = KnownAnswer::compute(encoder, &tensors, pooling, 16, true).unwrap();
    assert_eq!(known.cu(), [0, 1, 8, 10, 26]);
    assert!(known.ids().iter().all(|&id| (id as usize) < encoder.vocab));

    // Keys and queries swapped: of all mistakes a mild one, invisible to texts of one token.
    let layer = tensors.layers.last_mut().unwrap();
    std::mem::swap(&mut layer.query, &mut layer.key);
    let wrong = cpu_forward(encoder, &tensors, pooling, known.ids(), known.cu()).unwrap();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let mut engine =
            |_: &[u32], _: &[u32]| -> Result<Vec<f32>, CudaError> { Ok(wrong.clone()) };
        let item = known.check(dtype, &mut engine).unwrap();
        assert!(!item.passed, "{item:?}");
        assert!(!item.detail.contains("the text of 1 tokens"), "{item:?}");
    }
}
