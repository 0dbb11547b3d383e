//! A tiny, complete model folder in a temporary directory, to be changed by a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_model::{ModelError, ModelFolder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

pub(crate) const HIDDEN: usize = 4;
pub(crate) const VOCAB: usize = 9;
const INTERMEDIATE: usize = 6;
const POSITIONS: usize = 10;
const LAYERS: usize = 2;

/// Name to element type, shape and bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) struct Synthetic {
    directory: tempfile::TempDir,
}

impl Synthetic {
    /// The layout of all-MiniLM-L6-v2: BERT, mean pooling, normalised, 8 tokens.
    pub(crate) fn new() -> Self {
        let new = Self { directory: tempfile::tempdir().unwrap() };
        new.json("config.json", &config());
        new.json(
            "modules.json",
            &json!([
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]),
        );
        new.json(
            "1_Pooling/config.json",
            &json!({"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": true,
                    "pooling_mode_cls_token": false}),
        );
        new.json(
            "sentence_bert_config.json",
            &json!({"max_seq_length": 8, "do_lower_case": false}),
        );
        new.json("tokenizer.json", &tokenizer());
        new.tensors("model.safetensors", &tensors("", Dtype::F32));
        new
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub(crate) fn bytes(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), content).unwrap();
    }

    pub(crate) fn json(&self, name: &str, value: &Value) {
        self.bytes(name, value.to_string());
    }

    pub(crate) fn tensors(&self, name: &str, tensors: &Tensors) {
        self.bytes(name, serialize(tensors));
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    pub(crate) fn open(&self) -> Result<ModelFolder, ModelError> {
        ModelFolder::open(self.path())
    }
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": INTERMEDIATE, "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu", "pad_token_id": 0, "position_embedding_type": "absolute",
    })
}

pub(crate) fn tokenizer() -> Value {
    json!({
        "version": "1.0",
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 3}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "robot": 4, "##s": 5,
                      "stop": 6, "Stop": 7, "!": 8}},
    })
}

/// Every tensor of the encoder with seeded values.
pub(crate) fn tensors(prefix: &str, dtype: Dtype) -> Tensors {
    let mut rng = StdRng::seed_from_u64(7);
    let mut all = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| {
        let bytes = (0..shape.iter().product())
            .flat_map(|_| encode(dtype, rng.random_range(-1.0..1.0)))
            .collect();
        all.insert(format!("{prefix}{name}"), (dtype, shape.to_vec(), bytes));
    };
    for (table, rows) in [("word", VOCAB), ("position", POSITIONS), ("token_type", 2)] {
        add(&format!("embeddings.{table}_embeddings.weight"), &[rows, HIDDEN]);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..LAYERS {
        for (part, out, input) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INTERMEDIATE, HIDDEN),
            ("output.dense", HIDDEN, INTERMEDIATE),
        ] {
            add(&format!("encoder.layer.{layer}.{part}.weight"), &[out, input]);
            add(&format!("encoder.layer.{layer}.{part}.bias"), &[out]);
        }
        norms.push(format!("encoder.layer.{layer}.attention.output.LayerNorm"));
        norms.push(format!("encoder.layer.{layer}.output.LayerNorm"));
    }
    for norm in norms {
        add(&format!("{norm}.weight"), &[HIDDEN]);
        add(&format!("{norm}.bias"), &[HIDDEN]);
    }
    all
}

pub(crate) fn encode(dtype: Dtype, value: f32) -> Vec<u8> {
    match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        other => unreachable!("no test writes {other:?}"),
    }
}

pub(crate) fn serialize(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}
