//! How much company a batch waits for that is to run beside others. Knows nothing of entries or
//! queues; it never reads a clock.
//!
//! A worker that computes batches side by side takes one whenever another is done. Sealed at once,
//! batches would stay as small as what happened to wait then: with callers that ask again when they
//! are answered, small batches make small batches. So one waits for its part of all that was under
//! way at once lately: an equal part for each batch that is computed and for the one that forms, so
//! one of `side_by_side` + 1.

use std::time::Duration;

/// Part of the peak that is forgotten with each completed batch.
const FORGOTTEN: f64 = 0.1;
/// The wait for company is this part of the time that what waits will take.
const WAIT_PART: u32 = 4;

/// What was under way lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Company {
    peak_rows: f64,
}

impl Company {
    /// So many rows are in a worker or wait for it.
    pub(super) fn under_way(&mut self, rows: usize) {
        self.peak_rows = self.peak_rows.max(rows as f64);
    }

    /// A worker that computes batches side by side has computed one.
    pub(super) fn completed(&mut self) {
        self.peak_rows *= 1.0 - FORGOTTEN;
    }

    /// Rows that are company enough, of a worker that computes `side_by_side` batches. At least 1.
    pub(super) fn enough(&self, side_by_side: usize) -> usize {
        let parts = side_by_side.saturating_add(1) as f64;
        ((self.peak_rows / parts).ceil() as usize).max(1)
    }
}

/// How long the oldest entry waits for company at most: `max_wait`, or longer if what waits takes so
/// long that little is lost, but no longer than the `target` of what a batch should take.
pub(super) fn longest_wait(
    max_wait: Duration,
    expected: Option<Duration>,
    target: Duration,
) -> Duration {
    max_wait.max(target.min(expected.unwrap_or_default() / WAIT_PART))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_part_of_the_peak_is_enough_and_the_peak_is_forgotten() {
        let mut company = Company::default();
        assert_eq!(company.enough(2), 1, "nothing was seen yet");
        company.under_way(64);
        company.under_way(10);
        assert_eq!([company.enough(1), company.enough(2), company.enough(3)], [32, 22, 16]);
        company.completed();
        assert_eq!(company.enough(2), 20, "of 57.6");
        company.under_way(61);
        assert_eq!(company.enough(2), 21);
        for _ in 0..100 {
            company.completed();
        }
        assert_eq!(company.enough(2), 1);
        assert_eq!(company.enough(usize::MAX), 1);
    }

    #[test]
    fn the_wait_is_the_longer_of_the_two_and_bounded() {
        let ms = Duration::from_millis;
        let wait = |max_wait, expected| longest_wait(max_wait, expected, ms(25));
        assert_eq!(wait(ms(2), None), ms(2));
        assert_eq!(wait(ms(2), Some(ms(4))), ms(2));
        assert_eq!(wait(ms(2), Some(ms(40))), ms(10));
        assert_eq!(wait(ms(2), Some(ms(400))), ms(25));
        assert_eq!(wait(ms(50), Some(ms(400))), ms(50));
        assert_eq!(wait(Duration::MAX, Some(ms(40))), Duration::MAX);
    }
}
