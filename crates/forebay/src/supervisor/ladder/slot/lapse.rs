//! A worker that is late: whether it has only lapsed for a moment or counts as fallen.
//!
//! One GPU may keep another waiting while the driver takes down a context. A worker that is late by
//! little and then answers everything has shown neither a fault nor wrong numbers: to put it on
//! probation would leave the CPU alone with what it could do. So its first lapse costs it the known
//! answers and nothing more. What stays late, is late again soon, or ends meanwhile, has fallen.

use std::time::{Duration, Instant};

use super::{Out, Slot};
use crate::dispatch::Standing;
use crate::supervisor::ladder::{Action, WorkerState};

/// Why a worker serves again that has only lapsed.
pub(crate) const LAPSED: &str = "it was late for a moment only";

/// What is known of a worker's lapses.
#[derive(Debug, Default)]
pub(super) struct Lapse {
    stage: Stage,
    last: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// None, or it has been counted as a fall.
    #[default]
    Over,
    /// Late since then, and nothing more yet.
    Late(Instant),
    /// It has answered in time, and the known answers are awaited.
    Pardoned,
}

impl Lapse {
    /// A worker that serves is late. Says whether that may be no more than a lapse.
    fn begin(&mut self, now: Instant, gap: Duration) -> bool {
        let last = self.last.replace(now);
        let again = last.is_some_and(|last| now.saturating_duration_since(last) < gap);
        self.stage = if again { Stage::Over } else { Stage::Late(now) };
        !again
    }

    /// It has answered everything. Says whether it was late for too long.
    fn end(&mut self, now: Instant, longest: Duration) -> bool {
        let Stage::Late(since) = self.stage else { return false };
        let in_time = now.saturating_duration_since(since) <= longest;
        self.stage = if in_time { Stage::Pardoned } else { Stage::Over };
        !in_time
    }

    /// Whether it has lapsed and needs no probation for it.
    pub(super) fn is_pardoned(&self) -> bool {
        self.stage == Stage::Pardoned
    }

    /// Whether there is one that has not been counted as a fall.
    pub(super) fn is_open(&self) -> bool {
        self.stage != Stage::Over
    }

    /// Ends it; says whether there was one that has not been counted as a fall.
    pub(super) fn close(&mut self) -> bool {
        std::mem::take(&mut self.stage) != Stage::Over
    }
}

impl Slot {
    pub(in crate::supervisor::ladder) fn late(
        &mut self,
        reason: String,
        now: Instant,
        out: &mut Out,
    ) {
        let restarts = &self.limits.restarts;
        let may_lapse = !restarts.lapse().is_zero();
        match self.state {
            WorkerState::Serving if may_lapse && self.lapse.begin(now, restarts.lapse_gap()) => {}
            WorkerState::Probation | WorkerState::Serving | WorkerState::Capped => {
                self.relapse(now);
            }
            // Late again before it has given the known answers: that was no lapse.
            WorkerState::Warming if self.lapse.is_pardoned() => self.relapse(now),
            WorkerState::Warming => {}
            _ => return,
        }
        self.go(WorkerState::Suspect, reason, out);
    }

    pub(in crate::supervisor::ladder) fn caught_up(&mut self, now: Instant, out: &mut Out) {
        if self.state != WorkerState::Suspect || mutated!(LeavesLateWorkersOut) {
            return;
        }
        if self.lapse.end(now, self.limits.restarts.lapse()) {
            self.relapse(now);
        }
        self.go(WorkerState::Warming, "late batches are answered", out);
        out.push(Action::Standing(self.id(), Standing::Warming));
        self.ask_for_canary(out);
    }
}
