//! A tiny, complete and loadable model folder with seeded weights, to be changed by a test.
//!
//! Its vocabulary is the special tokens, `w0` to `w499`, and words at which a fake worker may be
//! told to misbehave; each of them is one token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::script::{HOLD_FILE, PIDS_FILE, SCRIPT_FILE, Script};
use super::vector;

/// Length of an embedding.
pub(crate) const WIDTH: usize = 32;
/// Tokens of a text, special tokens included.
pub(crate) const TOKENS_MAX: usize = 32;
const WORDS: u32 = 500;
const FIRST_WORD: u32 = 4;
const VOCAB: usize = (FIRST_WORD + WORDS) as usize + 1;
const INTERMEDIATE: usize = 64;
const LAYERS: usize = 2;

/// The word that a script may name, and its id.
pub(crate) const BAD_WORD: &str = "bad";
pub(crate) const BAD_ID: u32 = FIRST_WORD + WORDS;

/// Name to element type, shape and values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) struct TinyModel {
    directory: tempfile::TempDir,
}

impl TinyModel {
    pub(crate) fn new() -> Self {
        let tiny = Self { directory: tempfile::tempdir().expect("temporary folder") };
        tiny.json("config.json", &config());
        tiny.json(
            "modules.json",
            &json!([
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]),
        );
        tiny.json(
            "1_Pooling/config.json",
            &json!({"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": true,
                    "pooling_mode_cls_token": false}),
        );
        tiny.json(
            "sentence_bert_config.json",
            &json!({"max_seq_length": TOKENS_MAX, "do_lower_case": false}),
        );
        tiny.json("tokenizer.json", &tokenizer());
        tiny.tensors(&tensors());
        tiny
    }

    /// The same with a script for the fake worker.
    pub(crate) fn scripted(script: &Script) -> Self {
        let tiny = Self::new();
        tiny.script(script);
        tiny
    }

    pub(crate) fn script(&self, script: &Script) {
        // In one step: a worker may be starting.
        let text = serde_json::to_string(script).expect("JSON");
        std::fs::write(self.file("script.new"), text).expect("writes");
        std::fs::rename(self.file("script.new"), self.file(SCRIPT_FILE)).expect("renames");
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
        path
    }

    pub(crate) fn json(&self, name: &str, value: &Value) {
        std::fs::write(self.file(name), value.to_string()).expect("writes");
    }

    pub(crate) fn tensors(&self, tensors: &Tensors) {
        let bytes: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, (shape, values))| {
                (name, (shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            })
            .collect();
        let views = bytes.iter().map(|(name, (shape, bytes))| {
            (*name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).expect("sound"))
        });
        let file = safetensors::serialize(views, None).expect("serializes");
        std::fs::write(self.file("model.safetensors"), file).expect("writes");
    }

    /// Process ids of every worker that was started on this folder, oldest first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.path().join(PIDS_FILE)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Keeps the fake worker from computing until the guard is dropped.
    pub(crate) fn hold(&self) -> Hold {
        let path = self.file(HOLD_FILE);
        std::fs::write(&path, b"").expect("writes");
        Hold { path }
    }
}

/// See [`TinyModel::hold`].
pub(crate) struct Hold {
    path: PathBuf,
}

impl Drop for Hold {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// Text number `number`: some words of the vocabulary, so that neighbours differ.
pub(crate) fn text(number: usize) -> String {
    let words = (0..1 + number % 7)
        .map(|word| format!("w{}", (number * 31 + word * 17 + number / 500) % WORDS as usize));
    words.collect::<Vec<_>>().join(" ")
}

/// The token ids of words of the vocabulary.
pub(crate) fn ids(text: &str) -> Vec<u32> {
    let id = |word: &str| match word.strip_prefix('w').and_then(|digits| digits.parse().ok()) {
        Some(number) => FIRST_WORD + u32::min(number, WORDS),
        None if word == BAD_WORD => BAD_ID,
        None => 1,
    };
    std::iter::once(2).chain(text.split_whitespace().map(id)).chain([3]).collect()
}

/// The embedding that the fake worker gives for words of the vocabulary.
pub(crate) fn expected(text: &str) -> Vec<f32> {
    vector::row(&ids(text), WIDTH).0
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "intermediate_size": INTERMEDIATE, "vocab_size": VOCAB,
        "max_position_embeddings": TOKENS_MAX, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu", "pad_token_id": 0, "position_embedding_type": "absolute",
    })
}

fn tokenizer() -> Value {
    let mut vocab = json!({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3});
    for word in 0..WORDS {
        vocab[format!("w{word}")] = json!(FIRST_WORD + word);
    }
    vocab[BAD_WORD] = json!(BAD_ID);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "decoder": null,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// Every tensor of the encoder with seeded values.
pub(crate) fn tensors() -> Tensors {
    let mut all = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| {
        let seed: Vec<u32> = name.bytes().map(u32::from).collect();
        let (values, _) = vector::row(&seed, shape.iter().product());
        // Of the size that trained weights have, whatever the number of them.
        let scale = 0.1 * (values.len() as f32).sqrt();
        let values = values.into_iter().map(|value| value * scale).collect();
        all.insert(name.to_owned(), (shape.to_vec(), values));
    };
    for (table, rows) in [("word", VOCAB), ("position", TOKENS_MAX), ("token_type", 2)] {
        add(&format!("embeddings.{table}_embeddings.weight"), &[rows, WIDTH]);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..LAYERS {
        for (part, out, input) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INTERMEDIATE, WIDTH),
            ("output.dense", WIDTH, INTERMEDIATE),
        ] {
            add(&format!("encoder.layer.{layer}.{part}.weight"), &[out, input]);
            add(&format!("encoder.layer.{layer}.{part}.bias"), &[out]);
        }
        norms.push(format!("encoder.layer.{layer}.attention.output.LayerNorm"));
        norms.push(format!("encoder.layer.{layer}.output.LayerNorm"));
    }
    for norm in norms {
        add(&format!("{norm}.weight"), &[WIDTH]);
        add(&format!("{norm}.bias"), &[WIDTH]);
    }
    all
}
