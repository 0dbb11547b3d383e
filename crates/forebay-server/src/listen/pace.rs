//! How long a transfer may stand still: pure arithmetic over instants.
//!
//! A transfer begins with a credit of time. Every byte earns more at the slowest rate that is put up
//! with, up to the first credit again. So a client may pause, but not for long, and not again and
//! again: whoever stays below the rate runs out.

use std::time::{Duration, Instant};

use forebay::config::LimitsConfig;

/// What a transfer is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    stall_max: Duration,
    bytes_per_s_min: u32,
}

impl Pace {
    pub(crate) fn of(limits: &LimitsConfig) -> Self {
        Self {
            stall_max: Duration::from_millis(limits.transfer_stall_ms.into()),
            bytes_per_s_min: limits.transfer_bytes_per_s_min,
        }
    }

    /// The same rate with another longest pause.
    pub(crate) fn with_pause(self, stall_max: Duration) -> Self {
        Self { stall_max, ..self }
    }

    /// When a transfer that begins now is given up if nothing arrives.
    pub(crate) fn begin(self, now: Instant) -> Instant {
        now + self.stall_max
    }

    /// The same after `bytes` have arrived.
    pub(crate) fn after(self, deadline: Instant, bytes: usize, now: Instant) -> Instant {
        let earned = bytes as f64 / f64::from(self.bytes_per_s_min.max(1));
        // More than the cap below could use is not worth the exact number.
        let earned = Duration::from_secs_f64(earned.min(1e9));
        // A deadline that has passed meanwhile was missed by whoever should have looked, not by the
        // other end.
        (deadline.max(now) + earned).min(now + self.stall_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { stall_max: Duration::from_secs(10), bytes_per_s_min: 1_000 };

    /// How long a transfer of this many bytes each second is put up with.
    fn lasts(bytes_per_s: usize, seconds: u64) -> Option<u64> {
        let start = Instant::now();
        let mut deadline = PACE.begin(start);
        for second in 1..=seconds {
            let now = start + Duration::from_secs(second);
            if deadline < now {
                return Some(second);
            }
            deadline = PACE.after(deadline, bytes_per_s, now);
        }
        None
    }

    #[test]
    fn who_keeps_the_rate_goes_on_and_who_does_not_runs_out() {
        assert_eq!(lasts(1_000, 10_000), None);
        assert_eq!(lasts(0, 100), Some(11));
        // Half of the rate costs half a second each second.
        assert_eq!(lasts(500, 100), Some(20));
    }

    proptest! {
        #[test]
        fn nothing_buys_more_than_one_pause(bytes in any::<usize>(), later_ms in 0_u64..100_000) {
            let start = Instant::now();
            let now = start + Duration::from_millis(later_ms);
            let deadline = PACE.after(PACE.begin(start), bytes, now);
            prop_assert!(deadline <= now + PACE.stall_max);
            prop_assert!(deadline >= PACE.begin(start).min(now + PACE.stall_max));
        }
    }
}
