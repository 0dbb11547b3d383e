//! Times of a run: whole microseconds, as they stand in its history.

use std::time::{Duration, Instant};

/// A time in microseconds.
pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds from `zero` to `moment`; 0 for what was before.
pub(crate) fn us_since(zero: Instant, moment: Instant) -> u64 {
    us(moment.saturating_duration_since(zero))
}
