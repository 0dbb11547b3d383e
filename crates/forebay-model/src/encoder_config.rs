//! The geometry of a BERT-family encoder, from `config.json`.
//!
//! Only architectures whose maths is the same post-norm encoder with learned absolute positions are
//! accepted; they differ in the tensor prefix and in the row of the position table that the first
//! token uses. Anything that would change the maths (relative positions, causal masks, pruned
//! heads, other activations) is an error here, never an approximation later.

use std::path::Path;

use serde::Deserialize;

use crate::error::ModelError;
use crate::files::{self, CONFIG_BYTES_MAX};

/// `model_type` values with plain positions, and with positions after the padding row.
const PLAIN_POSITIONS: [&str; 1] = ["bert"];
const PADDED_POSITIONS: [&str; 3] = ["roberta", "xlm-roberta", "camembert"];

/// Upper bound of every size in the configuration: far above any published encoder, and small
/// enough that products of three of them fit 64 bits.
const SIZE_MAX: u64 = 1 << 20;

/// Non-linearity between the two layers of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x·Φ(x) with the exact Gaussian distribution (`gelu`; Hendrycks and Gimpel 2016).
    GeluErf,
    /// The tanh approximation of the same paper (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// Sizes and constants of a BERT-family encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// `bert`, `roberta`, `xlm-roberta` or `camembert`.
    pub model_type: String,
    /// Width of a token's hidden state.
    pub hidden: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Rows of the word embedding table.
    pub vocab: usize,
    /// Rows of the position embedding table, including those `position_offset` skips.
    pub positions_max: usize,
    /// Row of the position table that the first token uses: 0 for BERT, `pad_id + 1` for RoBERTa.
    pub position_offset: usize,
    /// Rows of the token type table. Single texts use row 0 throughout.
    pub token_types: usize,
    /// ε of every layer normalisation.
    pub layer_norm_eps: f32,
    /// Non-linearity of the feed-forward block.
    pub activation: Activation,
    /// Token id that fills padded batches.
    pub pad_id: u32,
}

/// The keys read from `config.json`; others do not change what a single text's hidden states are.
#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    hidden_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    intermediate_size: Option<u64>,
    vocab_size: Option<u64>,
    max_position_embeddings: Option<u64>,
    type_vocab_size: Option<u64>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    pad_token_id: Option<u64>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    pruned_heads: Option<serde_json::Map<String, serde_json::Value>>,
}

impl EncoderConfig {
    /// Reads and checks `config.json`.
    ///
    /// Missing `type_vocab_size`, `layer_norm_eps`, `hidden_act` and `pad_token_id` take the values
    /// that transformers gives these architectures (2, 1e-12, `gelu`, 0 for BERT and 1 for the
    /// others); the sizes have to be there.
    ///
    /// # Errors
    /// Any [`ModelError`] about this file: missing, unreadable, unsupported or out of range.
    pub(crate) fn read(path: &Path) -> Result<Self, ModelError> {
        let raw: RawConfig = files::read_json(
            path,
            CONFIG_BYTES_MAX,
            "a model folder has the config.json that was published with the model",
        )?;
        let refuse = |key, found: String, expected: &str| ModelError::Config {
            path: path.to_owned(),
            key,
            found,
            expected: expected.to_owned(),
        };

        let model_type = raw.model_type.unwrap_or_default();
        let padded_positions = PADDED_POSITIONS.contains(&model_type.as_str());
        if !padded_positions && !PLAIN_POSITIONS.contains(&model_type.as_str()) {
            return Err(ModelError::UnsupportedArchitecture {
                path: path.to_owned(),
                found: model_type,
                supported: [PLAIN_POSITIONS.as_slice(), PADDED_POSITIONS.as_slice()]
                    .concat()
                    .join(", "),
            });
        }
        if let Some(kind) = raw.position_embedding_type.filter(|kind| kind != "absolute") {
            let expected = "\"absolute\": relative positions are another architecture";
            return Err(refuse("position_embedding_type", format!("{kind:?}"), expected));
        }
        if raw.is_decoder == Some(true) {
            let expected = "false: a causal mask is another architecture";
            return Err(refuse("is_decoder", "true".to_owned(), expected));
        }
        if raw.pruned_heads.is_some_and(|heads| !heads.is_empty()) {
            let expected = "no entry: pruned heads change the shapes of single layers";
            return Err(refuse("pruned_heads", "not empty".to_owned(), expected));
        }
        let activation = match raw.hidden_act.as_deref() {
            None | Some("gelu") => Activation::GeluErf,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => {
                let expected = "one of gelu, gelu_new, gelu_pytorch_tanh, relu";
                return Err(refuse("hidden_act", format!("{other:?}"), expected));
            }
        };
        let layer_norm_eps = raw.layer_norm_eps.unwrap_or(1e-12);
        if !(layer_norm_eps > 0.0 && layer_norm_eps < 1.0) {
            let expected = "a number above 0 and below 1";
            return Err(refuse("layer_norm_eps", layer_norm_eps.to_string(), expected));
        }

        let hidden = size(path, "hidden_size", raw.hidden_size)?;
        let heads = size(path, "num_attention_heads", raw.num_attention_heads)?;
        if !hidden.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size {hidden}");
            return Err(refuse("num_attention_heads", heads.to_string(), &expected));
        }
        let positions_max = size(path, "max_position_embeddings", raw.max_position_embeddings)?;
        let vocab = size(path, "vocab_size", raw.vocab_size)?;
        let pad_id = raw.pad_token_id.unwrap_or(u64::from(padded_positions));
        let (Ok(pad_id), true) = (u32::try_from(pad_id), pad_id < vocab as u64) else {
            let expected = format!("below vocab_size {vocab}");
            return Err(refuse("pad_token_id", pad_id.to_string(), &expected));
        };
        let position_offset = if padded_positions { pad_id as usize + 1 } else { 0 };
        if position_offset >= positions_max {
            let expected = format!("more than the {position_offset} rows reserved for padding");
            return Err(refuse("max_position_embeddings", positions_max.to_string(), &expected));
        }

        Ok(Self {
            hidden,
            layers: size(path, "num_hidden_layers", raw.num_hidden_layers)?,
            heads,
            intermediate: size(path, "intermediate_size", raw.intermediate_size)?,
            vocab,
            positions_max,
            position_offset,
            token_types: size(path, "type_vocab_size", raw.type_vocab_size.or(Some(2)))?,
            layer_norm_eps: layer_norm_eps as f32,
            activation,
            pad_id,
            model_type,
        })
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Tokens the position table has rows for, special tokens included.
    pub fn position_limit(&self) -> usize {
        self.positions_max - self.position_offset
    }
}

fn size(path: &Path, key: &'static str, value: Option<u64>) -> Result<usize, ModelError> {
    match value {
        Some(value) if (1..=SIZE_MAX).contains(&value) => Ok(value as usize),
        found => Err(ModelError::Config {
            path: path.to_owned(),
            key,
            found: found.map_or("missing".to_owned(), |value| value.to_string()),
            expected: format!("a whole number from 1 to {SIZE_MAX}"),
        }),
    }
}
