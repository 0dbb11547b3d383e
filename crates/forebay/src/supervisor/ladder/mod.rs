//! The ladder: what each slot (a device and the worker on it) is doing, and what service level the
//! slots make together. A pure state machine: events and the time go in, actions come out.
//!
//! Down is at once: whatever happens to a worker takes its slot out of service in the same step. Up
//! is slow: a start, the known answers (a *canary* batch), and a probation whose length (the
//! *dwell*) doubles with each relapse. While nothing else serves, the probation is over at once: a
//! worker that has given the known answers is better than none.
//!
//! [`slot`] is one slot, [`state`] says which steps there are, [`restarts`] when a slot whose
//! worker ended is started again. Nothing here starts, signals or waits for anything.

mod cap;
mod restarts;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

pub use self::state::{QuarantineReason, WorkerState};

#[cfg(any(test, feature = "simulation"))]
pub(crate) use self::slot::LAPSED;
use self::slot::Slot;
use super::EndCause;
use super::level::Level;
use crate::config::{Device, SupervisorConfig};
use crate::dispatch::{Standing, WorkerId};

/// What happens to the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A worker is ready.
    Greeted(WorkerId),
    /// A worker has given the known answers, or others.
    Canary(WorkerId, Result<(), String>),
    /// A worker on probation has done some work well.
    Good(WorkerId),
    /// A worker is later with a batch than it should be, and gets no more work.
    Late(WorkerId, String),
    /// A worker that was late has answered everything.
    CaughtUp(WorkerId),
    /// A worker answers no more; its process is being ended, or has.
    Lost(WorkerId, String),
    /// A worker's process is gone.
    Ended(WorkerId, EndCause),
    /// A worker's process does not end although it was killed.
    Unkillable(WorkerId),
    /// What is known of the device of a slot has changed.
    Device(usize, DeviceNews),
    /// Somebody says that a slot may be used again, whatever put it into quarantine.
    Released(usize),
    /// No level above this one is to be used; `None` lifts the cap.
    Capped(Option<Level>),
    /// Everything is to end in order.
    Shutdown,
    /// Time has passed.
    Tick,
}

/// What the ladder needs to know of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeviceNews {
    /// It is well.
    Well,
    /// Nothing is known of it; that is no reason to trust it more, nor less.
    Unknown,
    /// It should not be given more than it has.
    Hold(String),
    /// Something happened to it that may have hurt what runs there.
    Shaken(String),
    /// It cannot be used until something is done about it.
    Unfit(QuarantineReason, String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a worker.
    Launch(WorkerId),
    /// Let a worker have this much of the work.
    Standing(WorkerId, Standing),
    /// Ask a worker for the known answers.
    Canary(WorkerId),
    /// End a worker at once.
    End(WorkerId, EndCause),
    /// Ask a worker to finish and end.
    Drain(WorkerId),
    /// A slot went from one state to another; for the books.
    Changed(Change),
    /// A slot went into quarantine: why, in words, and how long until it is probed.
    Quarantined(usize, QuarantineReason, String, Option<Duration>),
    /// A slot is out of quarantine, by a probe that succeeded or by somebody's word.
    Released(usize, ReleasedBy),
    /// The service level changed.
    Level(Level, Level),
}

/// What ended a quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleasedBy {
    /// It was started and has shown that it can serve.
    Ladder,
    /// Somebody said so.
    Operator,
}

impl ReleasedBy {
    /// The name in the event log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ladder => "ladder",
            Self::Operator => "operator",
        }
    }
}

/// One step of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) id: WorkerId,
    pub(crate) from: WorkerState,
    pub(crate) to: WorkerState,
    pub(crate) reason: String,
}

/// A quarantine that an earlier run of this program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) slot: usize,
    pub(crate) reason: QuarantineReason,
    pub(crate) detail: String,
    /// How long until it is probed, if its reason is one that is probed.
    pub(crate) probe_after: Duration,
}

/// The numbers that the ladder goes by.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) restarts: SupervisorConfig,
    /// From one check of the known answers to the next while a worker serves.
    pub(crate) canary_interval: Duration,
}

/// The slots of one runtime, best device first.
pub(crate) struct Ladder {
    slots: Vec<Slot>,
    random: StdRng,
    level: Level,
    /// The operator's.
    cap: Option<Level>,
    stopping: bool,
    actions: Vec<Action>,
}

impl Ladder {
    /// Slots that have yet to be started by [`Ladder::start`]. Waits are drawn from `random`.
    pub(crate) fn new(devices: &[Device], limits: &Limits, random: StdRng) -> Self {
        let slot = |(index, device): (usize, &Device)| Slot::new(index, *device, limits.clone());
        Self {
            slots: devices.iter().enumerate().map(slot).collect(),
            random,
            level: Level::Down,
            cap: None,
            stopping: false,
            actions: Vec::new(),
        }
    }

    /// Starts every slot that no earlier run has left in quarantine; the last one, the CPU, first:
    /// it is what answers before any other is ready.
    /// With `watched` something will be heard of the devices.
    pub(crate) fn start(&mut self, restored: Vec<Restored>, watched: bool, now: Instant) {
        for restored in restored {
            if let Some(slot) = self.slots.get_mut(restored.slot) {
                slot.restore(restored, watched, now, &mut self.actions);
            }
        }
        for slot in self.slots.iter_mut().rev() {
            slot.launch_first(&mut self.actions);
        }
        self.settle(now);
    }

    /// Takes an event in. What it leads to is in [`Ladder::take_actions`].
    pub(crate) fn handle(&mut self, event: Event, now: Instant) {
        let Self { slots, actions: out, random, stopping, cap, .. } = self;
        if let Event::Capped(level) = event {
            *cap = level;
        }
        if event == Event::Shutdown {
            *stopping = true;
            slots.iter_mut().for_each(|slot| slot.shut_down(out));
        }
        // News of a worker that has been replaced is of no interest.
        let slot = match &event {
            Event::Greeted(id)
            | Event::Canary(id, _)
            | Event::Good(id)
            | Event::Late(id, _)
            | Event::CaughtUp(id)
            | Event::Lost(id, _)
            | Event::Ended(id, _)
            | Event::Unkillable(id) => slots.get_mut(id.slot).filter(|slot| slot.id() == *id),
            Event::Device(index, _) | Event::Released(index) => slots.get_mut(*index),
            Event::Capped(_) | Event::Shutdown | Event::Tick => None,
        };
        if let Some(slot) = slot {
            match event {
                Event::Greeted(_) => slot.greeted(out),
                Event::Canary(_, verdict) => slot.canary(verdict, now, out),
                Event::Good(_) => slot.good(),
                Event::Late(_, reason) => slot.late(reason, now, out),
                Event::CaughtUp(_) => slot.caught_up(now, out),
                Event::Lost(_, reason) => slot.lost(reason, now, out),
                Event::Ended(_, cause) => slot.ended(&cause, *stopping, now, random, out),
                Event::Unkillable(_) => slot.unkillable(now, out),
                Event::Device(_, news) => slot.device_news(news, now, out),
                Event::Released(_) => slot.release(now, out),
                Event::Capped(_) | Event::Shutdown | Event::Tick => {}
            }
        }
        self.settle(now);
    }

    /// What is to be done, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] must come although nothing happens.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        self.slots.iter().filter_map(Slot::next_wakeup).min()
    }

    /// The service level.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// The slots that are in quarantine: why, in words, and how long until they are probed.
    pub(crate) fn quarantines(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (usize, QuarantineReason, &str, Option<Duration>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(move |(index, slot)| {
            slot.quarantine(now).map(|(reason, detail, wait)| (index, reason, detail, wait))
        })
    }

    /// The operator's cap on it.
    pub(crate) fn cap(&self) -> Option<Level> {
        self.cap
    }

    /// The states of the slots.
    pub(crate) fn states(&self) -> impl Iterator<Item = WorkerState> {
        self.slots.iter().map(Slot::state)
    }

    /// Whether no slot serves, is on its way to, or can be expected to soon.
    pub(crate) fn is_hopeless(&self) -> bool {
        !self.slots.iter().any(Slot::raises_hope)
    }

    /// Whether every slot has come to the end of its first start, well or not.
    pub(crate) fn is_settled(&self) -> bool {
        self.slots.iter().all(Slot::is_settled)
    }

    /// Whether nothing is left to wait for at a shutdown. A process that cannot be killed is not
    /// waited for.
    pub(crate) fn is_down(&self) -> bool {
        let over = |state| matches!(state, WorkerState::Absent | WorkerState::Stuck);
        self.stopping && self.states().all(over)
    }

    /// Does what is due now, and says what level that makes.
    fn settle(&mut self, now: Instant) {
        if !self.stopping {
            for slot in &mut self.slots {
                slot.tick(now, &mut self.actions);
            }
            self.keep_to_cap();
            for index in 0..self.slots.len() {
                let others = self.slots.iter().enumerate().filter(|(other, _)| *other != index);
                let alone =
                    !others.into_iter().any(|(_, slot)| slot.state() == WorkerState::Serving);
                self.slots[index].promote_if_due(alone, now, &mut self.actions);
            }
            if !self.slots.iter().any(Slot::serves_or_has_lapsed) {
                for slot in &mut self.slots {
                    slot.hurry(now);
                }
            }
        }
        let serving = self.slots.iter().filter(|slot| slot.state() == WorkerState::Serving);
        let level = Level::of(serving.map(Slot::device));
        if level != self.level && !(mutated!(KeepsLevel) && level < self.level) {
            self.actions.push(Action::Level(self.level, level));
            self.level = level;
        }
    }
}
