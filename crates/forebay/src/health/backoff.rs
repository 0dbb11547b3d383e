//! When a monitor that has failed is started again. Pure.

use std::time::Duration;

/// Reports in a row after which a monitor counts as well again.
const STEADY_REPORTS: u64 = 10;

/// Waits that double from one failure to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// A monitor failed after `reports` reports: how long to wait.
    pub(super) fn failed(&mut self, reports: u64) -> Duration {
        if reports >= STEADY_REPORTS {
            self.next = self.min;
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_begin_again_after_a_steady_run() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(50));
        let mut waits: Vec<Duration> = (0..4).map(|_| backoff.failed(0)).collect();
        waits.push(backoff.failed(STEADY_REPORTS - 1));
        waits.push(backoff.failed(STEADY_REPORTS));
        waits.push(backoff.failed(1));
        assert_eq!(waits, [10, 20, 40, 50, 50, 10, 20].map(ms));
    }
}
