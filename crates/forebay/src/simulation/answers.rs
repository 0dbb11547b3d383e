//! What the processes compute, and how their answers come out of the books.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use forebay_protocol::ErrorClass;
use rand::Rng;

use super::callers::{Effect, row_of, wrong_row_of};
use super::parts::ToCore;
use super::process::{Job, Process};
use super::world::{Due, World};
use crate::dispatch::WorkerId;
use crate::dispatch::answer::CheckedRows;
use crate::dispatch::core::FailedRows;
use crate::dispatch::port::{BatchDone, CanaryDone};
use crate::request::InWorker;
use crate::supervisor::EndCause;

impl World {
    /// Processes that have room for it begin with the next batch.
    pub(super) fn compute(&mut self) {
        let mut begun = Vec::new();
        for process in self.processes.values() {
            let mut process = process.borrow_mut();
            if !process.alive || process.stopped || process.lost {
                continue;
            }
            while let Some(job) = process.next_job() {
                let (batch_id, service) = (job.batch_id, process.service(job));
                process.computing.push(batch_id);
                begun.push((process.id, batch_id, service));
            }
        }
        let beside = |process: &RefCell<Process>| process.borrow().computing.len() > 1;
        if self.processes.values().any(|process| beside(process)) {
            self.sometimes("batches were computed side by side");
        }
        for (id, batch_id, service) in begun {
            // Honest devices are not all alike, and now and then one is held up.
            let held_up = if self.random.random_bool(0.001) { 8.0 } else { 1.0 };
            if held_up > 1.0 {
                self.change(id, |process| process.ill = true);
            }
            let service = service.mul_f64(held_up * self.random.random_range(0.9..1.2));
            self.at(self.now + service, Due::Computed(id, batch_id));
        }
    }

    pub(super) fn computed(&mut self, id: WorkerId, batch_id: u64) {
        let Some(process) = self.processes.get(&id) else { return };
        let process = Rc::clone(process);
        let job = {
            let mut process = process.borrow_mut();
            let hears = process.alive && !process.stopped && !process.lost;
            if !hears || !process.computing.contains(&batch_id) {
                return;
            }
            let job = process.jobs.iter().find(|job| job.batch_id == batch_id);
            let texts = job.map(|job| job.texts.clone()).unwrap_or_default();
            let has = |wanted| texts.iter().any(|text| self.effects.get(text) == Some(&wanted));
            if has(Effect::Kills) {
                drop(process);
                return self.die(id, EndCause::Signal(11));
            }
            if has(Effect::Hangs) {
                process.stopped = true;
                process.ill = true;
                return;
            }
            process.reading += 1;
            process.finish(batch_id, self.now)
        };
        self.soon(300, Due::Released(id));
        let Some((job, service)) = job else { return };
        let mut fails = None;
        {
            let mut process = process.borrow_mut();
            if process.failing_batches > 0 {
                process.failing_batches -= 1;
                fails = Some((ErrorClass::OutOfMemory, "out of memory"));
            } else if std::mem::take(&mut process.flip_output) {
                fails = Some((ErrorClass::NonFinite, "checksum"));
            }
        }
        if fails.is_some_and(|(_, what)| what == "checksum") {
            self.sometimes("an answer's checksum was wrong");
        }
        let bad = |text: &u32| self.effects.get(text) == Some(&Effect::FailsBatch);
        if fails.is_none() && job.texts.iter().any(bad) {
            fails = Some((ErrorClass::Retry, "scripted"));
        }
        if job.canary {
            return match fails {
                Some(_) => self.tell_core(ToCore::CanaryFailed(id)),
                None => self.canary_computed(&process, &job, service),
            };
        }
        self.answered(&process, job, service, fails);
    }

    fn canary_computed(&mut self, process: &Rc<RefCell<Process>>, job: &Job, service: Duration) {
        let mut process = process.borrow_mut();
        let verdict = match process.flipped_weights {
            true => Err("bit 3 of row 1 differs".to_owned()),
            false => Ok(()),
        };
        let (worker, replies) = (process.id, process.replies);
        if verdict.is_ok() {
            process.replies = 0;
        }
        self.wrong_replies.entry(worker).or_default().push_back(process.wrong_replies);
        drop(process);
        let done = CanaryDone { worker, verdict, replies, tokens: job.tokens, service };
        self.tell_core(ToCore::CanaryDone(done));
    }

    fn answered(
        &mut self,
        process: &Rc<RefCell<Process>>,
        job: Job,
        service: Duration,
        fails: Option<(ErrorClass, &str)>,
    ) {
        let (worker, tier) = (process.borrow().id, process.borrow().tier());
        let alone = job.texts.len() == 1;
        let Job { rows, texts, tokens, exclusive, .. } = job;
        if let Some((class, message)) = fails {
            let message = message.to_owned();
            let rows = rows.into_iter().flatten().collect();
            return self.tell_core(ToCore::Failed(FailedRows {
                worker,
                class,
                message,
                alone,
                rows,
            }));
        }
        let flipped = process.borrow().flipped_weights;
        let row = if flipped { wrong_row_of } else { row_of };
        let values: Vec<f32> = texts.iter().flat_map(|text| row(*text)).collect();
        let open = rows.iter().flatten().filter(|pending| !pending.owed.is_answered());
        let open: Vec<u32> = open.map(|pending| pending.ids[0]).collect();
        let waiting = rows.iter().flatten().count();
        if flipped {
            self.wrongly_computed.extend(&open);
        }
        let checked = CheckedRows::new(rows, &values, 3, 1e-3);
        let (texts, good) = (checked.good(), checked.all_good());
        self.answered_texts += texts;
        let done = BatchDone { worker, tier, tokens, texts, service, exclusive, good };
        let sent_at = self.now.checked_sub(service).unwrap_or(self.now);
        let in_worker = InWorker { sent_at, answered_at: self.now, texts: waiting, tokens };
        let (replies, _) = checked.hand_out(&self.metrics, in_worker);
        if (replies as usize) < waiting {
            self.sometimes("a twin had been answered before");
        }
        let mut process = process.borrow_mut();
        process.replies += replies;
        process.wrong_replies += if flipped { replies } else { 0 };
        drop(process);
        self.tell_core(ToCore::Completed(done));
    }
}
