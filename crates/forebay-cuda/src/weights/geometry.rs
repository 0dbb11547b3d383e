//! Which encoders the kernels compute, and their sizes as the kernels take them.
//!
//! The kernels are compiled for a few widths and head sizes and keep whole sequences of bounded
//! length in their tiles. A model outside of that is refused here, before a byte of it is uploaded,
//! with the value that does not fit; nothing is padded, cut or approximated to make it fit.

use forebay_model::{Activation, EncoderConfig, ModelFolder, PoolingMode, PoolingSpec};

use crate::kernels::{HEAD_DIM, HIDDEN};

/// The feed-forward width is a multiple of this.
pub const INTERMEDIATE_STEP: u32 = 64;

/// Longest sequence that the attention kernel takes, in tokens.
pub const ROW_TOKENS_MAX: u32 = 512;

/// Largest feed-forward width: far above any published encoder of these hidden sizes.
const INTERMEDIATE_MAX: u32 = 16_384;

/// Most layers, a guard against nonsense: each takes memory and graph nodes.
const LAYERS_MAX: u32 = 128;

/// Sizes and constants of a supported encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Width of a token's state.
    pub hidden: u32,
    /// Encoder layers.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Width of one head; `heads * head_dim == hidden`.
    pub head_dim: u32,
    /// Width of the feed-forward block.
    pub intermediate: u32,
    /// Rows of the word table; token ids are below it.
    pub vocab: u32,
    /// Rows of the position table.
    pub positions: u32,
    /// Row of the position table that a sequence's first token uses.
    pub position_offset: u32,
    /// Longest sequence in tokens: what the position table and the attention kernel both hold.
    pub row_tokens_max: u32,
    /// ε of every layer normalisation.
    pub eps: f32,
    /// Non-linearity of the feed-forward block.
    pub activation: Activation,
    /// How token states become one row.
    pub pooling: PoolingMode,
}

/// A size of the model that the kernels do not compute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model's {what} is {value}; the CUDA engine supports {supported}: run this model with \
     device = \"cpu\""
)]
pub struct GeometryError {
    /// The size, as `config.json` or the sentence configuration calls it.
    pub what: &'static str,
    /// The model's value.
    pub value: u64,
    /// What would be accepted.
    pub supported: String,
}

impl Geometry {
    /// The geometry of the model in `folder`.
    ///
    /// # Errors
    /// [`GeometryError`] for the first size that is not supported.
    pub fn of_folder(folder: &ModelFolder) -> Result<Self, GeometryError> {
        Self::of(folder.encoder(), folder.pooling(), folder.tokens_max())
    }

    /// Checks a configuration. `tokens_max` is the longest text that the model is to be given.
    ///
    /// # Errors
    /// [`GeometryError`] for the first size that is not supported.
    pub fn of(
        config: &EncoderConfig,
        pooling: &PoolingSpec,
        tokens_max: usize,
    ) -> Result<Self, GeometryError> {
        let refuse = |what, value: usize, supported: String| {
            Err(GeometryError { what, value: value as u64, supported })
        };
        let Some(hidden) = one_of(config.hidden, &HIDDEN) else {
            return refuse("hidden_size", config.hidden, list(&HIDDEN));
        };
        let Some(head_dim) = one_of(config.head_dim(), &HEAD_DIM) else {
            let what = "head size (hidden_size / num_attention_heads)";
            return refuse(what, config.head_dim(), list(&HEAD_DIM));
        };
        let intermediate = up_to(config.intermediate, INTERMEDIATE_MAX)
            .filter(|width| width.is_multiple_of(INTERMEDIATE_STEP));
        let Some(intermediate) = intermediate else {
            let supported = format!("multiples of {INTERMEDIATE_STEP} up to {INTERMEDIATE_MAX}");
            return refuse("intermediate_size", config.intermediate, supported);
        };
        let Some(layers) = up_to(config.layers, LAYERS_MAX) else {
            return refuse("num_hidden_layers", config.layers, format!("1 to {LAYERS_MAX}"));
        };
        if tokens_max > ROW_TOKENS_MAX as usize {
            let supported = format!("texts of up to {ROW_TOKENS_MAX} tokens");
            return refuse("max_seq_length", tokens_max, supported);
        }
        // The configuration bounds every size by 2^20.
        let (Ok(vocab), Ok(positions), Ok(position_offset)) = (
            u32::try_from(config.vocab),
            u32::try_from(config.positions_max),
            u32::try_from(config.position_offset),
        ) else {
            return refuse("vocab_size", config.vocab, "32-bit sizes".to_owned());
        };
        Ok(Self {
            hidden,
            layers,
            heads: hidden / head_dim,
            head_dim,
            intermediate,
            vocab,
            positions,
            position_offset,
            row_tokens_max: positions.saturating_sub(position_offset).min(ROW_TOKENS_MAX),
            eps: config.layer_norm_eps,
            activation: config.activation,
            pooling: pooling.mode,
        })
    }

    /// `f32` values of one output row: the unit-length embedding, then its length before scaling.
    #[must_use]
    pub fn row_values(&self) -> u32 {
        self.hidden + 1
    }

    /// Widest row of any activation: the fused projections or the feed-forward block.
    #[must_use]
    pub fn widest(&self) -> u32 {
        (3 * self.hidden).max(self.intermediate)
    }
}

fn one_of(value: usize, supported: &[u32]) -> Option<u32> {
    supported.iter().copied().find(|&known| known as usize == value)
}

fn up_to(value: usize, max: u32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| (1..=max).contains(value))
}

fn list(values: &[u32]) -> String {
    let values: Vec<String> = values.iter().map(u32::to_string).collect();
    values.join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The configuration of a published encoder, by its sizes.
    fn config(hidden: usize, layers: usize, heads: usize) -> EncoderConfig {
        EncoderConfig {
            model_type: "bert".to_owned(),
            hidden,
            layers,
            heads,
            intermediate: 4 * hidden,
            vocab: 30_522,
            positions_max: 512,
            position_offset: 0,
            token_types: 2,
            layer_norm_eps: 1e-12,
            activation: Activation::GeluErf,
            pad_id: 0,
        }
    }

    const POOLING: PoolingSpec = PoolingSpec { mode: PoolingMode::Mean, normalize: true };

    /// A small supported geometry, for the tests of other modules.
    pub(crate) fn mini() -> Geometry {
        Geometry::of(&config(384, 6, 12), &POOLING, 256).unwrap()
    }

    #[test]
    fn the_three_published_families_are_supported() {
        for (hidden, layers, heads, head_dim) in
            [(384, 6, 12, 32), (768, 12, 12, 64), (1024, 24, 16, 64)]
        {
            let geometry = Geometry::of(&config(hidden, layers, heads), &POOLING, 512).unwrap();
            assert_eq!(geometry.head_dim, head_dim);
            assert_eq!(geometry.heads * geometry.head_dim, geometry.hidden);
            assert_eq!(geometry.row_values(), geometry.hidden + 1);
            assert_eq!(geometry.row_tokens_max, 512);
            assert_eq!(geometry.widest(), 4 * geometry.hidden);
        }
    }

    #[test]
    fn positions_after_padding_rows_shorten_the_longest_text() {
        let padded = EncoderConfig { positions_max: 130, position_offset: 2, ..config(384, 6, 12) };
        assert_eq!(Geometry::of(&padded, &POOLING, 128).unwrap().row_tokens_max, 128);
        let long = EncoderConfig { positions_max: 8194, position_offset: 2, ..config(384, 6, 12) };
        assert_eq!(Geometry::of(&long, &POOLING, 512).unwrap().row_tokens_max, ROW_TOKENS_MAX);
    }

    #[test]
    fn a_refusal_names_the_value_and_what_is_supported() {
        let base = config(384, 6, 12);
        let expect = |config: &EncoderConfig, tokens_max, what: &str, value: &str| {
            let error = Geometry::of(config, &POOLING, tokens_max).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(value), "{error}");
            assert!(error.contains("supports"), "{error}");
        };
        expect(&EncoderConfig { hidden: 512, ..base.clone() }, 256, "hidden_size", "512");
        expect(&EncoderConfig { heads: 4, ..base.clone() }, 256, "head size", "96");
        let narrow = EncoderConfig { intermediate: 1000, ..base.clone() };
        expect(&narrow, 256, "intermediate_size", "1000");
        expect(&EncoderConfig { layers: 4096, ..base.clone() }, 256, "num_hidden_layers", "4096");
        expect(&base, 513, "max_seq_length", "513");
    }
}
