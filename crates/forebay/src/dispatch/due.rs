//! Until when a worker may keep each of its batches, given how long each may take by itself.

use std::time::{Duration, Instant};

/// When a batch of a worker must be back.
///
/// A worker takes its batches one after the other, so each may take its time from when the one
/// before it must have been answered. That is the latest that can be said when it is sent: with every
/// answer the worker shows where it is, and the rest is due sooner. Otherwise what batches leave
/// unused would add up, and a hang in a long run would go unnoticed for as long.
///
/// Batches side by side wait for nothing: they are sent when the worker begins with them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) allowance: Duration,
    /// Of a batch that runs beside others.
    pub(crate) beside: bool,
}

impl Due {
    /// Of a batch behind these.
    pub(crate) fn behind(
        before: impl Iterator<Item = Self>,
        now: Instant,
        allowance: Duration,
    ) -> Self {
        let begins = before.map(|other| other.at).max().unwrap_or(now).max(now);
        Self { at: begins + allowance, allowance, beside: false }
    }

    /// Of a batch that begins now, beside others.
    pub(crate) fn beside(now: Instant, allowance: Duration) -> Self {
        Self { at: now + allowance, allowance, beside: true }
    }

    /// Nobody could be judged for so long.
    pub(crate) fn postpone(&mut self, by: Duration) {
        self.at += by;
    }

    /// A batch before or beside these has just been answered.
    pub(crate) fn advance<'a>(rest: impl Iterator<Item = &'a mut Self>, now: Instant) {
        // Those side by side have begun, and what is behind them may have to wait for each.
        let (beside, mut rest): (Vec<&mut Self>, Vec<&mut Self>) =
            rest.partition(|late| late.beside);
        rest.sort_unstable_by_key(|late| late.at);
        let mut begins = beside.iter().map(|late| late.at).max().unwrap_or(now).max(now);
        for late in rest {
            late.at = late.at.min(begins + late.allowance);
            begins = late.at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn send(in_flight: &mut Vec<Due>, now: Instant, allowance: Duration) {
        let late = Due::behind(in_flight.iter().copied(), now, allowance);
        in_flight.push(late);
    }

    #[test]
    fn batches_wait_for_those_before_them() {
        let now = Instant::now();
        let mut in_flight = Vec::new();
        send(&mut in_flight, now, SECOND);
        send(&mut in_flight, now, 2 * SECOND);
        assert_eq!([in_flight[0].at, in_flight[1].at], [now + SECOND, now + 3 * SECOND]);
        // The first one is answered at once: the second has no longer anything to wait for.
        in_flight.remove(0);
        Due::advance(in_flight.iter_mut(), now + SECOND / 10);
        assert_eq!(in_flight[0].at, now + 2 * SECOND + SECOND / 10);
    }

    #[test]
    fn unused_time_does_not_add_up_in_a_worker_that_is_never_idle() {
        let start = Instant::now();
        let mut in_flight = Vec::new();
        let mut now = start;
        for _ in 0..3 {
            send(&mut in_flight, now, SECOND);
        }
        for _ in 0..10_000 {
            now += SECOND / 100;
            in_flight.remove(0);
            Due::advance(in_flight.iter_mut(), now);
            send(&mut in_flight, now, SECOND);
            assert_eq!(in_flight[0].at, now + SECOND, "after {:?}", now - start);
            assert_eq!(in_flight[2].at, now + 3 * SECOND, "after {:?}", now - start);
        }
    }

    #[test]
    fn answers_of_other_batches_give_a_hung_one_no_more_time() {
        let start = Instant::now();
        let mut in_flight = Vec::new();
        send(&mut in_flight, start, SECOND);
        let mut now = start;
        while now < start + SECOND {
            assert_eq!(in_flight[0].at, start + SECOND);
            send(&mut in_flight, now, SECOND);
            now += SECOND / 10;
            in_flight.remove(1);
            Due::advance(in_flight.iter_mut(), now);
        }
        assert!(in_flight[0].at <= now);
    }

    #[test]
    fn batches_side_by_side_begin_when_they_are_sent_and_others_wait_for_all_of_them() {
        let now = Instant::now();
        let mut in_flight = vec![Due::beside(now, SECOND), Due::beside(now, 3 * SECOND)];
        send(&mut in_flight, now, SECOND);
        assert_eq!(in_flight[2].at, now + 4 * SECOND);
        // The first is answered; the other has as long as before.
        in_flight.remove(0);
        Due::advance(in_flight.iter_mut(), now + SECOND / 2);
        assert_eq!(in_flight[0].at, now + 3 * SECOND);
        assert_eq!(in_flight[1].at, now + 4 * SECOND);
        in_flight.remove(0);
        Due::advance(in_flight.iter_mut(), now + SECOND);
        assert_eq!(in_flight[0].at, now + 2 * SECOND);
    }
}
