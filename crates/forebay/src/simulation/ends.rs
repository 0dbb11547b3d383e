//! How a history ends: the faults stop, everything heals, and the runtime ends in order.

use std::time::Duration;

use rand::Rng;

use super::checks::Checked;
use super::parts::ToCore;
use super::script::{HEAL, REAP_DEADLINE};
use super::world::{Due, World};
use crate::dispatch::{EndedWorker, WorkerId};
use crate::error::EmbedError;
use crate::supervisor::{DeviceNews, LadderEvent, Level, QuarantineReason, WorkerState};

impl World {
    /// The faults stop, the devices are well, somebody releases what waits for it. Then everything
    /// is answered and the best level comes back.
    pub(super) fn heal(&mut self) -> Checked {
        self.calm = true;
        let deadline = self.now + HEAL;
        let ids: Vec<WorkerId> = self.processes.keys().copied().collect();
        for id in ids {
            self.change(id, |process| process.slow = 1);
        }
        self.failing_starts.fill(0);
        for slot in 0..self.rungs.len() {
            self.tell_ladder(LadderEvent::Device(slot, DeviceNews::Well));
        }
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

    /// Somebody releases the rungs that only somebody can.
    fn release_all(&mut self) {
        let waits = |(slot, reason, ..): (usize, QuarantineReason, &str, Option<Duration>)| {
            (reason == QuarantineReason::Operator).then_some(slot)
        };
        let waiting: Vec<usize> = self.ladder.quarantines(self.now).filter_map(waits).collect();
        for slot in waiting {
            self.tell_ladder(LadderEvent::Released(slot));
        }
    }

    /// I18: an end in order answers everything and leaves nothing running. What is not done within
    /// its time is answered all the same.
    pub(super) fn shut_down(&mut self) -> Checked {
        for _ in 0..self.random.random_range(0..3) {
            self.burst();
        }
        self.stopping = true;
        self.admission.close(EmbedError::ShuttingDown);
        self.core.set_draining();
        let drain = match self.random.random_bool(0.5) {
            true => HEAL,
            false => Duration::from_millis(self.random.random_range(0..40)),
        };
        let drained_by = self.now + drain;
        let deadline = self.now + drain + REAP_DEADLINE * 10;
        let mut asked = false;
        while !self.ladder.is_down() {
            let is_late = self.now >= drained_by;
            if !asked && (self.texts.is_empty() || is_late) {
                asked = true;
                if is_late {
                    self.tell_core(ToCore::AnswerAll(EmbedError::ShuttingDown));
                }
                self.tell_ladder(LadderEvent::Shutdown);
            }
            if self.now > deadline || !self.step()? {
                let found = format!("slots {:?}, {} texts", self.states, self.texts.len());
                return Err(self.violated("I18", found));
            }
        }
        self.stop()
    }

    /// The dispatcher reads to the end what it was told, and answers what is left.
    fn stop(&mut self) -> Checked {
        for (_, due) in std::mem::take(&mut self.due) {
            match due {
                Due::ToCore(message) => self.core_hears(message),
                Due::Arrive(texts) => {
                    texts.into_iter().for_each(|text| text.refuse(EmbedError::ShuttingDown));
                }
                _ => {}
            }
        }
        // What cannot be killed hands back what it has when its supervisor ends.
        for (id, process) in std::mem::take(&mut self.processes) {
            let batches = process.borrow_mut().abandon();
            if !batches.is_empty() {
                self.sometimes("what could not be killed handed back its texts");
            }
            self.core_hears(ToCore::Ended(EndedWorker { id, batches, requested: true }));
        }
        self.core.answer_all(&EmbedError::ShuttingDown);
        self.check()?;
        match self.texts.len() {
            0 => Ok(()),
            texts => Err(self.violated("I18", format!("{texts} texts have no answer at the end"))),
        }
    }
}
