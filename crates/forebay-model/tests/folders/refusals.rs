//! Ways to be refused: each error is the right one and its message names file, value and remedy.

use forebay_model::{EncoderWeights, Manifest, ModelError, ModelFolder, Scratch, TokenizeError};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::synthetic::{Synthetic, Tensors, config, encode, tensors, tokenizer};

/// The message of an error, after checking that it contains every one of `parts`.
#[track_caller]
fn assert_says<T>(result: Result<T, ModelError>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, expected an error with {parts:?}") };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn with(mut value: Value, key: &str, new: Value) -> Value {
    value[key] = new;
    value
}

#[test]
fn not_a_folder() {
    let model = Synthetic::new();
    assert_says(ModelFolder::open(&model.file("absent")), &["absent", "does not exist"]);
    assert_says(ModelFolder::open(&model.file("config.json")), &["not a directory"]);
}

#[test]
fn config_json() {
    let cases = [
        ("model_type", json!("distilbert"), "supported are bert, roberta, xlm-roberta, camembert"),
        ("model_type", Value::Null, "model_type \"\" is not supported"),
        ("position_embedding_type", json!("relative_key"), "expected \"absolute\""),
        ("hidden_act", json!("silu"), "one of gelu, gelu_new"),
        ("is_decoder", json!(true), "causal"),
        ("pruned_heads", json!({"0": [1]}), "pruned heads"),
        ("num_attention_heads", json!(3), "a divisor of hidden_size 4"),
        ("hidden_size", json!(0), "hidden_size is 0, expected a whole number from 1"),
        ("vocab_size", Value::Null, "vocab_size is missing"),
        ("num_hidden_layers", json!(1u64 << 40), "num_hidden_layers is 1099511627776"),
        ("pad_token_id", json!(9), "below vocab_size 9"),
        ("layer_norm_eps", json!(0.0), "layer_norm_eps is 0"),
        ("hidden_size", json!("four"), "is not valid"),
    ];
    let model = Synthetic::new();
    for (key, value, message) in cases {
        model.json("config.json", &with(config(), key, value));
        assert_says(model.open(), &["config.json", message]);
    }
    let roberta = with(with(config(), "model_type", json!("roberta")), "pad_token_id", json!(8));
    model.json("config.json", &with(roberta, "max_position_embeddings", json!(9)));
    assert_says(model.open(), &["max_position_embeddings is 9", "9 rows reserved"]);
    model.bytes("config.json", b"{\"model_type\":");
    assert_says(model.open(), &["config.json is not valid", "line 1"]);
    model.bytes("config.json", vec![b' '; (8 << 20) + 1]);
    assert_says(model.open(), &["8388609 bytes", "8388608 allowed"]);
    model.remove("config.json");
    assert_says(model.open(), &["config.json is missing"]);
    std::fs::create_dir(model.file("config.json")).unwrap();
    assert_says(model.open(), &["not a regular file"]);
}

#[test]
fn modules_json() {
    let model = Synthetic::new();
    let module = |kind: &str, path: &str| json!({"type": format!("{kind}"), "path": path});
    let transformer = module("sentence_transformers.models.Transformer", "");
    let pooling = module("sentence_transformers.models.Pooling", "1_Pooling");
    let dense = module("sentence_transformers.models.Dense", "2_Dense");
    let foreign = module("my_models.Pooling", "1_Pooling");
    for modules in [
        json!([transformer, pooling, dense]),
        json!([transformer]),
        json!([pooling, transformer]),
        json!([transformer, foreign]),
        json!([]),
    ] {
        model.json("modules.json", &modules);
        assert_says(
            model.open(),
            &["modules.json", "Transformer, Pooling and optionally Normalize"],
        );
    }
    for path in ["../1_Pooling", "/etc", "1_Pooling/../../x", "a\\b"] {
        let pooling = module("sentence_transformers.models.Pooling", path);
        model.json("modules.json", &json!([transformer, pooling]));
        assert_says(model.open(), &["modules.json", "not inside the model folder"]);
    }
    model.json("modules.json", &json!({"type": "Transformer"}));
    assert_says(model.open(), &["modules.json is not valid"]);
    model.remove("modules.json");
    assert_says(model.open(), &["modules.json is missing", "incomplete"]);
}

#[test]
fn pooling_config() {
    let model = Synthetic::new();
    let cases = [
        (
            json!({"word_embedding_dimension": 5, "pooling_mode_mean_tokens": true}),
            "is 5, expected 4",
        ),
        (json!({"pooling_mode_mean_tokens": true}), "word_embedding_dimension is missing"),
        (json!({"word_embedding_dimension": 4}), "exactly one of"),
        (
            json!({"word_embedding_dimension": 4, "pooling_mode_mean_tokens": true,
                "pooling_mode_cls_token": true}),
            "[cls, mean], expected exactly one",
        ),
        (
            json!({"word_embedding_dimension": 4, "pooling_mode_weightedmean_tokens": true}),
            "[weightedmean]",
        ),
        (json!({"word_embedding_dimension": 4, "pooling_mode_new": true}), "[pooling_mode_new]"),
        (json!({"word_embedding_dimension": 4, "pooling_mode_cls_token": 1}), "true or false"),
        (json!({"embedding_dimension": 4, "pooling_mode": ["mean", "max"]}), "[mean, max]"),
        (json!({"embedding_dimension": 4, "pooling_mode": 7}), "pooling_mode is 7"),
    ];
    for (config, message) in cases {
        model.json("1_Pooling/config.json", &config);
        assert_says(model.open(), &["1_Pooling/config.json", message]);
    }
    model.remove("1_Pooling/config.json");
    assert_says(model.open(), &["1_Pooling/config.json is missing"]);
}

#[test]
fn settings_that_would_change_embeddings() {
    let cases = [
        (
            "config_sentence_transformers.json",
            json!({"default_prompt_name": "query",
            "prompts": {"query": "query: "}}),
            "default_prompt_name is \"query\"",
        ),
        ("config_sentence_transformers.json", json!({"truncate_dim": 2}), "truncate_dim is 2"),
        (
            "2_Normalize/config.json",
            json!({"module_input_name": "token_embeddings"}),
            "module_input_name",
        ),
        ("sentence_bert_config.json", json!({"max_seq_length": 0}), "max_seq_length is 0"),
        ("tokenizer_config.json", json!({"truncation_side": "left"}), "truncation_side"),
        ("tokenizer_config.json", json!({"model_max_length": "long"}), "model_max_length"),
    ];
    for (file, config, message) in cases {
        let model = Synthetic::new();
        model.json(file, &config);
        assert_says(model.open(), &[file, message]);
    }
}

#[test]
fn weights_that_are_not_there() {
    let model = Synthetic::new();
    model.remove("model.safetensors");
    assert_says(model.open(), &["model.safetensors", "download the model again"]);
    model.bytes("pytorch_model.bin", b"pickle");
    assert_says(model.open(), &["pytorch_model.bin", "never read", "safe_serialization"]);
    model.bytes("model.onnx", b"graph");
    assert_says(model.open().unwrap().weights(), &["model.onnx", "use the ONNX engine"]);
}

#[test]
fn an_index_that_leads_elsewhere() {
    let model = Synthetic::new();
    let outside = Synthetic::new();
    std::fs::rename(model.file("model.safetensors"), model.file("real.safetensors")).unwrap();
    std::os::unix::fs::symlink(outside.file("model.safetensors"), model.file("link.safetensors"))
        .unwrap();
    let absolute = outside.file("model.safetensors");
    for name in ["../x.safetensors", absolute.to_str().unwrap(), "link.safetensors", "./.."] {
        let index = json!({"weight_map": {"a": name}});
        model.json("model.safetensors.index.json", &index);
        assert_says(model.open(), &["index.json", "not inside the model folder"]);
    }
    model.json("model.safetensors.index.json", &json!({"weight_map": {"a": "gone.safetensors"}}));
    assert_says(model.open(), &["gone.safetensors is missing", "index.json names it"]);
    model.json("model.safetensors.index.json", &json!({"weight_map": {}}));
    assert_says(model.open(), &["weight_map is empty"]);
    model.tensors("twin.safetensors", &tensors("", Dtype::F32));
    let twins = json!({"weight_map": {"a": "real.safetensors", "b": "twin.safetensors"}});
    model.json("model.safetensors.index.json", &twins);
    assert_says(model.open().unwrap().weights(), &["real.safetensors", "twin.safetensors"]);
}

fn weights_result(change: impl FnOnce(&mut Tensors)) -> Result<(), ModelError> {
    let model = Synthetic::new();
    let mut all = tensors("", Dtype::F32);
    change(&mut all);
    model.tensors("model.safetensors", &all);
    let folder = model.open().unwrap();
    let weights = folder.weights()?;
    let encoder = EncoderWeights::from(&weights, folder.encoder())?;
    encoder.word.to_f32().map(drop)
}

#[test]
fn tensors_that_do_not_fit() {
    let key = "encoder.layer.1.attention.self.key.weight";
    weights_result(|_| {}).unwrap();
    let missing = weights_result(|all| drop(all.remove(key)));
    assert_says(missing, &["model.safetensors", key, "incomplete"]);
    let shape = weights_result(|all| {
        all.insert(key.to_owned(), (Dtype::F32, vec![4, 5], vec![0; 80]));
    });
    assert_says(shape, &["model.safetensors", key, "[4, 5]", "expected [4, 4]"]);
    let kind = weights_result(|all| {
        all.insert(key.to_owned(), (Dtype::F64, vec![4, 4], vec![0; 128]));
    });
    assert_says(kind, &["model.safetensors", key, "F64", "F32, F16 and BF16"]);
}

#[test]
fn values_that_are_no_numbers() {
    let word = "embeddings.word_embeddings.weight";
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for (value, text) in
            [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")]
        {
            let result = weights_result(|all| {
                *all = tensors("", dtype);
                let bytes = encode(dtype, value);
                let start = 17 * bytes.len();
                all.get_mut(word).unwrap().2[start..start + bytes.len()].copy_from_slice(&bytes);
            });
            let holds = format!("holds {text} at element 17");
            assert_says(result, &["model.safetensors", word, &holds]);
        }
    }
}

#[test]
fn tokenizer_json() {
    let model = Synthetic::new();
    let open = || model.open().unwrap().tokenizer();
    model.json("config.json", &with(config(), "vocab_size", json!(8)));
    assert_says(open(), &["tokenizer.json", "token id 8", "vocab_size in config.json is 8"]);
    model.json("config.json", &config());
    let mut typed = tokenizer();
    typed["post_processor"]["single"][1]["Sequence"]["type_id"] = json!(1);
    model.json("tokenizer.json", &typed);
    assert_says(open(), &["tokenizer.json", "type other than 0"]);
    let mut framed = tokenizer();
    framed["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([77]);
    model.json("tokenizer.json", &framed);
    assert_says(open(), &["tokenizer.json", "frames texts with token id 77"]);
    for broken in [json!({}), json!([]), json!({"model": {"type": "Magic", "vocab": {}}})] {
        model.json("tokenizer.json", &broken);
        assert_says(open(), &["tokenizer.json", "published with the model"]);
    }
    model.bytes("tokenizer.json", b"\xff\xfe");
    assert_says(open(), &["tokenizer.json is not valid"]);
    model.remove("tokenizer.json");
    assert_says(open(), &["tokenizer.json is missing", "save_pretrained"]);
}

#[test]
fn an_added_token_without_embedding_is_refused_in_the_text_that_has_it() {
    let model = Synthetic::new();
    let added = json!([{"id": 9, "content": "<extra>", "single_word": false, "lstrip": false,
                        "rstrip": false, "normalized": false, "special": true}]);
    model.json("tokenizer.json", &with(tokenizer(), "added_tokens", added));
    let tokenizer = model.open().unwrap().tokenizer().unwrap();
    let (mut scratch, mut ids) = (Scratch::default(), Vec::new());
    let error = tokenizer.encode("stop <extra>", 8, &mut scratch, &mut ids).unwrap_err();
    assert!(matches!(error, TokenizeError::IdOutOfRange { id: 9, vocab: 9 }), "{error}");
    tokenizer.encode("stop", 8, &mut scratch, &mut ids).unwrap();
    assert_eq!(ids, [2, 6, 3]);
}

#[test]
fn no_tokens_at_all() {
    let model = Synthetic::new();
    model.json("tokenizer.json", &with(tokenizer(), "post_processor", Value::Null));
    let tokenizer = model.open().unwrap().tokenizer().unwrap();
    let error = tokenizer.encode(" ", 8, &mut Scratch::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, TokenizeError::NoTokens), "{error}");
}

#[test]
fn manifests() {
    let model = Synthetic::new();
    let path = model.file(Manifest::FILE_NAME);
    let manifest = Manifest::of_folder(model.path(), "a test").unwrap();
    manifest.write(&path).unwrap();
    model.open().unwrap();

    let original = std::fs::read(model.file("model.safetensors")).unwrap();
    let mut changed = original.clone();
    *changed.last_mut().unwrap() ^= 1;
    model.bytes("model.safetensors", &changed);
    let expected = &manifest.files["model.safetensors"].sha256;
    let found = &Manifest::of_folder(model.path(), "").unwrap().files["model.safetensors"].sha256;
    assert_ne!(expected, found);
    assert_says(model.open(), &["model.safetensors does not match", expected, found]);
    ModelFolder::open_unverified(model.path()).unwrap();
    model.bytes("model.safetensors", &original);

    // A file that would be read must be listed, verified or not.
    model.json("tokenizer_config.json", &json!({"model_max_length": 4}));
    assert_says(model.open(), &["manifest.json", "tokenizer_config.json", "does not list"]);
    assert_says(ModelFolder::open_unverified(model.path()), &["does not list"]);
    model.remove("tokenizer_config.json");

    model.remove("tokenizer.json");
    assert_says(model.open(), &["tokenizer.json is missing", "the manifest lists it"]);
    model.json("tokenizer.json", &tokenizer());

    let digest = json!({"sha256": "0".repeat(64), "bytes": 1});
    for (content, message) in [
        (json!({"format": 1, "source": "", "files": {"../x": digest}}), "not inside"),
        (json!({"format": 2, "source": "", "files": {}}), "format is 2"),
        (
            json!({"format": 1, "source": "", "files": {"x": {"sha256": "ab", "bytes": 1}}}),
            "64 lower",
        ),
        (json!({"format": 1, "files": {}}), "missing field `source`"),
    ] {
        model.json(Manifest::FILE_NAME, &content);
        assert_says(model.open(), &["manifest.json", message]);
    }
    assert_says(Manifest::of_folder(&model.file("absent"), ""), &["absent"]);
    assert_says(manifest.write(&model.path().join("absent/manifest.json")), &["cannot write"]);
}
