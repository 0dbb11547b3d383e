//! One file of a model folder whose others are sound: the first byte says which, the rest is it.

use std::cell::OnceCell;
use std::path::Path;

use forebay_model::{EncoderWeights, ModelFolder};
use tempfile::TempDir;

/// What a sound folder has. The weights are no whole model: reading them ends with what is missing.
const FILES: [(&str, &str); 8] = [
    (
        "config.json",
        r#"{"model_type":"bert","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,
        "intermediate_size":8,"vocab_size":6,"max_position_embeddings":8,"type_vocab_size":2,
        "layer_norm_eps":1e-12,"hidden_act":"gelu","pad_token_id":0}"#,
    ),
    (
        "modules.json",
        r#"[{"idx":0,"path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]"#,
    ),
    ("1_Pooling/config.json", r#"{"word_embedding_dimension":4,"pooling_mode_mean_tokens":true}"#),
    ("sentence_bert_config.json", r#"{"max_seq_length":8,"do_lower_case":false}"#),
    ("model.safetensors", "\u{2}\0\0\0\0\0\0\0{}"),
    ("model.safetensors.index.json", ""),
    (
        "tokenizer.json",
        r###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "decoder":null,"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,
        "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
        "max_input_chars_per_word":100,"vocab":{"[PAD]":0,"[UNK]":1,"a":2,"b":3,"c":4,"d":5}}}"###,
    ),
    ("manifest.json", ""),
];

/// Longer weights say nothing more and take time.
const BYTES_MAX: usize = 1 << 16;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// Opens the folder with that file in it, and reads weights and tokenizer.
pub fn model_files(data: &[u8]) {
    let Some((which, content)) = data.split_first() else { return };
    let (name, sound) = FILES[usize::from(*which) % FILES.len()];
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(sound_folder).path();
        write(folder, name, &content[..content.len().min(BYTES_MAX)]);
        if name == "model.safetensors.index.json" {
            std::fs::remove_file(folder.join("model.safetensors")).expect("it is there");
        }
        look(folder);
        write(folder, name, sound.as_bytes());
        write(folder, "model.safetensors", FILES[4].1.as_bytes());
    });
}

fn look(folder: &Path) {
    let Ok(folder) = ModelFolder::open(folder) else { return };
    if let Ok(weights) = folder.weights() {
        for name in weights.names() {
            if let Ok(view) = weights.get(name) {
                view.to_f32().ok();
            }
        }
        EncoderWeights::from(&weights, folder.encoder()).ok();
    }
    if let Ok(tokenizer) = folder.tokenizer() {
        tokenizer.tokenize("a b\u{e4} c", true).ok();
        tokenizer.decode(&[0, 2, 5], true).ok();
    }
}

fn sound_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("1_Pooling")).expect("a folder can be made");
    for (name, content) in FILES {
        write(folder.path(), name, content.as_bytes());
    }
    folder
}

/// Writes a file of the folder; one without content is not there.
fn write(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    if content.is_empty() {
        std::fs::remove_file(path).ok();
    } else {
        std::fs::write(path, content).expect("a file can be written");
    }
}
