//! The sizes and constants that a self-test runs with.

use forebay_model::{Activation, EncoderConfig, PoolingMode, PoolingSpec};

/// What of a model decides which kernels it uses and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Width of a token's hidden state.
    pub hidden: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Non-linearity of the feed-forward block.
    pub activation: Activation,
    /// ε of every layer normalisation.
    pub layer_norm_eps: f32,
    /// Tokens of the longest sequence.
    pub positions: usize,
    /// How the rows of a sequence become one.
    pub pooling: PoolingMode,
}

impl Shape {
    /// The shape of a model; sequences are as long as its positions allow, at most 512.
    #[must_use]
    pub fn of(config: &EncoderConfig, pooling: &PoolingSpec) -> Self {
        Self {
            hidden: config.hidden,
            heads: config.heads,
            intermediate: config.intermediate,
            activation: config.activation,
            layer_norm_eps: config.layer_norm_eps,
            positions: config.position_limit().min(512),
            pooling: pooling.mode,
        }
    }

    /// Width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Shapes that together use every kernel: each hidden width, head width and activation.
    #[must_use]
    pub fn all() -> [Self; 4] {
        let shape = |hidden: usize, heads, activation, layer_norm_eps| Self {
            hidden,
            heads,
            intermediate: 4 * hidden,
            activation,
            layer_norm_eps,
            positions: 512,
            pooling: PoolingMode::Mean,
        };
        [
            shape(384, 12, Activation::GeluErf, 1e-12),
            shape(384, 6, Activation::Relu, 1e-5),
            shape(768, 12, Activation::GeluTanh, 1e-12),
            shape(1024, 16, Activation::GeluErf, 1e-5),
        ]
    }
}
