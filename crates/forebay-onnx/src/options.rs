//! What a session can be told, with the defaults that measurement chose (`docs/cpu-engine.md`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::OnnxError;

/// Arithmetic of the encoder's dense layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    F32,
    /// Dense layers in 8-bit integers: weights per output column, activations per token. Embeddings,
    /// attention products, softmax, activation and normalisation stay single precision.
    Int8,
}

impl FromStr for Precision {
    type Err = OnnxError;

    fn from_str(name: &str) -> Result<Self, OnnxError> {
        match name {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(OnnxError::UnknownPrecision { found: name.to_owned() }),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// How a batch is cut into runs.
///
/// Rows are sorted by length, and those whose length rounded up to `width_step` is the same share an
/// attention block: the width of a row's block depends on nothing but its own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubBatchLimits {
    /// Rows in one run at most.
    pub rows_max: usize,
    /// Tokens in one run at most, each row counted with its rounded length. A row that is longer
    /// on its own runs alone.
    pub tokens_max: usize,
    /// Row lengths are rounded up to a multiple of this, in tokens.
    pub width_step: usize,
    /// Different rounded lengths in one run at most. In a graph built from safetensors each has
    /// its own attention block, while the other layers see the tokens of all rows. Runs of an
    /// exported graph have one whatever this says.
    pub widths_max: usize,
}

impl Default for SubBatchLimits {
    fn default() -> Self {
        Self { rows_max: 64, tokens_max: 1024, width_step: 8, widths_max: 3 }
    }
}

/// How a session is loaded.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Path of ONNX Runtime's shared library (`libonnxruntime.so`).
    pub library: PathBuf,
    /// Arithmetic of the dense layers.
    pub precision: Precision,
    /// Threads that share one run, the calling thread included; at least 1.
    pub intra_threads: usize,
    /// Whether idle threads of the pool spin for a while before they sleep: lower latency of a
    /// single text for a core that is never idle. Without effect when `intra_threads` is 1.
    pub spinning: bool,
    /// How batches are cut.
    pub sub_batch: SubBatchLimits,
}

impl EngineOptions {
    /// Refuses values that no session can work with.
    pub(crate) fn check(&self) -> Result<(), OnnxError> {
        let limits = self.sub_batch;
        let options = [
            ("intra_threads", self.intra_threads, 1024),
            ("sub_batch.rows_max", limits.rows_max, 1 << 16),
            ("sub_batch.tokens_max", limits.tokens_max, 1 << 20),
            ("sub_batch.width_step", limits.width_step, 1 << 10),
            ("sub_batch.widths_max", limits.widths_max, 16),
        ];
        for (option, value, max) in options {
            if value == 0 || value > max {
                let expected = match max {
                    16 => "from 1 to 16",
                    1024 => "from 1 to 1024",
                    0x1_0000 => "from 1 to 65536",
                    _ => "from 1 to 1048576",
                };
                return Err(OnnxError::Option { option, value, expected });
            }
        }
        Ok(())
    }
}
