//! The dimensions of an arena, agreed in the handshake so that both sides compute one layout.

use serde::{Deserialize, Serialize};

/// How many slots an arena has and what fits into one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArenaSpec {
    /// Number of slots: the largest number of batches in flight on one worker.
    pub slots: u32,
    /// Token ids that one slot holds, all rows together.
    pub tokens_max: u32,
    /// Rows (texts) that one slot holds.
    pub rows_max: u32,
    /// `f32` values that one output row has: the unit-length embedding, then the length (L2 norm)
    /// that the pooled vector had before it was scaled.
    pub row_values: u32,
}

impl ArenaSpec {
    /// `f32` values of one output row for embeddings of this width: the unit-length embedding and
    /// one more for its length before scaling.
    #[must_use]
    pub const fn row_values_of(width: u32) -> u32 {
        width + 1
    }

    /// Length of one embedding.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.row_values.saturating_sub(1)
    }
}
