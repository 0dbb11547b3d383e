//! Settings of the known answers that find a device which computes wrong numbers.

use std::time::Duration;

use super::declare::Allowed::{Integer, Number};
use super::declare::group;

group! {
    /// A few fixed texts that each worker computes before it serves, then now and then: their
    /// embeddings must never change, and must be much the same on every device.
    CanaryConfig as "canary" {
        /// Smallest cosine between embeddings of one text by two devices; below it one of them is
        /// wrong. Arithmetic of fewer bits agrees less: 0.98 leaves room for int8.
        cosine_min: f64 = 0.98, "", Number(0.5, 1.0);
        /// How often a worker that serves computes them: so long may wrong numbers go unnoticed.
        interval_ms: u32 = 10_000, "ms", Integer(100, 3_600_000);
    }
}

impl CanaryConfig {
    /// `interval_ms` as a duration.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms as u64)
    }
}
