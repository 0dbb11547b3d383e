//! The world of one history: a clock, what is due when, and the parts that pass messages.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::rngs::{SmallRng, StdRng};
use rand::{Rng, SeedableRng};

use super::callers::{Effect, Text, Wish, submit};
use super::checks::Checked;
use super::faults::SimFault;
use super::process::Process;
use super::script::{self, RungScript};
use super::stalls::{Downtime, Holds};
use super::{Report, Violation};
use crate::admission::Admission;
use crate::config::{Device, HedgeConfig};
use crate::dispatch::WorkerId;
use crate::dispatch::core::{Core, IDLE};
use crate::metrics::Metrics;
use crate::request::Pending;
use crate::simulation::process::SimWorker;
use crate::supervisor::{DeviceNews, EndCause, Ladder, LadderEvent, Level, WorkerState};

pub(super) const SOMETIMES: &[&str] = &[
    "batches were computed side by side",
    "a batch could not be sent",
    "a deadline passed",
    "a lapse was forgiven",
    "a level of two GPUs",
    "a poison text was named",
    "a process could not be killed",
    "a relapse was put on probation",
    "a quarantine was left by an earlier run",
    "a rung was quarantined for failing too often",
    "a rung was quarantined for a reset",
    "a rung was quarantined for wrong numbers",
    "a rung waited for somebody to release it",
    "a start failed",
    "a text that was not to blame ran a third time",
    "a text was refused at the gate",
    "a text was told that nothing serves",
    "a text was withdrawn",
    "a twin had been answered before",
    "a worker on probation computed texts",
    "a worker stood still and went on",
    "a worker was late",
    "a worker that was late caught up",
    "a wrong embedding was given out",
    "an answer's checksum was wrong",
    "everything stood still",
    "good news was left out",
    "nothing served",
    "only the CPU served",
    "the host stood still",
    "the budget of second runs was used up",
    "two GPUs were lost at once",
    "what could not be killed handed back its texts",
];

/// Steps after which a history that goes on has something in it that turns in a circle.
const STEPS_MAX: u64 = 200_000;

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
    Resumes(WorkerId),
    Stuck(WorkerId),
    Reap(WorkerId, EndCause),
    Fault(usize, SimFault),
    Well(usize),
    StandsStill(Duration, Holds),
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: SmallRng,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) due: BTreeMap<(Instant, u64), Due>,
    number: u64,
    /// Messages to one part arrive in the order in which they were sent.
    pub(super) last_to_core: Instant,
    pub(super) last_to_ladder: Instant,
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
    /// Texts that were in a worker which was ended for something else.
    pub(super) not_to_blame: BTreeSet<u32>,
    /// By worker, for each canary that the ladder has yet to hear of, the wrong ones among the
    /// embeddings that it gave out before.
    pub(super) wrong_replies: BTreeMap<WorkerId, VecDeque<u64>>,
    pub(super) answered_texts: usize,
    pub(super) hedge: HedgeConfig,
    /// Second runs that were not granted, and texts that were told so.
    pub(super) reruns_refused: usize,
    pub(super) told_lost: usize,
    pub(super) down: Downtime,
    pub(super) busy_until: Instant,
    /// The supervisor has room for half of the good news only.
    pub(super) is_deaf: bool,
    pub(super) stood_still_until: Instant,
    pub(super) stood_still_for: Option<Duration>,
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
        let hedge = script::hedging(&mut random);
        let settings = script::core_settings(hedge.clone(), admission.capacity());
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
            not_to_blame: BTreeSet::new(),
            wrong_replies: BTreeMap::new(),
            answered_texts: 0,
            hedge,
            reruns_refused: 0,
            told_lost: 0,
            down: Downtime::new(start),
            busy_until: start,
            is_deaf: seed.is_multiple_of(2),
            stood_still_until: start,
            stood_still_for: None,
            stopping: false,
            calm: false,
            report: Report::default(),
        };
        world.plan();
        world
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
        let wait = self.message_time(300);
        self.last_to_core = self.last_to_core.max(self.now + wait);
        self.at(self.last_to_core, Due::ToCore(message));
    }

    /// A message to the supervisor, which takes a moment.
    pub(super) fn tell_ladder(&mut self, event: LadderEvent) {
        let wait = self.message_time(500);
        self.last_to_ladder = self.last_to_ladder.max(self.now + wait);
        self.at(self.last_to_ladder, Due::ToLadder(event));
    }

    pub(super) fn sometimes(&mut self, place: &'static str) {
        debug_assert!(SOMETIMES.contains(&place), "{place:?} is not listed");
        self.report.reached.insert(place);
    }

    /// The whole history.
    pub(super) fn run(mut self) -> Result<Report, Violation> {
        let left = self.left_in_quarantine();
        self.ladder.start(left, false, self.now);
        self.follow()?;
        while !self.due.is_empty() && self.report.steps < STEPS_MAX && !self.is_idle() {
            self.step()?;
        }
        // Now and then it ends in the middle of its faults.
        if self.random.random_bool(0.9) {
            self.heal()?;
        }
        self.shut_down()?;
        self.report.elapsed = self.now.saturating_duration_since(self.start);
        Ok(self.report)
    }

    /// Nothing of what was drawn from the seed is left to happen.
    fn is_idle(&self) -> bool {
        let drawn = |due: &Due| {
            matches!(
                due,
                Due::Burst
                    | Due::Fault(..)
                    | Due::Arrive(_)
                    | Due::Cancel(_)
                    | Due::StandsStill(..)
            )
        };
        !self.due.values().any(drawn)
    }

    /// Goes to the next moment at which anything is due; `false` if there is none.
    pub(super) fn step(&mut self) -> Result<bool, Violation> {
        let due = self.due.keys().next().map(|&(at, _)| at);
        let wakes = [due, self.core.next_wakeup(self.now), self.ladder.next_wakeup()];
        let Some(at) = wakes.into_iter().flatten().min() else { return Ok(false) };
        let at = at.min(self.now + IDLE);
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
            if self.ladder.next_wakeup().is_some_and(|at| at <= self.now) {
                return Err(self.violated("I16", "the ladder wakes at once after its work"));
            }
        }
        if self.report.steps > STEPS_MAX {
            return Err(self.violated("I16", "it never comes to rest"));
        }
        self.turn()?;
        self.compute();
        self.check()?;
        Ok(true)
    }

    /// The dispatcher goes round its loop.
    pub(super) fn turn(&mut self) -> Checked {
        self.core.pump(self.now);
        self.admission.set_backlog(self.core.vital_signs(self.now).backlog);
        self.admission
            .set_limits(self.core.texts_allowed(self.admission.all_under_way(), self.now));
        if self.core.next_wakeup(self.now).is_some_and(|at| at <= self.now) {
            return Err(self.violated("I8", "the dispatcher wakes at once after its work"));
        }
        self.hear_core()
    }

    fn happen(&mut self, due: Due) -> Checked {
        match due {
            Due::Burst => self.burst(),
            Due::Arrive(texts) => self.core.accept(texts),
            Due::Cancel(number) => {
                if let Some(text) = self.texts.get_mut(&number) {
                    text.cancelled = true;
                    text.group.cancel();
                    self.sometimes("a text was withdrawn");
                    self.core.sweep_cancelled();
                }
            }
            Due::StandsStill(length, holds) => return self.stand_still(length, holds),
            Due::Fault(slot, fault) => self.inject(slot, fault),
            Due::Well(slot) => self.tell_ladder(LadderEvent::Device(slot, DeviceNews::Well)),
            other => return self.pass(other),
        }
        Ok(())
    }

    /// Some texts are submitted together.
    pub(super) fn burst(&mut self) {
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
