//! The invariants, checked after every step. Their names are those of docs/reliability.md.

use std::time::Duration;

use super::Violation;
use super::callers::{Effect, Text, row_of};
use super::script::{CANARY_INTERVAL, SLACK};
use super::world::World;
use crate::error::EmbedError;
use crate::priority::Priority;
use crate::reply::EmbedResult;
use crate::supervisor::{Level, WorkerState};

pub(super) type Checked = Result<(), Violation>;

impl World {
    pub(super) fn violated(&self, invariant: &'static str, found: impl Into<String>) -> Violation {
        Violation {
            seed: self.seed,
            step: self.report.steps,
            at: self.now.saturating_duration_since(self.start),
            invariant,
            found: found.into(),
        }
    }

    pub(super) fn check(&mut self) -> Checked {
        self.collect_answers()?;
        self.check_deadlines()?;
        self.check_second_runs()?;
        self.check_room()?;
        self.check_processes()?;
        self.check_level()
    }

    /// I1, I3: every answer is the right one for its text.
    fn collect_answers(&mut self) -> Checked {
        let answered: Vec<(u32, EmbedResult)> = self
            .texts
            .values()
            .filter_map(|text| text.result().map(|result| (text.number, result)))
            .collect();
        for (number, result) in answered {
            if let Some(text) = self.texts.remove(&number) {
                self.check_answer(&text, &result)?;
            }
        }
        Ok(())
    }

    fn check_answer(&mut self, text: &Text, result: &EmbedResult) -> Checked {
        let number = text.number;
        let runs = self.runs.borrow().get(&number).copied().unwrap_or(0);
        let twice = runs >= 2;
        if runs >= 3 {
            self.sometimes("a text that was not to blame ran a third time");
            if !self.not_to_blame.contains(&number) {
                let found = format!("text {number} ran {runs} times, and may be to blame");
                return Err(self.violated("I13", found));
            }
        }
        let error = match result {
            Ok(embedding) => {
                if embedding.vector != row_of(number)[..2] {
                    self.wrong_answers += 1;
                    self.sometimes("a wrong embedding was given out");
                    if !self.wrongly_computed.contains(&number) {
                        let found = format!("text {number} got another text's embedding");
                        return Err(self.violated("I3", found));
                    }
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let expected = match error {
            EmbedError::DeadlineExceeded { .. } => {
                self.sometimes("a deadline passed");
                text.deadline.is_some_and(|deadline| deadline <= self.now)
            }
            EmbedError::PoisonInput { .. } => {
                if text.effect != Effect::None {
                    self.sometimes("a poison text was named");
                }
                twice
            }
            EmbedError::InvalidResult { .. } | EmbedError::Inference { .. } => twice,
            EmbedError::Unavailable { .. } => {
                self.sometimes("a text was told that nothing serves");
                self.down.excuses(self.unheard(), self.now)
            }
            EmbedError::WorkerLost => {
                let innocent = runs >= 3 && self.not_to_blame.contains(&number);
                self.told_lost += usize::from(!innocent);
                innocent || self.told_lost <= self.reruns_refused
            }
            EmbedError::Cancelled => text.cancelled,
            EmbedError::ShuttingDown => self.stopping,
            _ => false,
        };
        if expected { Ok(()) } else { Err(self.violated("I3", format!("text {number}: {error}"))) }
    }

    /// I2: nobody waits beyond the deadline and the slack.
    fn check_deadlines(&self) -> Checked {
        let overdue = self.texts.values().find(|text| {
            let since = text.deadline.map(|deadline| deadline.max(self.stood_still_until));
            since.is_some_and(|since| since + SLACK + self.messages() < self.now)
        });
        match overdue {
            None => Ok(()),
            Some(text) => {
                let found = format!("text {} has no answer after its deadline", text.number);
                Err(self.violated("I2", found))
            }
        }
    }

    /// I13: second runs keep to their budget, by a bound that counts no parts of a window.
    fn check_second_runs(&self) -> Checked {
        if self.hedge.rerun_min > 100 {
            return Ok(());
        }
        let windows = 1.1 * self.now.saturating_duration_since(self.start).as_secs_f64()
            / self.hedge.rerun_window().as_secs_f64();
        let fixed = (windows + 1.0) * f64::from(self.hedge.rerun_min);
        let share = 2.0 * self.hedge.rerun_share_max * self.answered_texts as f64;
        let second = self.runs.borrow().values().filter(|runs| **runs >= 2).count();
        if second as f64 <= fixed + share {
            return Ok(());
        }
        let found = format!("{second} second runs for {} answers", self.answered_texts);
        Err(self.violated("I13", found))
    }

    /// I6, I7: as much room is taken as there are texts without an answer.
    fn check_room(&self) -> Checked {
        let taken: usize =
            Priority::ALL.into_iter().map(|priority| self.admission.under_way(priority)).sum();
        if taken == self.texts.len() {
            return Ok(());
        }
        Err(self.violated("I7", format!("{taken} permits for {} texts", self.texts.len())))
    }

    /// What the processes have seen, and that one which computes wrong numbers is found in time.
    fn check_processes(&mut self) -> Checked {
        for process in self.processes.values() {
            let mut process = process.borrow_mut();
            if process.unsent {
                self.report.reached.insert("a batch could not be sent");
            }
            if let Some((invariant, found)) = process.breaches.pop() {
                drop(process);
                return Err(self.violated(invariant, found));
            }
        }
        let serves = |slot: usize| self.states[slot] == WorkerState::Serving;
        // A canary waits for a free slot, and a hung worker is found by its batches.
        let limit = 2 * CANARY_INTERVAL + Duration::from_millis(1_200) + 4 * self.messages();
        for (id, at) in &self.flipped_at {
            let current = self.ladder_ids[id.slot] == *id;
            if current && serves(id.slot) && *at + limit < self.now {
                let found = format!("{id:?} computes wrong numbers since {:?}", self.now - *at);
                return Err(self.violated("I3", found));
            }
        }
        // I11: what has died is out of service soon.
        for (id, at) in &self.died_at {
            let current = self.ladder_ids[id.slot] == *id;
            if current
                && serves(id.slot)
                && *at + Duration::from_millis(80) + self.messages() < self.now
            {
                return Err(self.violated("I11", format!("{id:?} is dead and serves")));
            }
        }
        Ok(())
    }

    /// I10: the level is what the slots make it.
    fn check_level(&self) -> Checked {
        let serving = self.rungs.iter().zip(&self.states);
        let serving = serving.filter(|(_, state)| **state == WorkerState::Serving);
        let level = Level::of(serving.map(|(rung, _)| rung.device));
        if level == self.ladder.level() && level == self.level {
            return Ok(());
        }
        let found = format!("level {} for slots that make {level}", self.ladder.level());
        Err(self.violated("I10", found))
    }
}
