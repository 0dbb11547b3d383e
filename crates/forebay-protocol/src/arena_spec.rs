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
    /// Length of one embedding in `f32` values.
    pub width: u32,
}
