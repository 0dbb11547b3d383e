//! Where the time of a batch went on the device. The stages only see how long it took to enqueue
//! the work, so the last one corrects what they measured.

use std::time::{Duration, Instant};

use forebay_cuda::StageTimes;
use forebay_protocol::BatchTimes;

use crate::work::saturating_us;

/// What became of the time from the encoder's turn to the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Waiting: for a buffer of token states, then behind the batch before.
    queued: Duration,
    infer: Duration,
    pool: Duration,
}

impl Spent {
    /// Judges a batch whose infer stage began at `start`, waited `for_buffer` and whose rows were
    /// there at `end`; the rows of the batch before were there at `before_end`. If events keep the
    /// time, `device` has what encoder and pooling took; otherwise all of it counts as encoder.
    pub(super) fn new(
        start: Instant,
        for_buffer: Duration,
        before_end: Option<Instant>,
        end: Instant,
        device: &StageTimes,
    ) -> Self {
        let ready = start + for_buffer;
        // The device runs one encoder after the other.
        let begun = before_end.map_or(ready, |before| before.max(ready));
        let queued = begun.saturating_duration_since(start);
        if device.infer.us > 0.0 {
            let us = |us: f64| Duration::try_from_secs_f64(us / 1e6).unwrap_or_default();
            return Self { queued, infer: us(device.infer.us), pool: us(device.pool.us) };
        }
        Self { queued, infer: end.saturating_duration_since(begun), pool: Duration::ZERO }
    }

    /// What the stages `measured`, with the time of the device in place of theirs.
    pub(super) fn correct(self, measured: BatchTimes) -> BatchTimes {
        BatchTimes {
            wait_us: measured.wait_us.saturating_add(saturating_us(self.queued)),
            infer_us: saturating_us(self.infer),
            pool_us: saturating_us(self.pool),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_cuda::StageSpan;

    use super::*;

    const ENQUEUED: BatchTimes = BatchTimes { wait_us: 5, infer_us: 7, pool_us: 2 };

    fn times(for_buffer_us: u64, before_us: Option<u64>, device: &StageTimes) -> BatchTimes {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let for_buffer = Duration::from_micros(for_buffer_us);
        Spent::new(start, for_buffer, before_us.map(at), at(1000), device).correct(ENQUEUED)
    }

    #[test]
    fn waiting_is_told_from_computing() {
        let none = StageTimes::default();
        let expected = |wait_us, infer_us| BatchTimes { wait_us, infer_us, pool_us: 0 };
        assert_eq!(times(0, None, &none), expected(5, 1000));
        assert_eq!(times(300, None, &none), expected(305, 700));
        // The batch before ended after this one had its buffer, or long ago.
        assert_eq!(times(300, Some(400), &none), expected(405, 600));
        assert_eq!(times(300, Some(0), &none), expected(305, 700));
    }

    #[test]
    fn events_know_better() {
        let span = |us| StageSpan { start_us: 0.0, us };
        let device = StageTimes { infer: span(250.0), pool: span(12.0), ..StageTimes::default() };
        let expected = BatchTimes { wait_us: 105, infer_us: 250, pool_us: 12 };
        assert_eq!(times(100, None, &device), expected);
    }
}
