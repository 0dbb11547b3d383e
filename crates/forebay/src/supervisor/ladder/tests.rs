//! The ladder against random histories: whatever happens to the workers, in whatever order, only
//! allowed steps are taken, nobody serves without having shown that it may, and once things go well
//! the best level comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forebay_protocol::WorkerExit;
use rand::rngs::{SmallRng, StdRng};
use rand::{Rng, SeedableRng};

use super::*;

mod cap;
mod lapse;
mod quarantine;

const DEVICES: [Device; 3] = [Device::Cuda(0), Device::Cuda(1), Device::Cpu];

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn limits() -> Limits {
    let restarts = SupervisorConfig {
        backoff_min_ms: 200,
        backoff_max_ms: 3_000,
        restarts_max: 5,
        restart_window_ms: 60_000,
        quarantine_probe_ms: vec![1_000, 2_000],
        ..SupervisorConfig::default()
    };
    Limits { restarts, canary_interval: ms(10_000) }
}

/// A ladder with what an onlooker knows of it.
struct Watched {
    ladder: Ladder,
    now: Instant,
    states: Vec<WorkerState>,
    level: Level,
    /// Workers whose process exists.
    processes: BTreeSet<WorkerId>,
    /// Canaries that are owed.
    canaries: BTreeSet<WorkerId>,
    /// Workers that have given the known answers since they were last in doubt.
    proven: BTreeSet<WorkerId>,
    to_end: BTreeMap<WorkerId, EndCause>,
    to_drain: BTreeSet<WorkerId>,
    changes: Vec<Change>,
}

impl Watched {
    fn new(seed: u64) -> Self {
        let mut watched = Self {
            ladder: Ladder::new(&DEVICES, &limits(), StdRng::seed_from_u64(seed)),
            now: Instant::now(),
            states: vec![WorkerState::Absent; DEVICES.len()],
            level: Level::Down,
            processes: BTreeSet::new(),
            canaries: BTreeSet::new(),
            proven: BTreeSet::new(),
            to_end: BTreeMap::new(),
            to_drain: BTreeSet::new(),
            changes: Vec::new(),
        };
        watched.ladder.start(Vec::new(), false, watched.now);
        watched.look();
        watched
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::Canary(id, verdict) => {
                self.canaries.remove(id);
                if verdict.is_ok() {
                    self.proven.insert(*id);
                }
            }
            Event::Ended(id, _) => {
                assert!(self.processes.remove(id));
                self.canaries.remove(id);
                self.to_end.remove(id);
                self.to_drain.remove(id);
            }
            Event::Late(id, _) => drop(self.proven.remove(id)),
            _ => {}
        }
        self.ladder.handle(event, self.now);
        self.look();
    }

    /// Follows the actions, and checks each.
    fn look(&mut self) {
        for action in self.ladder.take_actions() {
            match action {
                Action::Launch(id) => {
                    let busy = self.processes.iter().any(|other| other.slot == id.slot);
                    assert!(!busy, "two processes on one device");
                    self.processes.insert(id);
                }
                Action::Changed(change) => {
                    let state = &mut self.states[change.id.slot];
                    assert_eq!(*state, change.from);
                    assert!(change.from.may_become(change.to), "{change:?}");
                    assert!(!change.reason.is_empty());
                    *state = change.to;
                    if change.to == WorkerState::Serving {
                        assert!(self.proven.contains(&change.id), "{change:?} without a canary");
                    }
                    self.changes.push(change);
                }
                Action::Standing(id, Standing::Serving) => {
                    assert_eq!(self.states[id.slot], WorkerState::Serving);
                }
                Action::Standing(..) => {}
                Action::Canary(id) => {
                    assert!(self.processes.contains(&id));
                    assert!(self.canaries.insert(id), "a second canary while one is owed");
                }
                Action::End(id, cause) => {
                    self.to_end.insert(id, cause);
                }
                Action::Drain(id) => {
                    self.to_drain.insert(id);
                }
                Action::Level(from, to) => {
                    assert_eq!(from, self.level);
                    self.level = to;
                }
                Action::Quarantined(..) | Action::Released(..) => {}
            }
        }
        let serving =
            DEVICES.iter().zip(&self.states).filter(|(_, state)| **state == WorkerState::Serving);
        assert_eq!(self.level, Level::of(serving.map(|(device, _)| *device)));
        assert_eq!(self.level, self.ladder.level());
        assert_eq!(self.ladder.states().collect::<Vec<_>>(), self.states);
        assert!(self.ladder.cap().is_none_or(|cap| self.level <= cap), "above the cap");
    }

    fn to(&mut self, at: Instant) {
        self.now = at.max(self.now);
        self.handle(Event::Tick);
        let next = self.ladder.next_wakeup();
        assert!(
            next.is_none_or(|next| next > self.now),
            "wakes at once after having done its work"
        );
    }

    fn of(&self, slot: usize) -> WorkerId {
        let last = self.changes.iter().rev().find(|change| change.id.slot == slot);
        last.expect("it has been started").id
    }

    /// Everything goes well for this long: workers start within 100 ms and answer.
    fn go_well(&mut self, long: Duration) {
        let until = self.now + long;
        for _ in 0..100_000 {
            if let Some((id, cause)) = self.to_end.pop_first() {
                self.handle(Event::Ended(id, cause));
            } else if let Some(id) = self.to_drain.first().copied() {
                self.handle(Event::Ended(id, EndCause::Requested));
            } else if let Some(id) = self.canaries.first().copied() {
                self.handle(Event::Canary(id, Ok(())));
            } else if let Some(slot) =
                (0..3).find(|slot| self.states[*slot] == WorkerState::Starting)
            {
                self.now += ms(100);
                self.handle(Event::Greeted(self.of(slot)));
            } else if let Some(slot) =
                (0..3).find(|slot| self.states[*slot] == WorkerState::Suspect)
            {
                self.handle(Event::CaughtUp(self.of(slot)));
            } else if let Some(slot) = (0..3).find(|slot| self.states[*slot] == WorkerState::Exited)
            {
                self.handle(Event::Ended(self.of(slot), EndCause::Signal(9)));
            } else {
                match self.ladder.next_wakeup().filter(|next| *next <= until) {
                    Some(next) => self.to(next),
                    None => return,
                }
            }
        }
        panic!("it never comes to rest");
    }

    /// Somebody releases what only somebody can.
    fn release_those_that_wait(&mut self) {
        let waits = |(slot, reason, ..): (usize, QuarantineReason, &str, Option<Duration>)| {
            (reason == QuarantineReason::Operator).then_some(slot)
        };
        let waiting: Vec<usize> = self.ladder.quarantines(self.now).filter_map(waits).collect();
        for slot in waiting {
            self.handle(Event::Released(slot));
        }
    }

    fn crash(&mut self, slot: usize) {
        let id = self.of(slot);
        self.handle(Event::Lost(id, "end of socket".to_owned()));
        self.handle(Event::Ended(id, EndCause::Signal(9)));
    }

    /// Any event that could happen now, wanted or not.
    fn anything(&mut self, random: &mut SmallRng) {
        let slot = random.random_range(0..3);
        let id = self.of(slot);
        let gone = !self.processes.contains(&id);
        let text = || "something".to_owned();
        let event = match random.random_range(0..16) {
            0 => Event::Greeted(id),
            1 => Event::Canary(id, Ok(())),
            2 if random.random_bool(0.1) => Event::Canary(id, Err(text())),
            3 => Event::Good(id),
            4 => Event::Late(id, text()),
            5 => Event::CaughtUp(id),
            6 => Event::Lost(id, text()),
            7 | 8 if !gone => {
                let causes = [
                    EndCause::Signal(9),
                    EndCause::Exit(WorkerExit::StickyCuda),
                    EndCause::StartLost(text()),
                    EndCause::StartFailed(text()),
                ];
                Event::Ended(id, causes[random.random_range(0..causes.len())].clone())
            }
            9 if !gone => Event::Unkillable(id),
            10 => Event::Device(slot, DeviceNews::Well),
            11 => Event::Device(slot, DeviceNews::Hold(text())),
            12 => Event::Device(slot, DeviceNews::Unfit(QuarantineReason::Reset, text())),
            13 => Event::Device(slot, DeviceNews::Shaken(text())),
            14 => Event::Capped([None, Some(Level::Cpu), Some(Level::Gpu(1))][slot]),
            _ => Event::Tick,
        };
        let answers = matches!(&event, Event::Canary(id, _) if !self.canaries.contains(id));
        if !answers {
            self.handle(event);
        }
    }
}

#[test]
fn whatever_happens_only_allowed_steps_are_taken_and_the_best_level_comes_back() {
    let mut reached = BTreeSet::new();
    for seed in 0..600 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut watched = Watched::new(seed);
        for _ in 0..random.random_range(0..200) {
            watched.anything(&mut random);
            if random.random_bool(0.3) {
                let next = watched.ladder.next_wakeup().filter(|_| random.random_bool(0.5));
                let wait = ms(random.random_range(0..2_000));
                watched.to(next.unwrap_or(watched.now + wait));
            }
        }
        // The faults stop, the devices are well, and somebody vouches for what is left.
        for id in watched.processes.clone() {
            if watched.states[id.slot] == WorkerState::Stuck {
                watched.handle(Event::Ended(id, EndCause::Signal(9)));
            }
        }
        watched.handle(Event::Capped(None));
        for slot in 0..3 {
            watched.handle(Event::Device(slot, DeviceNews::Well));
        }
        watched.go_well(ms(4_000_000));
        watched.release_those_that_wait();
        watched.go_well(ms(4_000_000));
        assert_eq!(watched.level, Level::Gpu(2), "seed {seed}: {:?}", watched.states);
        reached.extend(watched.changes.iter().map(|change| change.to.as_str()));
        watched.handle(Event::Shutdown);
        watched.go_well(ms(1_000));
        assert!(watched.ladder.is_down(), "seed {seed}: {:?}", watched.states);
    }
    // Draining is reached by the shutdowns, and absent is where everything ends.
    assert_eq!(reached.len(), WorkerState::ALL.len() - 2, "{reached:?}");
}

#[test]
fn the_first_start_has_no_dwell_and_each_relapse_doubles_it() {
    let mut watched = Watched::new(1);
    let start = watched.now;
    watched.go_well(ms(1));
    assert_eq!(watched.level, Level::Gpu(2));
    assert!(watched.now - start <= ms(300), "three starts of 100 ms, nothing more");
    let mut dwells = Vec::new();
    for _ in 0..4 {
        watched.crash(0);
        assert_eq!(watched.level, Level::Gpu(1), "down at once");
        watched.changes.clear();
        let mut probation = None;
        while watched.level != Level::Gpu(2) {
            let next = watched.ladder.next_wakeup().expect("something is planned");
            watched.to(next);
            watched.go_well(ms(0));
            if watched.states[0] == WorkerState::Probation {
                probation.get_or_insert(watched.now);
            }
        }
        dwells.push((watched.now - probation.expect("a probation")).as_millis());
    }
    assert_eq!(dwells, [500, 1_000, 2_000, 4_000]);
    // Ten minutes of good service, and it is forgiven.
    watched.go_well(ms(600_001));
    watched.crash(0);
    watched.go_well(ms(1_500));
    assert_eq!(watched.level, Level::Gpu(2));
}

#[test]
fn while_nothing_else_serves_a_restart_comes_soon_and_its_probation_is_over_at_once() {
    let soon = limits().restarts.backoff_alone_max() + ms(100);
    for seed in 0..20 {
        let mut watched = Watched::new(seed);
        watched.go_well(ms(1));
        for _ in 0..4 {
            for id in watched.processes.clone() {
                watched.crash(id.slot);
            }
            assert_eq!(watched.level, Level::Down);
            let down_at = watched.now;
            let next = watched.ladder.next_wakeup().expect("a restart is planned");
            watched.to(next);
            watched.go_well(ms(0));
            assert!(watched.level > Level::Down, "{:?}", watched.states);
            assert!(watched.now - down_at <= soon, "{:?}", watched.now - down_at);
        }
    }
}

#[test]
fn wrong_numbers_end_the_worker_at_once_and_the_second_time_for_good() {
    let mut watched = Watched::new(1);
    watched.go_well(ms(1));
    watched.now += ms(10_000);
    watched.to(watched.now);
    let id = watched.of(0);
    watched.handle(Event::Canary(id, Err("bit 3 of row 1".to_owned())));
    assert_eq!((watched.level, watched.to_end.contains_key(&id)), (Level::Gpu(1), true));
    watched.go_well(ms(0));
    assert_eq!(watched.states[0], WorkerState::Quarantined);
    watched.go_well(ms(5_000));
    assert_eq!(watched.states[0], WorkerState::Serving, "the probe gave right numbers");
    watched.now += ms(10_000);
    watched.to(watched.now);
    watched.handle(Event::Canary(watched.of(0), Err("bit 3 of row 1".to_owned())));
    watched.go_well(ms(100_000_000));
    assert_eq!(watched.states[0], WorkerState::Quarantined);
    watched.handle(Event::Device(0, DeviceNews::Well));
    watched.go_well(ms(100_000));
    assert_eq!(watched.states[0], WorkerState::Quarantined, "health says nothing about numbers");
    watched.handle(Event::Released(0));
    watched.go_well(ms(100_000));
    assert_eq!(watched.level, Level::Gpu(2));
}

#[test]
fn no_second_process_is_started_beside_one_that_cannot_be_killed() {
    let mut watched = Watched::new(1);
    watched.go_well(ms(1));
    let id = watched.of(0);
    watched.handle(Event::Lost(id, "late".to_owned()));
    watched.handle(Event::Unkillable(id));
    watched.go_well(ms(100_000_000));
    assert_eq!(watched.states[0], WorkerState::Stuck);
    watched.handle(Event::Ended(id, EndCause::BatchLate));
    watched.go_well(ms(100_000));
    assert_eq!(watched.level, Level::Gpu(2));
}
