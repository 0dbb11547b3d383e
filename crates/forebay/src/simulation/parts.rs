//! The parts between dispatcher, ladder and processes, which in service are actors and threads: who
//! tells whom what happened to a process, and what follows from what the ladder says.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng;

use super::checks::Checked;
use super::process::{Process, SimWorker};
use super::script::{KILL_GRACE, REAP_DEADLINE};
use super::world::{Due, World};
use crate::dispatch::core::FailedRows;
use crate::dispatch::port::{BatchDone, CanaryDone, EndedBatch};
use crate::dispatch::{EndedWorker, Standing, WorkerId, WorkerNews};
use crate::error::EmbedError;
use crate::supervisor::{
    Change, EndCause, LAPSED, LadderAction, LadderEvent, Level, QuarantineReason, WorkerState,
};

/// A message to the dispatcher.
pub(super) enum ToCore {
    Up(SimWorker),
    Standing(WorkerId, Standing),
    Canary(WorkerId),
    Completed(BatchDone),
    Failed(FailedRows),
    CanaryDone(CanaryDone),
    CanaryFailed(WorkerId),
    Leaving(WorkerId),
    Lost(WorkerId, Vec<EndedBatch>, bool),
    Ended(EndedWorker),
    NoHope(String),
    AnswerAll(EmbedError),
}

impl World {
    /// What is on its way between the parts arrives.
    pub(super) fn pass(&mut self, due: Due) -> Checked {
        match due {
            Due::ToCore(message) => self.core_hears(message),
            Due::ToLadder(event) => {
                match &event {
                    LadderEvent::Canary(id, Ok(())) => {
                        self.proven.insert(*id);
                    }
                    LadderEvent::Late(id, _) => {
                        self.proven.remove(id);
                    }
                    _ => {}
                }
                self.ladder.handle(event, self.now);
                return self.follow();
            }
            Due::Ready(id) => self.ready(id),
            Due::Dies(id, cause) => self.die(id, cause),
            Due::Lose(id, reason) => self.lose(id, reason),
            Due::Kill(id, cause) => self.kill(id, cause),
            Due::Stuck(id) if self.processes.contains_key(&id) => {
                self.sometimes("a process could not be killed");
                self.tell_ladder(LadderEvent::Unkillable(id));
            }
            Due::Reap(id, cause) => self.reap(id, cause),
            Due::Computed(id, batch_id) => self.computed(id, batch_id),
            Due::Resumes(id) => self.resume(id),
            Due::Released(id) => self.change(id, |process| process.reading -= 1),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn core_hears(&mut self, message: ToCore) {
        let now = self.now;
        match message {
            ToCore::Up(worker) => self.core.worker_up(worker),
            ToCore::Standing(id, standing) => self.core.set_standing(id, standing, now),
            ToCore::Canary(id) => self.core.run_canary(id),
            ToCore::Completed(done) => self.core.completed(&done, now),
            ToCore::Failed(failed) => self.core.rows_failed(failed, now),
            ToCore::CanaryDone(done) => self.core.canary_done(done, now),
            ToCore::CanaryFailed(id) => {
                self.core.canary_failed(id, "out of memory", now);
            }
            ToCore::Leaving(id) => self.core.worker_leaving(id, now),
            ToCore::Lost(id, batches, blameless) => {
                self.core.worker_lost(id, batches, blameless, now);
            }
            ToCore::Ended(ended) => self.core.worker_ended(ended, now),
            ToCore::NoHope(reason) => self.core.no_hope(reason),
            ToCore::AnswerAll(error) => self.core.answer_all(&error),
        }
    }

    /// What the dispatcher has to say, to the supervisor and to its workers.
    pub(super) fn hear_core(&mut self) -> Checked {
        for news in self.core.take_news() {
            let event = match news {
                WorkerNews::Canary { id, verdict, replies } => {
                    let wrong = self.wrong_replies.get_mut(&id).and_then(VecDeque::pop_front);
                    let wrong = wrong.unwrap_or(u64::MAX);
                    if verdict.is_err() && replies < wrong {
                        let found = format!("{wrong} wrong embeddings, {replies} reported");
                        return Err(self.violated("I3", found));
                    }
                    LadderEvent::Canary(id, verdict)
                }
                // There may be no room for it, and then it is left out.
                WorkerNews::Good { .. } if self.is_deaf && self.random.random_bool(0.5) => {
                    self.sometimes("good news was left out");
                    continue;
                }
                WorkerNews::Good { id } => {
                    self.sometimes("a worker on probation computed texts");
                    LadderEvent::Good(id)
                }
                WorkerNews::RerunsRefused { texts } => {
                    self.reruns_refused += texts;
                    self.sometimes("the budget of second runs was used up");
                    continue;
                }
                WorkerNews::Late { id, reason, .. } => {
                    self.sometimes("a worker was late");
                    LadderEvent::Late(id, reason)
                }
                WorkerNews::CaughtUp { id } => {
                    self.sometimes("a worker that was late caught up");
                    LadderEvent::CaughtUp(id)
                }
            };
            self.tell_ladder(event);
        }
        let asked: Vec<(WorkerId, EndCause)> = self
            .processes
            .values()
            .filter_map(|process| {
                let process = process.borrow();
                let cause = process.end_asked.clone().filter(|_| !process.end_noted)?;
                Some((process.id, cause))
            })
            .collect();
        for (id, cause) in asked {
            let ill = self.processes.get(&id).is_none_or(|process| {
                let process = process.borrow();
                process.ill || !process.alive
            });
            if cause == EndCause::BatchLate && !ill {
                return Err(self.violated("I16", format!("{id:?} was well and is ended as hung")));
            }
            self.end(id, cause);
        }
        Ok(())
    }

    /// Does what the ladder says, and checks it.
    pub(super) fn follow(&mut self) -> Checked {
        for action in self.ladder.take_actions() {
            match action {
                LadderAction::Launch(id) => self.launch(id)?,
                LadderAction::Standing(id, standing) => {
                    self.tell_core(ToCore::Standing(id, standing));
                }
                LadderAction::Canary(id) => self.tell_core(ToCore::Canary(id)),
                LadderAction::End(id, cause) => self.end(id, cause),
                LadderAction::Drain(id) => self.drain(id),
                LadderAction::Changed(change) => self.changed(change)?,
                LadderAction::Quarantined(_, reason, ..) => match reason {
                    QuarantineReason::Canary => {
                        self.sometimes("a rung was quarantined for wrong numbers");
                    }
                    QuarantineReason::Operator => {
                        self.sometimes("a rung waited for somebody to release it");
                    }
                    QuarantineReason::Reset => self.sometimes("a rung was quarantined for a reset"),
                    QuarantineReason::Intensity => {
                        self.sometimes("a rung was quarantined for failing too often");
                    }
                    _ => {}
                },
                LadderAction::Released(..) => {}
                LadderAction::Level(from, to) => {
                    if from != self.level {
                        return Err(self.violated("I10", format!("a step from {from} to {to}")));
                    }
                    self.level = to;
                    match (from, to) {
                        (_, Level::Gpu(2)) => self.sometimes("a level of two GPUs"),
                        (_, Level::Down) => self.sometimes("nothing served"),
                        (Level::Gpu(_), Level::Cpu) => self.sometimes("only the CPU served"),
                        _ => {}
                    }
                }
            }
        }
        if self.ladder.is_hopeless() && !self.stopping {
            self.tell_core(ToCore::NoHope("every rung is lost".to_owned()));
        }
        let serves = self.level != Level::Down;
        let (hopeless, messages) = (self.ladder.is_hopeless(), self.messages());
        self.down.observe(serves, hopeless, messages, self.now);
        Ok(())
    }

    fn changed(&mut self, change: Change) -> Checked {
        let Change { id, from, to, reason } = change;
        if self.states[id.slot] != from || !from.may_become(to) {
            return Err(self.violated("I10", format!("{id:?} from {from} to {to}: {reason}")));
        }
        self.states[id.slot] = to;
        self.ladder_ids[id.slot] = id;
        match to {
            WorkerState::Serving if !self.proven.contains(&id) => {
                return Err(self.violated("I12", format!("{id:?} serves without a canary")));
            }
            WorkerState::Serving if reason == LAPSED => self.sometimes("a lapse was forgiven"),
            WorkerState::Probation if id.incarnation > 1 => {
                self.sometimes("a relapse was put on probation");
            }
            WorkerState::Exited => {
                let lost = |state: &WorkerState| {
                    matches!(state, WorkerState::Exited | WorkerState::Backoff)
                };
                if self.states.iter().filter(|state| lost(state)).count() >= 2 {
                    self.sometimes("two GPUs were lost at once");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The process of a slot that runs, if there is one.
    pub(super) fn running(&self, slot: usize) -> Option<WorkerId> {
        let mut alive = self.processes.values().map(|process| process.borrow());
        alive.find(|process| process.id.slot == slot && process.alive).map(|process| process.id)
    }

    pub(super) fn change(&mut self, id: WorkerId, change: impl FnOnce(&mut Process)) {
        if let Some(process) = self.processes.get(&id) {
            change(&mut process.borrow_mut());
        }
    }

    fn launch(&mut self, id: WorkerId) -> Checked {
        if self.processes.keys().any(|other| other.slot == id.slot) {
            return Err(self.violated("I10", format!("{id:?} is a second process on its device")));
        }
        let rung = self.rungs[id.slot];
        let process = Process {
            id,
            device: rung.device,
            slots: rung.slots,
            side_by_side: rung.side_by_side,
            tokens_per_ms: rung.tokens_per_ms,
            jobs: VecDeque::new(),
            reading: 0,
            computing: Vec::new(),
            free_since: self.now,
            alive: true,
            stopped: false,
            lost: false,
            unkillable: false,
            ill: false,
            refuses: self.random.random(),
            unsent: false,
            slow: 1,
            flip_output: false,
            flipped_weights: false,
            failing_batches: 0,
            replies: 0,
            wrong_replies: 0,
            end_asked: None,
            ended_by_core: false,
            end_noted: false,
            draining: false,
            reaping: false,
            runs: Rc::clone(&self.runs),
            breaches: Vec::new(),
        };
        self.processes.insert(id, Rc::new(RefCell::new(process)));
        let after = Duration::from_millis(self.random.random_range(5..120));
        if self.failing_starts[id.slot] > 0 {
            self.failing_starts[id.slot] -= 1;
            self.sometimes("a start failed");
            self.at(self.now + after, Due::Dies(id, EndCause::StartLost("no memory".to_owned())));
        } else {
            self.at(self.now + after, Due::Ready(id));
        }
        Ok(())
    }

    fn ready(&mut self, id: WorkerId) {
        let Some(process) = self.processes.get(&id) else { return };
        let process = Rc::clone(process);
        let greets = {
            let process = process.borrow();
            process.alive && !process.stopped && !process.lost && !process.end_noted
        };
        if greets {
            process.borrow_mut().free_since = self.now;
            self.tell_core(ToCore::Up(SimWorker(process)));
            self.tell_ladder(LadderEvent::Greeted(id));
        } else if self.processes[&id].borrow().alive {
            // It hangs during its start.
            self.end(id, EndCause::StartLate);
        }
    }

    /// A process dies by itself.
    pub(super) fn die(&mut self, id: WorkerId, cause: EndCause) {
        let Some(process) = self.processes.get(&id) else { return };
        if !std::mem::replace(&mut process.borrow_mut().alive, false) {
            return;
        }
        self.died_at.entry(id).or_insert(self.now);
        self.soon(2_000, Due::Lose(id, "end of socket".to_owned()));
        self.reap_within(id, 300, cause);
    }

    /// The host ends a process: socket, grace, kill, reap.
    pub(super) fn end(&mut self, id: WorkerId, cause: EndCause) {
        let Some(process) = self.processes.get(&id).map(Rc::clone) else { return };
        {
            let mut process = process.borrow_mut();
            process.end_asked.get_or_insert(cause.clone());
            if std::mem::replace(&mut process.end_noted, true) {
                return;
            }
        }
        self.tell_core(ToCore::Leaving(id));
        self.soon(1_000, Due::Lose(id, cause.to_string()));
        let ends_by_itself = {
            let process = process.borrow();
            process.alive && !process.stopped && !process.unkillable
        };
        if ends_by_itself && self.random.random_bool(0.7) {
            // A sound worker ends with its socket, also before all is read that it has sent.
            self.soon(50_000, Due::Dies(id, cause.clone()));
        }
        self.at(self.now + KILL_GRACE, Due::Kill(id, cause));
    }

    fn kill(&mut self, id: WorkerId, cause: EndCause) {
        let Some(process) = self.processes.get(&id) else { return };
        let unkillable = {
            let mut process = process.borrow_mut();
            process.alive = false;
            process.unkillable
        };
        if unkillable {
            self.at(self.now + REAP_DEADLINE, Due::Stuck(id));
            self.reap_within(id, 8_000, cause);
        } else {
            self.reap_within(id, 50, cause);
        }
    }

    fn reap_within(&mut self, id: WorkerId, within_ms: u64, cause: EndCause) {
        let Some(process) = self.processes.get(&id) else { return };
        if !std::mem::replace(&mut process.borrow_mut().reaping, true) {
            let after = Duration::from_millis(self.random.random_range(1..within_ms));
            self.at(self.now + after, Due::Reap(id, cause));
        }
    }

    fn lose(&mut self, id: WorkerId, reason: String) {
        let Some(process) = self.processes.get(&id) else { return };
        let (batches, draining, blameless) = {
            let mut process = process.borrow_mut();
            if process.lost {
                return;
            }
            let blameless = process.end_asked.as_ref().is_some_and(EndCause::is_blameless);
            if process.draining {
                process.lost = true;
                (Vec::new(), true, blameless)
            } else {
                (process.abandon(), false, blameless)
            }
        };
        if blameless {
            let texts = batches.iter().flat_map(|batch| &batch.rows);
            self.not_to_blame.extend(texts.map(|pending| pending.ids[0]));
        }
        if !draining {
            self.tell_core(ToCore::Lost(id, batches, blameless));
        }
        self.tell_ladder(LadderEvent::Lost(id, reason));
    }

    fn reap(&mut self, id: WorkerId, cause: EndCause) {
        self.lose(id, cause.to_string());
        let Some(process) = self.processes.remove(&id) else { return };
        let batches = process.borrow_mut().abandon();
        let cause = process.borrow().end_asked.clone().unwrap_or(cause);
        let requested = cause == EndCause::Requested;
        self.tell_core(ToCore::Ended(EndedWorker { id, batches, requested }));
        self.tell_ladder(LadderEvent::Ended(id, cause));
        self.flipped_at.remove(&id);
    }

    fn drain(&mut self, id: WorkerId) {
        self.tell_core(ToCore::Leaving(id));
        self.change(id, |process| process.draining = true);
        // It has nothing to finish: it is drained after everything has been answered.
        self.end(id, EndCause::Requested);
    }
}
