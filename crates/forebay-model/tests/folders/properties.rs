//! Properties over arbitrary content: nothing in a folder makes opening it panic.

use std::collections::BTreeMap;

use forebay_model::{EncoderWeights, FileDigest, Manifest, ModelError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use safetensors::Dtype;

use crate::synthetic::{Synthetic, config, serialize, tensors, tokenizer};

fn seeded(cases: u32) -> ProptestConfig {
    let (rng_seed, failure_persistence) = (RngSeed::Fixed(0xf01d), None);
    ProptestConfig { cases, rng_seed, failure_persistence, ..ProptestConfig::default() }
}

/// Bytes that are arbitrary, or `valid` with a few bytes replaced, or JSON of the wrong shape.
fn damaged(valid: String) -> impl Strategy<Value = Vec<u8>> {
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let replaced = flips.prop_map(move |flips| {
        let mut bytes = valid.clone().into_bytes();
        for (index, byte) in flips {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes
    });
    let wrong = "[\\[{\":,}\\]0-9a-z_]{0,60}".prop_map(String::into_bytes);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), replaced, wrong]
}

#[test]
fn damaged_configuration_never_panics() {
    let model = Synthetic::new();
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    ] {
        let path = model.file(name);
        let valid = std::fs::read_to_string(&path).unwrap();
        proptest!(seeded(400), |(content in damaged(valid.clone()))| {
            model.bytes(name, &content);
            // Either outcome is right for some damage; an error has to say which file it is about.
            if let Err(error) = model.open().and_then(|folder| folder.tokenizer()) {
                prop_assert!(error.to_string().contains(".json"), "{error}");
            }
        });
        model.bytes(name, valid);
    }
    assert_eq!(model.open().unwrap().tokens_max(), 8);
}

#[test]
fn a_config_that_is_arbitrary_json_is_refused() {
    let model = Synthetic::new();
    proptest!(seeded(300), |(content in "[\\[{\"a-z:,}\\] 0-9]{0,80}")| {
        model.bytes("config.json", &content);
        prop_assert!(model.open().is_err());
    });
    model.json("config.json", &config());
    model.open().unwrap();
}

#[test]
fn truncated_safetensors_are_always_refused() {
    let model = Synthetic::new();
    let whole = serialize(&tensors("", Dtype::F32));
    proptest!(seeded(400), |(cut in any::<prop::sample::Index>())| {
        model.bytes("model.safetensors", &whole[..cut.index(whole.len())]);
        let error = model.open().unwrap().weights().unwrap_err();
        prop_assert!(matches!(error, ModelError::Safetensors { .. }), "{error}");
        prop_assert!(error.to_string().contains("truncated or damaged"), "{error}");
    });
}

#[test]
fn damaged_safetensors_never_panic() {
    let model = Synthetic::new();
    let whole = serialize(&tensors("", Dtype::F32));
    let flips = prop::collection::vec((0..whole.len().min(4_000), any::<u8>()), 1..4);
    proptest!(seeded(400), |(flips in flips)| {
        let mut bytes = whole.clone();
        for (index, byte) in flips {
            bytes[index] = byte;
        }
        model.bytes("model.safetensors", &bytes);
        let folder = model.open().unwrap();
        if let Ok(weights) = folder.weights()
            && let Ok(encoder) = EncoderWeights::from(&weights, folder.encoder())
        {
            prop_assert_eq!(encoder.word.bytes.len(), folder.encoder().vocab * 16);
        }
    });
}

#[test]
fn a_manifest_survives_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(Manifest::FILE_NAME);
    let digest =
        ("[0-9a-f]{64}", any::<u64>()).prop_map(|(sha256, bytes)| FileDigest { sha256, bytes });
    let files = prop::collection::btree_map(any::<String>(), digest, 0..8);
    proptest!(seeded(200), |(files in files, source in any::<String>())| {
        let manifest = Manifest { files, source };
        manifest.write(&path).unwrap();
        prop_assert_eq!(Manifest::read(&path).unwrap(), manifest);
    });
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "a partial file is left");
}

#[test]
fn a_manifest_notices_any_changed_byte() {
    let model = Synthetic::new();
    let valid = tokenizer().to_string().into_bytes();
    let manifest = Manifest::of_folder(model.path(), "").unwrap();
    let names: BTreeMap<_, _> =
        manifest.files.iter().map(|(name, d)| (name.as_str(), d.bytes)).collect();
    assert_eq!(names["tokenizer.json"], valid.len() as u64);
    proptest!(seeded(200), |(index in any::<prop::sample::Index>(), change in 1..=255_u8)| {
        let mut bytes = valid.clone();
        bytes[index.index(valid.len())] ^= change;
        model.bytes("tokenizer.json", &bytes);
        let error = manifest.verify(model.path()).unwrap_err();
        prop_assert!(matches!(error, ModelError::DigestMismatch { .. }), "{error}");
    });
}
