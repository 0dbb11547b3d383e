//! The real all-MiniLM-L6-v2: what its folder says, its tensors, and ids checked by hand.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use forebay_model::{
    Activation, EncoderWeights, GraphSource, Manifest, ModelFolder, PoolingMode, PoolingSpec,
    Scratch, TokenizeError, WeightType,
};

#[test]
fn the_folder_says_what_the_model_card_says() {
    let folder = ModelFolder::open(&common::model_path()).unwrap();
    let encoder = folder.encoder();
    assert_eq!(encoder.model_type, "bert");
    assert_eq!((encoder.hidden, encoder.layers, encoder.heads), (384, 6, 12));
    assert_eq!((encoder.head_dim(), encoder.intermediate, encoder.vocab), (32, 1536, 30522));
    assert_eq!((encoder.positions_max, encoder.position_offset, encoder.pad_id), (512, 0, 0));
    assert_eq!(encoder.activation, Activation::GeluErf);
    assert_eq!(encoder.layer_norm_eps, 1e-12);
    assert_eq!(*folder.pooling(), PoolingSpec { mode: PoolingMode::Mean, normalize: true });
    assert_eq!((folder.width(), folder.tokens_max()), (384, 256));
    assert!(matches!(folder.graph(), GraphSource::Safetensors { files } if files.len() == 1));
    assert_eq!(folder.fingerprint().len(), 64);
}

#[test]
fn the_weights_fit_the_configuration_and_are_finite() {
    let folder = ModelFolder::open_unverified(&common::model_path()).unwrap();
    let weights = folder.weights().unwrap();
    let encoder = EncoderWeights::from(&weights, folder.encoder()).unwrap();
    assert_eq!(encoder.layers.len(), 6);
    assert_eq!(encoder.word.dtype, WeightType::F32);
    let words = encoder.word.to_f32().unwrap();
    assert_eq!(words.len(), 30522 * 384);
    let intermediate = &encoder.layers[5].intermediate;
    assert_eq!(intermediate.weight.shape, [1536, 384]);
    assert_eq!(intermediate.bias.to_f32().unwrap().len(), 1536);
}

#[test]
fn texts_are_framed_and_cut_at_the_limit() {
    let folder = ModelFolder::open_unverified(&common::model_path()).unwrap();
    let tokenizer = folder.tokenizer().unwrap();
    let mut scratch = Scratch::default();
    let mut ids = Vec::new();
    let encoded = tokenizer.encode("Hello, world!", 256, &mut scratch, &mut ids).unwrap();
    assert_eq!(ids, [101, 7592, 1010, 2088, 999, 102]);
    assert_eq!((encoded.tokens, encoded.tokens_before_cut, encoded.truncated()), (6, 6, false));

    // Appends after what is there, and keeps the last special token when it cuts.
    let encoded = tokenizer.encode("Hello, world!", 4, &mut scratch, &mut ids).unwrap();
    assert_eq!(ids[6..], [101, 7592, 1010, 102]);
    assert_eq!((encoded.tokens, encoded.tokens_before_cut, encoded.truncated()), (4, 6, true));

    ids.clear();
    tokenizer.encode("", 256, &mut scratch, &mut ids).unwrap();
    assert_eq!(ids, [101, 102]);
    let error = tokenizer.encode("x", 1, &mut scratch, &mut ids).unwrap_err();
    assert!(matches!(error, TokenizeError::LimitTooSmall { tokens_max: 1, special: 2 }));
    assert_eq!(ids, [101, 102], "an error must not leave ids behind");

    let long = "velocity ".repeat(10_000);
    ids.clear();
    let encoded = tokenizer.encode(&long, 256, &mut scratch, &mut ids).unwrap();
    assert_eq!((ids.len(), encoded.tokens_before_cut), (256, 10_002));
    assert_eq!(ids.last(), Some(&102));
}

#[test]
fn one_tokenizer_serves_many_threads() {
    let folder = ModelFolder::open_unverified(&common::model_path()).unwrap();
    let tokenizer = folder.tokenizer().unwrap();
    let texts: Vec<String> =
        (0..500).map(|n| format!("robot {n} reports state {}", n * 7)).collect();
    let encode_all = |tokenizer: &forebay_model::TextTokenizer| {
        let (mut scratch, mut ids) = (Scratch::default(), Vec::new());
        for text in &texts {
            tokenizer.encode(text, 64, &mut scratch, &mut ids).unwrap();
        }
        ids
    };
    let expected = encode_all(&tokenizer);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| encode_all(&tokenizer.clone()))).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_manifest_of_the_folder_verifies() {
    let path = common::model_path();
    let manifest = Manifest::of_folder(&path, "a test").unwrap();
    assert!(manifest.files.contains_key("1_Pooling/config.json"));
    manifest.verify(&path).unwrap();
}
