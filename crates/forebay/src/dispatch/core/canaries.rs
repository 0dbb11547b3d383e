//! Known answers on the way: which worker is to run a canary batch, and what follows from one.

use std::time::Instant;

use super::Core;
use super::ends::FAILURES_MAX;
use crate::dispatch::port::{CanaryDone, Load, Standing, WorkerId, WorkerNews, WorkerPort};
use crate::dispatch::roster::Member;
use crate::supervisor::EndCause;

impl<W: WorkerPort> Core<W> {
    /// A worker shall run a canary batch as soon as it has a free slot.
    pub(crate) fn run_canary(&mut self, id: WorkerId) {
        if let Some(member) = self.workers.find_mut(id) {
            member.canary_due = true;
        }
    }

    /// A canary batch came back.
    pub(crate) fn canary_done(&mut self, done: CanaryDone, now: Instant) {
        let CanaryDone { worker: id, verdict, replies, tokens, service } = done;
        if let Some(member) = self.workers.find_mut(id) {
            let tier = member.worker.tier();
            if verdict.is_err() {
                member.standing = Standing::Suspect;
            }
            member.canaries_failed = 0;
            // A canary is a batch like any other; for a worker that serves seldom it is all there is
            // to know its speed by.
            self.lateness.observe(tier, tokens, service);
            if verdict.is_ok() && self.batcher.tokens_per_s_of(tier).is_none() {
                // Something to go by before the first text.
                self.batcher.observe(tier, tokens, service);
            }
            self.follow_level(now);
        }
        self.news.push(WorkerNews::Canary { id, verdict, replies });
    }

    /// A canary batch was not computed. That says nothing about its numbers, so it is tried again; a
    /// worker that fails several in a row is ended, whatever it does with other batches.
    pub(crate) fn canary_failed(&mut self, id: WorkerId, message: &str, now: Instant) {
        let Some(member) = self.workers.find_mut(id) else { return };
        member.canaries_failed += 1;
        member.canary_due = true;
        if member.canaries_failed >= FAILURES_MAX {
            let message = format!("known answers cannot be had: {message}");
            member.worker.end(EndCause::BatchesFailed(message));
            self.worker_leaving(id, now);
        }
    }

    /// Sends the canary batches that are due to workers with a free slot and no suspect in them. One
    /// may join batches that run side by side; nothing joins it.
    pub(super) fn send_canaries(&mut self, now: Instant) {
        let due = |member: &Member<W>| {
            let can = |load: Load| load.free > 0 && !load.exclusive;
            member.canary_due && can(member.worker.load())
        };
        while let Some(index) = self.workers.members().iter().position(due) {
            let tokens = self.workers.members()[index].worker.canary_tokens();
            // One that warms up gets no work that would wait for it: it may take its time, and counts
            // as hung like any other.
            let warms_up = self.workers.members()[index].standing == Standing::Warming;
            let late_after = self.late_after(index, tokens).filter(|_| !warms_up);
            let batch_id = self.new_batch_id();
            let member = &mut self.workers.members_mut()[index];
            member.canary_due = false;
            if !member.worker.run_canary(batch_id, late_after, now) {
                let id = member.worker.id();
                self.worker_leaving(id, now);
            }
        }
    }
}
