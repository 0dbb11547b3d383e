//! When a rung is started again after its worker ended: a pure state machine per rung.
//!
//! A worker that ends is started again after a random wait (full jitter) below a bound that
//! doubles with each failure in a row. Too many restarts within the window, or an end that a
//! restart cannot cure, put the rung into quarantine, where it is probed at growing intervals for
//! ever: a vehicle has nobody who could start it by hand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::Rng;

use super::QuarantineReason;
use crate::config::SupervisorConfig;
use crate::supervisor::EndCause;

/// What to do after an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start it again after this wait.
    Restart(Duration),
    /// Do not count on it; probe it after this wait, if it is probed at all.
    Quarantine(QuarantineReason, Duration),
    /// Leave it.
    Stop,
}

/// The history of one rung, as far as it decides about its next start.
#[derive(Debug)]
pub(crate) struct RestartPolicy {
    limits: SupervisorConfig,
    recent: VecDeque<Instant>,
    failures_in_a_row: u32,
    probes: usize,
    serving_since: Option<Instant>,
    /// A worker of this rung has served, so its device is there or was.
    has_served: bool,
}

impl RestartPolicy {
    pub(crate) fn new(limits: SupervisorConfig) -> Self {
        Self {
            limits,
            recent: VecDeque::new(),
            failures_in_a_row: 0,
            probes: 0,
            serving_since: None,
            has_served: false,
        }
    }

    /// The worker serves.
    pub(crate) fn serving(&mut self, now: Instant) {
        self.serving_since = Some(now);
        self.has_served = true;
    }

    /// The worker ended.
    pub(crate) fn ended(&mut self, cause: &EndCause, now: Instant, random: &mut impl Rng) -> Next {
        let window = self.limits.restart_window();
        let served_for =
            self.serving_since.take().map(|since| now.saturating_duration_since(since));
        if *cause == EndCause::Requested {
            return Next::Stop;
        }
        if served_for.is_some_and(|served| served >= window) {
            self.failures_in_a_row = 0;
            self.probes = 0;
        }
        while self.recent.front().is_some_and(|at| now.saturating_duration_since(*at) >= window) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let max = self.limits.restarts_max;
        // Deaths that are far apart fill no window, but a worker that never serves is no better
        // for dying slowly.
        let too_often = self.recent.len() > max as usize || self.failures_in_a_row > max;
        let lasting = cause.lasting(self.has_served);
        if let Some(reason) = lasting.or(too_often.then_some(QuarantineReason::Intensity)) {
            let wait = self.limits.quarantine_probe(self.probes);
            self.probes += 1;
            return Next::Quarantine(reason, wait);
        }
        let doublings = (self.failures_in_a_row - 1).min(31);
        let bound =
            self.limits.backoff_min().saturating_mul(1 << doublings).min(self.limits.backoff_max());
        Next::Restart(bound.mul_f64(random.random::<f64>()))
    }
}

#[cfg(test)]
mod tests {
    use forebay_protocol::WorkerExit;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn limits() -> SupervisorConfig {
        SupervisorConfig {
            backoff_min_ms: 200,
            backoff_max_ms: 3_000,
            restarts_max: 5,
            restart_window_ms: 60_000,
            quarantine_probe_ms: vec![1_000, 2_000],
            ..SupervisorConfig::default()
        }
    }

    #[test]
    fn waits_grow_within_their_bounds_and_end_in_quarantine() {
        for seed in 0..200 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut policy = RestartPolicy::new(limits());
            let start = Instant::now();
            for failure in 0..5_u32 {
                let now = start + Duration::from_secs(u64::from(failure));
                let bound = Duration::from_millis((200 << failure).min(3_000));
                match policy.ended(&EndCause::Signal(9), now, &mut random) {
                    Next::Restart(wait) => assert!(wait <= bound, "{wait:?} above {bound:?}"),
                    other => panic!("{other:?} at failure {failure}"),
                }
            }
            let mut now = start + Duration::from_secs(6);
            for probe_ms in [1_000, 2_000, 2_000] {
                let next = policy.ended(&EndCause::Signal(9), now, &mut random);
                let wait = Duration::from_millis(probe_ms);
                assert_eq!(next, Next::Quarantine(QuarantineReason::Intensity, wait));
                now += Duration::from_secs(1);
            }
        }
    }

    #[test]
    fn a_worker_that_dies_slowly_and_never_serves_is_quarantined_too() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut policy = RestartPolicy::new(limits());
        let mut now = Instant::now();
        let restarts = (0..100).take_while(|_| {
            now += Duration::from_secs(120);
            let next = policy.ended(&EndCause::Signal(9), now, &mut random);
            matches!(next, Next::Restart(_))
        });
        assert_eq!(restarts.count(), 5);
    }

    #[test]
    fn a_long_clean_run_forgets_earlier_failures() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut policy = RestartPolicy::new(limits());
        let mut now = Instant::now();
        for _ in 0..50 {
            policy.serving(now);
            now += Duration::from_secs(61);
            let next = policy.ended(&EndCause::Exit(WorkerExit::Panic), now, &mut random);
            assert!(
                matches!(next, Next::Restart(wait) if wait <= Duration::from_millis(200)),
                "{next:?}"
            );
        }
    }

    #[test]
    fn what_a_restart_cannot_cure_is_quarantined_at_once_and_a_wish_is_obeyed() {
        let mut random = SmallRng::seed_from_u64(1);
        let now = Instant::now();
        let lasting = [
            EndCause::Exit(WorkerExit::Config),
            EndCause::StartFailed("no".into()),
            EndCause::StartLate,
        ];
        for cause in lasting {
            let next = RestartPolicy::new(limits()).ended(&cause, now, &mut random);
            let wait = Duration::from_secs(1);
            assert_eq!(next, Next::Quarantine(QuarantineReason::Start, wait));
        }
        let passing = EndCause::StartLost("the device is away".into());
        let next = RestartPolicy::new(limits()).ended(&passing, now, &mut random);
        assert!(matches!(next, Next::Restart(_)), "{next:?}");
        let next = RestartPolicy::new(limits()).ended(&EndCause::Requested, now, &mut random);
        assert_eq!(next, Next::Stop);
    }

    #[test]
    fn a_device_that_has_served_may_come_back() {
        let mut random = SmallRng::seed_from_u64(1);
        let now = Instant::now();
        let missing = [
            EndCause::StartMissing("no such device".into()),
            EndCause::Exit(WorkerExit::DeviceMissing),
        ];
        for cause in missing {
            let mut policy = RestartPolicy::new(limits());
            let next = policy.ended(&cause, now, &mut random);
            let wait = Duration::from_secs(1);
            let never_there = Next::Quarantine(QuarantineReason::Start, wait);
            assert_eq!(next, never_there);
            policy.serving(now);
            let later = now + Duration::from_secs(61);
            let next = policy.ended(&EndCause::Exit(WorkerExit::DeviceLost), later, &mut random);
            assert!(matches!(next, Next::Restart(_)), "{next:?}");
            // It is away for a while, and then for good.
            for _ in 0..4 {
                let next = policy.ended(&cause, later, &mut random);
                assert!(matches!(next, Next::Restart(_)), "{next:?}");
            }
            let next = policy.ended(&cause, later, &mut random);
            assert!(matches!(next, Next::Quarantine(QuarantineReason::Intensity, _)), "{next:?}");
        }
    }
}
