//! The two 16-bit formats in which the engine keeps activations and matrices.

use serde::{Deserialize, Serialize};

/// Element type of activations and matrices; every sum is taken in 32 bits regardless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE half precision: 10 bits of fraction, largest finite value 65504.
    F16,
    /// bfloat16: 7 bits of fraction, the range of f32.
    BF16,
}

impl Dtype {
    /// Size of one element.
    pub const BYTES: usize = 2;

    /// The name used in kernel names, files and messages: `f16` or `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
