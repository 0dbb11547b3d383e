//! The tensors of a BERT-family encoder under one set of names.
//!
//! Published files differ in a prefix (none, `bert.`, `roberta.`) and, for the oldest, in calling a
//! layer normalisation's scale and shift `gamma` and `beta`. Engines see neither: they get every
//! tensor by its role with its shape checked against the configuration. Values are not checked
//! here; [`WeightView::to_f32`] does that while it converts.

use crate::encoder_config::EncoderConfig;
use crate::error::ModelError;
use crate::weights::{WeightView, Weights};

/// Prefixes of the encoder's tensors: saved alone, or as part of a model with a head.
const PREFIXES: [&str; 3] = ["", "bert.", "roberta."];

/// A dense layer, y = x·weightᵀ + bias.
#[derive(Debug, Clone)]
pub struct Linear<'a> {
    /// `[out, in]`.
    pub weight: WeightView<'a>,
    /// `[out]`.
    pub bias: WeightView<'a>,
}

/// A layer normalisation's scale and shift.
#[derive(Debug, Clone)]
pub struct Norm<'a> {
    /// Scale, `[hidden]`.
    pub gamma: WeightView<'a>,
    /// Shift, `[hidden]`.
    pub beta: WeightView<'a>,
}

/// The tensors of one encoder layer.
#[derive(Debug, Clone)]
pub struct LayerWeights<'a> {
    /// Query projection, `[hidden, hidden]`; head h owns rows h·head_dim and on.
    pub query: Linear<'a>,
    /// Key projection, `[hidden, hidden]`.
    pub key: Linear<'a>,
    /// Value projection, `[hidden, hidden]`.
    pub value: Linear<'a>,
    /// Projection of the joined heads, `[hidden, hidden]`.
    pub attention_output: Linear<'a>,
    /// Normalisation after attention and its residual.
    pub attention_norm: Norm<'a>,
    /// First layer of the feed-forward block, `[intermediate, hidden]`.
    pub intermediate: Linear<'a>,
    /// Second layer of the feed-forward block, `[hidden, intermediate]`.
    pub output: Linear<'a>,
    /// Normalisation after the feed-forward block and its residual.
    pub output_norm: Norm<'a>,
}

/// All tensors of an encoder.
#[derive(Debug, Clone)]
pub struct EncoderWeights<'a> {
    /// Word embeddings, `[vocab, hidden]`.
    pub word: WeightView<'a>,
    /// Position embeddings, `[positions_max, hidden]`.
    pub position: WeightView<'a>,
    /// Token type embeddings, `[token_types, hidden]`.
    pub token_type: WeightView<'a>,
    /// Normalisation of the summed embeddings.
    pub embedding_norm: Norm<'a>,
    /// The layers, first to last.
    pub layers: Vec<LayerWeights<'a>>,
}

impl<'a> EncoderWeights<'a> {
    /// Finds every tensor that `config` asks for.
    ///
    /// # Errors
    /// [`ModelError::TensorMissing`], [`ModelError::TensorType`] or [`ModelError::TensorShape`] for
    /// the first tensor that is not there, cannot be computed with, or contradicts `config`.
    pub fn from(weights: &'a Weights, config: &EncoderConfig) -> Result<Self, ModelError> {
        let prefix = PREFIXES
            .into_iter()
            .find(|prefix| weights.contains(&format!("{prefix}embeddings.word_embeddings.weight")))
            .unwrap_or_default();
        let find = Finder { weights, prefix };
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let layer = |index: usize| -> Result<LayerWeights<'a>, ModelError> {
            let at = |part: &str| format!("encoder.layer.{index}.{part}");
            Ok(LayerWeights {
                query: find.linear(&at("attention.self.query"), hidden, hidden)?,
                key: find.linear(&at("attention.self.key"), hidden, hidden)?,
                value: find.linear(&at("attention.self.value"), hidden, hidden)?,
                attention_output: find.linear(&at("attention.output.dense"), hidden, hidden)?,
                attention_norm: find.norm(&at("attention.output.LayerNorm"), hidden)?,
                intermediate: find.linear(&at("intermediate.dense"), intermediate, hidden)?,
                output: find.linear(&at("output.dense"), hidden, intermediate)?,
                output_norm: find.norm(&at("output.LayerNorm"), hidden)?,
            })
        };
        let table = |name: &str, rows: usize| {
            find.tensor(&format!("embeddings.{name}_embeddings.weight"), &[rows, hidden])
        };
        Ok(Self {
            word: table("word", config.vocab)?,
            position: table("position", config.positions_max)?,
            token_type: table("token_type", config.token_types)?,
            embedding_norm: find.norm("embeddings.LayerNorm", hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
        })
    }
}

struct Finder<'a> {
    weights: &'a Weights,
    prefix: &'static str,
}

impl<'a> Finder<'a> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<WeightView<'a>, ModelError> {
        let view = self.weights.get(&format!("{}{name}", self.prefix))?;
        view.expect_shape(shape)?;
        Ok(view)
    }

    fn linear(&self, name: &str, out: usize, input: usize) -> Result<Linear<'a>, ModelError> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"), &[out, input])?,
            bias: self.tensor(&format!("{name}.bias"), &[out])?,
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm<'a>, ModelError> {
        let old = self.weights.contains(&format!("{}{name}.gamma", self.prefix));
        let (gamma, beta) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        Ok(Norm {
            gamma: self.tensor(&format!("{name}.{gamma}"), &[width])?,
            beta: self.tensor(&format!("{name}.{beta}"), &[width])?,
        })
    }
}
