//! The world of one history: a clock, what is due when, and the parts that pass messages.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::rngs::{SmallRng, StdRng};
use rand::{Rng, SeedableRng};

use super::callers::{Effect, Text, Wish, submit};
use super::checks::Checked;
use super::faults::SimFault;
use super::process::Process;
use super::script::{self, HEAL, RungScript};
use super::{Report, Violation};
use crate::admission::Admission;
use crate::config::Device;
use crate::dispatch::WorkerId;
use crate::dispatch::core::Core;
use crate::error::EmbedError;
use crate::metrics::Metrics;
use crate::request::Pending;
use crate::simulation::process::SimWorker;
use crate::supervisor::{DeviceNews, EndCause, Ladder, LadderEvent, Level, WorkerState};

pub(super) const SOMETIMES: &[&str] = &[
    "a deadline passed",
    "a level of two GPUs",
    "a poison text was named",
    "a process could not be killed",
    "a relapse was put on probation",
    "a rung was quarantined for failing too often",
    "a rung was quarantined for a reset",
    "a rung was quarantined for wrong numbers",
    "a rung waited for somebody to release it",
    "a start failed",
    "a text was refused at the gate",
    "a text was told that nothing serves",
    "a text was withdrawn",
    "a twin had been answered before",
    "a worker was late",
    "a worker that was late caught up",
    "a wrong embedding was given out",
    "an answer's checksum was wrong",
    "nothing served",
    "only the CPU served",
    "the budget of second runs was used up",
    "two GPUs were lost at once",
];

/// What will happen at a moment.
pub(super) enum Due {
    Burst,
    Cancel(u32),
    Arrive(Vec<Pending>),
    Computed(WorkerId, u64),
    Released(WorkerId),
    ToCore(super::parts::ToCore),
    ToLadder(LadderEvent),
    Ready(WorkerId),
    Dies(WorkerId, EndCause),
    Lose(WorkerId, String),
    Kill(WorkerId, EndCause),
    Stuck(WorkerId),
    Reap(WorkerId, EndCause),
    Fault(usize, SimFault),
    Well(usize),
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: SmallRng,
    pub(super) start: Instant,
    pub(super) now: Instant,
    due: BTreeMap<(Instant, u64), Due>,
    number: u64,
    /// Messages to one part arrive in the order in which they were sent.
    last_to_core: Instant,
    last_to_ladder: Instant,
    pub(super) core: Core<SimWorker>,
    pub(super) ladder: Ladder,
    pub(super) admission: Arc<Admission>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) rungs: Vec<RungScript>,
    pub(super) processes: BTreeMap<WorkerId, Rc<RefCell<Process>>>,
    pub(super) states: Vec<WorkerState>,
    /// The latest worker of each slot, by the ladder's changes.
    pub(super) ladder_ids: Vec<WorkerId>,
    pub(super) level: Level,
    /// Workers that have given the known answers since they were last in doubt.
    pub(super) proven: BTreeSet<WorkerId>,
    pub(super) failing_starts: Vec<u32>,
    pub(super) flipped_at: BTreeMap<WorkerId, Instant>,
    pub(super) died_at: BTreeMap<WorkerId, Instant>,
    pub(super) texts: BTreeMap<u32, Text>,
    next_text: u32,
    /// How often each text has been handed to a process.
    pub(super) runs: Rc<RefCell<BTreeMap<u32, u32>>>,
    pub(super) effects: BTreeMap<u32, Effect>,
    /// Texts that a worker with flipped weights has given an answer to.
    pub(super) wrongly_computed: BTreeSet<u32>,
    pub(super) wrong_answers: u64,
    /// Something has happened that makes `Unavailable` a right answer.
    pub(super) excuse_for_unavailable: bool,
    pub(super) stopping: bool,
    /// No more faults.
    pub(super) calm: bool,
    pub(super) report: Report,
}

/// One set of handles for all histories of this process: nothing reads them.
fn metrics() -> Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    Arc::clone(METRICS.get_or_init(|| Arc::new(Metrics::new())))
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let start = Instant::now();
        let rungs = script::rungs(&mut random);
        let devices: Vec<Device> = rungs.iter().map(|rung| rung.device).collect();
        let admission = Admission::new(&script::admission());
        let metrics = metrics();
        let settings = script::core_settings(&mut random, admission.capacity());
        let core = Core::new(settings, Arc::clone(&metrics), start);
        let waits = StdRng::seed_from_u64(seed);
        let slots = rungs.len();
        let mut world = Self {
            seed,
            random,
            start,
            now: start,
            due: BTreeMap::new(),
            number: 0,
            last_to_core: start,
            last_to_ladder: start,
            core,
            ladder: Ladder::new(&devices, &script::limits(), waits),
            admission,
            metrics,
            rungs,
            processes: BTreeMap::new(),
            states: vec![WorkerState::Absent; slots],
            ladder_ids: (0..slots).map(|slot| WorkerId { slot, incarnation: 0 }).collect(),
            level: Level::Down,
            proven: BTreeSet::new(),
            failing_starts: vec![0; slots],
            flipped_at: BTreeMap::new(),
            died_at: BTreeMap::new(),
            texts: BTreeMap::new(),
            next_text: 0,
            runs: Rc::default(),
            effects: BTreeMap::new(),
            wrongly_computed: BTreeSet::new(),
            wrong_answers: 0,
            excuse_for_unavailable: false,
            stopping: false,
            calm: false,
            report: Report::default(),
        };
        world.plan();
        world
    }

    /// Draws the load and the faults.
    fn plan(&mut self) {
        let length = Duration::from_millis(self.random.random_range(300..3_000));
        for _ in 0..self.random.random_range(4..24) {
            let at = length.mul_f64(self.random.random());
            self.at(self.start + at, Due::Burst);
        }
        for starts in &mut self.failing_starts {
            if self.random.random_bool(0.1) {
                *starts = self.random.random_range(1..3);
            }
        }
        for _ in 0..self.random.random_range(0..7) {
            let at = self.start + length.mul_f64(self.random.random());
            let fault = SimFault::any(&mut self.random);
            let both = self.random.random_bool(0.2);
            let slot = self.random.random_range(0..self.rungs.len());
            for other in 0..self.rungs.len() {
                if other == slot || both {
                    self.at(at, Due::Fault(other, fault));
                }
            }
        }
    }

    pub(super) fn at(&mut self, at: Instant, due: Due) {
        self.number += 1;
        self.due.insert((at, self.number), due);
    }

    pub(super) fn soon(&mut self, within_us: u64, due: Due) {
        let wait = Duration::from_micros(self.random.random_range(0..within_us));
        self.at(self.now + wait, due);
    }

    /// A message to the dispatcher, which takes a moment.
    pub(super) fn tell_core(&mut self, message: super::parts::ToCore) {
        let wait = Duration::from_micros(self.random.random_range(0..300));
        self.last_to_core = self.last_to_core.max(self.now + wait);
        self.at(self.last_to_core, Due::ToCore(message));
    }

    /// A message to the supervisor, which takes a moment.
    pub(super) fn tell_ladder(&mut self, event: LadderEvent) {
        let wait = Duration::from_micros(self.random.random_range(0..500));
        self.last_to_ladder = self.last_to_ladder.max(self.now + wait);
        self.at(self.last_to_ladder, Due::ToLadder(event));
    }

    pub(super) fn sometimes(&mut self, place: &'static str) {
        debug_assert!(SOMETIMES.contains(&place), "{place:?} is not listed");
        self.report.reached.insert(place);
    }

    /// The whole history.
    pub(super) fn run(mut self) -> Result<Report, Violation> {
        self.ladder.start(Vec::new(), self.now);
        self.follow()?;
        while !self.due.is_empty() && self.report.steps < 200_000 && !self.is_idle() {
            self.step()?;
        }
        self.heal()?;
        self.shut_down()?;
        self.report.elapsed = self.now.saturating_duration_since(self.start);
        Ok(self.report)
    }

    /// Nothing of what was drawn from the seed is left to happen.
    fn is_idle(&self) -> bool {
        let drawn = |due: &Due| {
            matches!(due, Due::Burst | Due::Fault(..) | Due::Arrive(_) | Due::Cancel(_))
        };
        !self.due.values().any(drawn)
    }

    /// The faults stop, the devices are well, somebody releases what waits for it. Then everything
    /// is answered and the best level comes back.
    fn heal(&mut self) -> Checked {
        self.calm = true;
        let deadline = self.now + HEAL;
        let ids: Vec<WorkerId> = self.processes.keys().copied().collect();
        for id in ids {
            self.change(id, |process| process.slow = 1);
        }
        self.failing_starts.fill(0);
        let best = Level::of(self.rungs.iter().map(|rung| rung.device));
        let mut released = false;
        loop {
            let at_rest = self.texts.is_empty() && self.level == best;
            if at_rest && self.states.iter().all(|state| *state == WorkerState::Serving) {
                return Ok(());
            }
            if self.now > deadline {
                let found = format!(
                    "level {} of {best}, slots {:?}, {} texts without an answer {HEAL:?} after the \
                     last fault",
                    self.level,
                    self.states,
                    self.texts.len()
                );
                return Err(self.violated("I16", found));
            }
            // Whoever waits for somebody is released when everything else has had its time.
            let had_time = self.now + HEAL / 2 > deadline;
            if !released && had_time {
                released = true;
                self.release_all();
            }
            if !self.step()? {
                if !std::mem::replace(&mut released, true) {
                    self.release_all();
                    continue;
                }
                let found = format!("nothing will ever happen again; slots {:?}", self.states);
                return Err(self.violated("I16", found));
            }
        }
    }

    fn release_all(&mut self) {
        for slot in 0..self.rungs.len() {
            if self.states[slot] == WorkerState::Quarantined {
                self.tell_ladder(LadderEvent::Released(slot));
            }
        }
    }

    /// I18: an end in order answers everything and leaves nothing running.
    fn shut_down(&mut self) -> Checked {
        for _ in 0..self.random.random_range(0..3) {
            self.burst();
        }
        self.stopping = true;
        self.admission.close(EmbedError::ShuttingDown);
        self.core.set_draining();
        let deadline = self.now + Duration::from_secs(10);
        let mut asked = false;
        while !self.ladder.is_down() {
            if !asked && self.texts.is_empty() {
                asked = true;
                self.tell_ladder(LadderEvent::Shutdown);
            }
            if self.now > deadline || !self.step()? {
                let found = format!("slots {:?}, {} texts", self.states, self.texts.len());
                return Err(self.violated("I18", found));
            }
        }
        Ok(())
    }

    /// Goes to the next moment at which anything is due; `false` if there is none.
    pub(super) fn step(&mut self) -> Result<bool, Violation> {
        let due = self.due.keys().next().map(|&(at, _)| at);
        let wakes = [due, self.core.next_wakeup(self.now), self.ladder.next_wakeup()];
        let Some(at) = wakes.into_iter().flatten().min() else { return Ok(false) };
        self.report.steps += 1;
        self.now = at.max(self.now);
        while let Some((&key, _)) = self.due.iter().next().filter(|&(&(at, _), _)| at <= self.now) {
            if let Some(due) = self.due.remove(&key) {
                self.happen(due)?;
            }
        }
        if self.ladder.next_wakeup().is_some_and(|at| at <= self.now) {
            self.ladder.handle(LadderEvent::Tick, self.now);
            self.follow()?;
        }
        self.core.pump(self.now);
        self.admission.set_backlog(self.core.vital_signs(self.now).backlog);
        self.admission.set_limits(self.core.texts_allowed(self.admission.all_under_way()));
        if self.core.next_wakeup(self.now).is_some_and(|at| at <= self.now) {
            return Err(self.violated("I8", "the dispatcher wakes at once after its work"));
        }
        self.hear_core();
        self.compute();
        self.check()?;
        Ok(true)
    }

    fn happen(&mut self, due: Due) -> Checked {
        match due {
            Due::Burst => self.burst(),
            Due::Arrive(texts) => self.core.accept(texts, self.now),
            Due::Cancel(number) => {
                if let Some(text) = self.texts.get_mut(&number) {
                    text.cancelled = true;
                    text.group.cancel();
                    self.sometimes("a text was withdrawn");
                    self.core.sweep_cancelled();
                }
            }
            Due::Fault(slot, fault) => self.inject(slot, fault),
            Due::Well(slot) => self.tell_ladder(LadderEvent::Device(slot, DeviceNews::Well)),
            other => return self.pass(other),
        }
        Ok(())
    }

    /// Some texts are submitted together.
    fn burst(&mut self) {
        let mut accepted = Vec::new();
        for _ in 0..self.random.random_range(1..30) {
            let mut wish = Wish::any(&mut self.random);
            if !self.calm && self.random.random_bool(0.003) {
                let kills = self.random.random_bool(0.6);
                wish.effect = if kills { Effect::Kills } else { Effect::Hangs };
            }
            let number = self.next_text;
            match submit(number, &wish, &self.admission, &self.metrics, self.now) {
                Ok((text, pending)) => {
                    self.next_text += 1;
                    self.report.texts += 1;
                    self.effects.insert(number, wish.effect);
                    self.texts.insert(number, text);
                    accepted.push(pending);
                    if self.random.random_bool(0.02) {
                        self.soon(50_000, Due::Cancel(number));
                    }
                }
                Err(_) => self.sometimes("a text was refused at the gate"),
            }
        }
        // The tokenizers take a moment.
        self.soon(500, Due::Arrive(accepted));
    }
}
