//! Known answers on the way: which worker is to run a canary batch, and what follows from one.

use std::time::Instant;

use forebay_protocol::ErrorClass;

use super::Core;
use crate::dispatch::port::{CanaryDone, Load, Standing, WorkerId, WorkerNews, WorkerPort};
use crate::dispatch::roster::Member;

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
            } else {
                self.failures.forget(id);
            }
            if verdict.is_ok() && self.batcher.tokens_per_s_of(tier).is_none() {
                // Something to go by before the first text.
                self.batcher.observe(tier, tokens, service);
            }
            self.follow_level(now);
        }
        self.news.push(WorkerNews::Canary { id, verdict, replies });
    }

    /// A canary batch was not computed. That says nothing about its numbers, so it is tried again; a
    /// worker that fails whatever it is given is ended as for any other batch.
    pub(crate) fn canary_failed(
        &mut self,
        id: WorkerId,
        class: ErrorClass,
        message: &str,
        now: Instant,
    ) {
        // The known texts are well; whatever it says of them is its own fault.
        let class = match class {
            ErrorClass::Input | ErrorClass::NonFinite => ErrorClass::Internal,
            class => class,
        };
        self.count_failure(id, class, message, now);
        self.run_canary(id);
    }

    /// Sends the canary batches that are due to workers with a free slot and no suspect in them.
    pub(super) fn send_canaries(&mut self, now: Instant) {
        let due = |member: &Member<W>| {
            let can = |load: Load| load.free > 0 && !load.exclusive;
            member.canary_due && can(member.worker.load())
        };
        while let Some(index) = self.workers.members().iter().position(due) {
            let tokens = self.workers.members()[index].worker.canary_tokens();
            let late_after = self.late_after(index, tokens);
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
