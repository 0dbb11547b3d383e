//! When a fault showed, cost the level and was over, from looks at a runtime's status. Pure: the
//! caller looks, and says when.

use std::time::Duration;

use forebay::config::Device;
use forebay::{Level, WorkerState, WorkerStatus};

/// What has been seen of one fault; times count from its injection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Every worker concerned had stopped serving, or was another one already.
    pub(super) detected: Option<Duration>,
    /// The level was lower.
    pub(super) demoted: Option<Duration>,
    /// The level was what it had been, by workers started since.
    pub(super) healed: Option<Duration>,
}

/// Looks out for the effects of one fault.
pub(super) struct Watch {
    best: Level,
    /// The devices concerned, with the incarnation of each that is to suffer.
    before: Vec<(Device, u64)>,
    seen: Seen,
}

impl Watch {
    /// Before the injection, with the level that is to come back.
    pub(super) fn new(best: Level, devices: &[Device], workers: &[WorkerStatus]) -> Self {
        let incarnation =
            |device: &Device| (*device, find(workers, *device).map_or(0, |w| w.incarnation));
        Self { best, before: devices.iter().map(incarnation).collect(), seen: Seen::default() }
    }

    /// A look, `at` so long after the injection.
    pub(super) fn look(&mut self, at: Duration, level: Level, workers: &[WorkerStatus]) {
        let states = self.before.iter().map(|(device, before)| match find(workers, *device) {
            Some(worker) => (worker.state == WorkerState::Serving, worker.incarnation > *before),
            None => (false, false),
        });
        let states: Vec<(bool, bool)> = states.collect();
        let Seen { detected, demoted, healed } = &mut self.seen;
        let suffers = !states.is_empty() && states.iter().all(|(serves, new)| !serves || *new);
        if suffers {
            detected.get_or_insert(at);
        }
        if level < self.best {
            demoted.get_or_insert(at);
        }
        if detected.is_some()
            && level >= self.best
            && states.iter().all(|(serves, new)| *serves && *new)
        {
            // It may have been away between two looks.
            demoted.get_or_insert(at);
            healed.get_or_insert(at);
        }
    }

    /// What has been seen so far.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether something is wrong that has not healed.
    pub(super) fn is_open(&self) -> bool {
        (self.seen.detected.is_some() || self.seen.demoted.is_some()) && self.seen.healed.is_none()
    }
}

fn find(workers: &[WorkerStatus], device: Device) -> Option<&WorkerStatus> {
    let name = device.to_string();
    workers.iter().find(|worker| worker.device == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: Device = Device::Cuda(0);
    const BEST: Level = Level::Gpu(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn worker(state: WorkerState, incarnation: u64) -> [WorkerStatus; 1] {
        [WorkerStatus {
            device: GPU.to_string(),
            state,
            since: Duration::ZERO,
            pid: None,
            incarnation,
            restarts: 0,
            engine: String::new(),
            precision: String::new(),
            details: Default::default(),
            start_time: None,
            last_end: None,
        }]
    }

    #[test]
    fn a_fault_shows_costs_the_level_and_heals() {
        let mut watch = Watch::new(BEST, &[GPU], &worker(WorkerState::Serving, 1));
        watch.look(ms(1), BEST, &worker(WorkerState::Serving, 1));
        assert_eq!((watch.seen(), watch.is_open()), (Seen::default(), false));
        watch.look(ms(2), Level::Cpu, &worker(WorkerState::Backoff, 1));
        assert!(watch.is_open());
        watch.look(ms(3), Level::Cpu, &worker(WorkerState::Starting, 2));
        watch.look(ms(9), BEST, &worker(WorkerState::Serving, 2));
        watch.look(ms(10), BEST, &worker(WorkerState::Serving, 2));
        let seen = Seen { detected: Some(ms(2)), demoted: Some(ms(2)), healed: Some(ms(9)) };
        assert_eq!((watch.seen(), watch.is_open()), (seen, false));
    }

    #[test]
    fn what_happened_between_two_looks_is_seen_by_the_incarnation() {
        let mut watch = Watch::new(BEST, &[GPU], &worker(WorkerState::Serving, 1));
        watch.look(ms(5), BEST, &worker(WorkerState::Serving, 2));
        let seen = Seen { detected: Some(ms(5)), demoted: Some(ms(5)), healed: Some(ms(5)) };
        assert_eq!(watch.seen(), seen);
    }

    #[test]
    fn a_fault_of_no_device_shows_by_the_level_at_most() {
        let mut watch = Watch::new(BEST, &[], &worker(WorkerState::Serving, 1));
        watch.look(ms(5), BEST, &worker(WorkerState::Serving, 1));
        assert_eq!(watch.seen(), Seen::default());
    }
}
