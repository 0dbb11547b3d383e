//! Layouts that are accepted, and what they come out as.

use forebay_model::{
    Activation, EncoderWeights, GraphSource, Manifest, PoolingMode, Scratch, WeightType,
};
use safetensors::Dtype;
use serde_json::json;

use crate::synthetic::{HIDDEN, Synthetic, config, tensors, tokenizer};

#[test]
fn the_usual_layout() {
    let model = Synthetic::new();
    let folder = model.open().unwrap();
    assert_eq!((folder.width(), folder.tokens_max()), (HIDDEN, 8));
    assert_eq!((folder.pooling().mode, folder.pooling().normalize), (PoolingMode::Mean, true));
    let weights = folder.weights().unwrap();
    let encoder = EncoderWeights::from(&weights, folder.encoder()).unwrap();
    assert_eq!(encoder.layers.len(), 2);
    let expected = &tensors("", Dtype::F32)["encoder.layer.1.output.dense.weight"].2;
    assert_eq!(encoder.layers[1].output.weight.bytes, expected);
    assert_eq!(weights.names().count(), tensors("", Dtype::F32).len());
}

#[test]
fn the_files_own_padding_and_truncation_do_not_apply() {
    let tokenizer = Synthetic::new().open().unwrap().tokenizer().unwrap();
    let (mut scratch, mut ids) = (Scratch::default(), Vec::new());
    let encoded = tokenizer.encode("robots stop!", 8, &mut scratch, &mut ids).unwrap();
    assert_eq!(ids, [2, 4, 5, 6, 8, 3]);
    assert!(!encoded.truncated());
    ids.clear();
    tokenizer.encode("", 8, &mut scratch, &mut ids).unwrap();
    assert_eq!(ids, [2, 3]);
}

#[test]
fn every_pooling_mode_in_both_spellings() {
    let modes = [
        ("pooling_mode_cls_token", "cls", PoolingMode::Cls),
        ("pooling_mode_max_tokens", "max", PoolingMode::Max),
        ("pooling_mode_mean_tokens", "mean", PoolingMode::Mean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", PoolingMode::MeanSqrtLen),
        ("pooling_mode_lasttoken", "lasttoken", PoolingMode::LastToken),
    ];
    let model = Synthetic::new();
    for (flag, word, mode) in modes {
        model.json("1_Pooling/config.json", &json!({"word_embedding_dimension": 4, flag: true}));
        assert_eq!(model.open().unwrap().pooling().mode, mode, "{flag}");
        for word in [json!(word), json!([word])] {
            let config = json!({"embedding_dimension": 4, "pooling_mode": word});
            model.json("1_Pooling/config.json", &config);
            assert_eq!(model.open().unwrap().pooling().mode, mode, "{word}");
        }
    }
}

#[test]
fn modules_of_newer_releases_and_without_normalize() {
    let model = Synthetic::new();
    model.json(
        "modules.json",
        &json!([
            {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
            {"path": "1_Pooling",
             "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        ]),
    );
    assert!(!model.open().unwrap().pooling().normalize);
}

#[test]
fn a_transformer_in_its_own_folder() {
    let model = Synthetic::new();
    for name in ["config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"]
    {
        let from = model.file(name);
        std::fs::rename(from, model.file(&format!("0_Transformer/{name}"))).unwrap();
    }
    model.json(
        "modules.json",
        &json!([
            {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]),
    );
    let folder = model.open().unwrap();
    assert_eq!(folder.tokens_max(), 8);
    folder.weights().unwrap();
    folder.tokenizer().unwrap();
}

#[test]
fn a_plain_transformers_folder_means_mean_pooling_without_normalisation() {
    let model = Synthetic::new();
    model.remove("modules.json");
    std::fs::remove_dir_all(model.file("1_Pooling")).unwrap();
    let folder = model.open().unwrap();
    assert_eq!((folder.pooling().mode, folder.pooling().normalize), (PoolingMode::Mean, false));
    assert_eq!(folder.tokens_max(), 10, "sentence_bert_config.json needs modules.json");
    model.json("tokenizer_config.json", &json!({"model_max_length": 6}));
    assert_eq!(model.open().unwrap().tokens_max(), 6);
    model.json("tokenizer_config.json", &json!({"model_max_length": 1e30}));
    assert_eq!(model.open().unwrap().tokens_max(), 10);
}

#[test]
fn the_position_table_bounds_the_token_limit() {
    let model = Synthetic::new();
    model.json("sentence_bert_config.json", &json!({"max_seq_length": 512}));
    assert_eq!(model.open().unwrap().tokens_max(), 10);
    for model_type in ["roberta", "xlm-roberta", "camembert"] {
        let mut config = config();
        config["model_type"] = json!(model_type);
        config["pad_token_id"] = json!(1);
        model.json("config.json", &config);
        let folder = model.open().unwrap();
        assert_eq!((folder.encoder().position_offset, folder.tokens_max()), (2, 8));
    }
}

#[test]
fn activations() {
    let model = Synthetic::new();
    for (name, expected) in [
        ("gelu", Activation::GeluErf),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
    ] {
        let mut config = config();
        config["hidden_act"] = json!(name);
        model.json("config.json", &config);
        assert_eq!(model.open().unwrap().encoder().activation, expected);
    }
}

#[test]
fn prefixes_old_names_and_narrow_types() {
    let model = Synthetic::new();
    for (prefix, dtype, weight_type) in
        [("bert.", Dtype::F16, WeightType::F16), ("roberta.", Dtype::BF16, WeightType::BF16)]
    {
        let renamed = tensors(prefix, dtype)
            .into_iter()
            .map(|(name, tensor)| {
                let old =
                    name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta");
                (old, tensor)
            })
            .collect();
        model.tensors("model.safetensors", &renamed);
        let folder = model.open().unwrap();
        let weights = folder.weights().unwrap();
        let encoder = EncoderWeights::from(&weights, folder.encoder()).unwrap();
        assert_eq!(encoder.word.dtype, weight_type);
        let wide = &tensors("", Dtype::F32)["embeddings.word_embeddings.weight"].2;
        let (wide, _) = wide.as_chunks::<4>();
        for (narrow, &wide) in encoder.word.to_f32().unwrap().iter().zip(wide) {
            assert!((narrow - f32::from_le_bytes(wide)).abs() <= 1.0 / 256.0);
        }
    }
}

#[test]
fn shards_and_onnx() {
    let model = Synthetic::new();
    let all = tensors("", Dtype::F32);
    let (mut first, mut second) = (all.clone(), all.clone());
    first.retain(|name, _| name.starts_with("embeddings"));
    second.retain(|name, _| name.starts_with("encoder"));
    model.tensors("a.safetensors", &first);
    model.tensors("b.safetensors", &second);
    let map: serde_json::Map<_, _> = all
        .keys()
        .map(|name| {
            let file = if first.contains_key(name) { "a.safetensors" } else { "b.safetensors" };
            (name.clone(), json!(file))
        })
        .collect();
    model.json("model.safetensors.index.json", &json!({"metadata": {}, "weight_map": map}));
    model.remove("model.safetensors");
    let folder = model.open().unwrap();
    assert!(matches!(folder.graph(), GraphSource::Safetensors { files } if files.len() == 2));
    EncoderWeights::from(&folder.weights().unwrap(), folder.encoder()).unwrap();

    model.remove("model.safetensors.index.json");
    model.bytes("onnx/model.onnx", b"graph");
    let folder = model.open().unwrap();
    assert!(
        matches!(folder.graph(), GraphSource::Onnx { file } if file.ends_with("onnx/model.onnx"))
    );
}

#[test]
fn lower_case_is_added_once() {
    let model = Synthetic::new();
    let ids_of = |text| {
        let tokenizer = model.open().unwrap().tokenizer().unwrap();
        let mut ids = Vec::new();
        tokenizer.encode(text, 8, &mut Scratch::default(), &mut ids).unwrap();
        ids
    };
    assert_eq!(ids_of("Stop"), [2, 7, 3]);
    model.json("sentence_bert_config.json", &json!({"max_seq_length": 8, "do_lower_case": true}));
    assert_eq!(ids_of("Stop"), [2, 6, 3]);
    let mut with_own = tokenizer();
    with_own["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]});
    model.json("tokenizer.json", &with_own);
    assert_eq!(ids_of("Stop"), [2, 6, 3]);
}

#[test]
fn a_fingerprint_follows_the_manifest_and_else_the_files() {
    let (model, copy) = (Synthetic::new(), Synthetic::new());
    let bare = model.open().unwrap();
    model.json("sentence_bert_config.json", &json!({"max_seq_length": 7}));
    assert_ne!(model.open().unwrap().fingerprint(), bare.fingerprint());

    copy.json("sentence_bert_config.json", &json!({"max_seq_length": 7}));
    for model in [&model, &copy] {
        let manifest = Manifest::of_folder(model.path(), "a test").unwrap();
        manifest.write(&model.file(Manifest::FILE_NAME)).unwrap();
    }
    let fingerprint = model.open().unwrap().fingerprint().to_owned();
    assert_eq!(copy.open().unwrap().fingerprint(), fingerprint);
    // A file that nothing reads may come later.
    model.bytes("notes.txt", b"tested on the robot");
    assert_eq!(model.open().unwrap().fingerprint(), fingerprint);
}
