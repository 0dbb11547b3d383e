//! From a finished slot to the callers: take the batch out of the books, give the slot back, tell
//! the dispatcher, answer.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_arena::SlotLease;
use forebay_protocol::{Descriptor, DescriptorKind, ErrorClass, OutputChecksum};

use crate::canary::CanaryJudge;
use crate::dispatch::answer::CheckedRows;
use crate::dispatch::core::FailedRows;
use crate::dispatch::lane::{InFlight, Unusable, WorkerLane};
use crate::dispatch::port::{BatchDone, CanaryDone, WorkerPort};
use crate::dispatch::{DispatchEvent, DispatchSender};
use crate::metrics::{AnswerDropped, Metrics, ReplyCheck, RungMetrics, Stage};
use crate::request::{InWorker, Pending};

/// What the reader of a worker needs to answer callers.
pub(crate) struct Delivery {
    pub(crate) lane: Arc<WorkerLane>,
    pub(crate) dispatch: DispatchSender,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rung: Arc<RungMetrics>,
    pub(crate) norm_tolerance: f64,
    /// Only this worker's reader uses it.
    pub(crate) judge: RefCell<CanaryJudge>,
}

impl Delivery {
    /// Handles one answer. An error text means that the worker broke the protocol and must end.
    ///
    /// `copied` is where the rows are copied out to, and is only memory: new memory for each batch
    /// would cost more than the copy. It grows to the size of the largest batch.
    pub(crate) fn answer(
        &self,
        answer: &Descriptor,
        now: Instant,
        copied: &mut Vec<f32>,
    ) -> Result<(), String> {
        let (lease, batch, service) = match self.lane.complete(answer, now) {
            Ok(completed) => completed,
            Err(Unusable::Stale(stale)) => {
                self.metrics.answer_dropped(AnswerDropped::Stale);
                tracing::warn!("{stale}; dropped");
                return Ok(());
            }
            Err(Unusable::Shape(message)) => {
                self.metrics.reply_check_failed(ReplyCheck::Shape);
                return Err(message);
            }
        };
        if batch.canary {
            return self.canary(answer, lease, &batch, service);
        }
        self.metrics.stage_took(Stage::Infer, now.saturating_duration_since(batch.sent_at));
        tracing::debug!(
            parent: &batch.span,
            kind = ?answer.kind,
            wait_us = answer.times.wait_us,
            infer_us = answer.times.infer_us,
            pool_us = answer.times.pool_us,
            padded_tokens = answer.padded_tokens,
            "computed"
        );
        let padding = answer.padded_tokens.saturating_sub(answer.tokens);
        self.metrics.batch_computed(u64::from(answer.tokens), u64::from(padding));
        match answer.kind {
            DescriptorKind::Done => self.rows(answer, lease, batch, (service, now), copied),
            _ => {
                let class = answer.error.unwrap_or(ErrorClass::Internal);
                let message = self.message(answer, lease);
                tracing::warn!(class = class.name(), rows = batch.rows.len(), "{message}");
                self.failed(class, message, batch.rows.len() == 1, batch.rows);
                Ok(())
            }
        }
    }

    /// The text of a failure; the slot goes back.
    fn message(&self, answer: &Descriptor, lease: SlotLease) -> String {
        let read = self.lane.arena().read_message(&lease, answer.message_bytes as usize);
        self.lane.release(lease);
        read.unwrap_or_else(|error| error.to_string())
    }

    /// Copies the output rows and says what their checksum is; the slot goes back before anybody is
    /// told: the next batch can be written meanwhile.
    fn output(&self, lease: SlotLease, rows: usize, values: &mut Vec<f32>) -> Result<u32, String> {
        let mut checksum = OutputChecksum::default();
        let (count, seen) = (rows * self.row_values(), |piece: &[f32]| checksum.update(piece));
        let read = self.lane.arena().read_output_into(&lease, count, values, seen);
        self.lane.release(lease);
        read.map(|()| checksum.finish()).map_err(|error| error.to_string())
    }

    fn row_values(&self) -> usize {
        self.lane.arena().layout().spec().row_values as usize
    }

    fn canary(
        &self,
        answer: &Descriptor,
        lease: SlotLease,
        batch: &InFlight,
        service: Duration,
    ) -> Result<(), String> {
        let failed = |message: String| {
            let worker = self.lane.id();
            self.dispatch.send(DispatchEvent::CanaryFailed { worker, message });
            Ok(())
        };
        if answer.kind != DescriptorKind::Done {
            return failed(self.message(answer, lease));
        }
        let mut values = Vec::new();
        let found = self.output(lease, answer.rows as usize, &mut values)?;
        if let Some(reason) = corrupt(answer, found) {
            self.metrics.reply_check_failed(ReplyCheck::Checksum);
            return failed(reason);
        }
        let (verdict, replies) =
            self.judge.borrow_mut().rows(values, self.row_values(), self.norm_tolerance);
        self.rung.canary(verdict.is_ok());
        let done = CanaryDone {
            worker: self.lane.id(),
            verdict,
            replies,
            tokens: batch.tokens as usize,
            service,
        };
        self.dispatch.send(DispatchEvent::CanaryDone(done));
        Ok(())
    }

    fn rows(
        &self,
        answer: &Descriptor,
        lease: SlotLease,
        batch: InFlight,
        (service, answered_at): (Duration, Instant),
        values: &mut Vec<f32>,
    ) -> Result<(), String> {
        let start = Instant::now();
        let InFlight { rows, tokens, exclusive, span, sent_at, .. } = batch;
        // The batch is done with; what follows has a span of its own.
        drop(span);
        let _span = tracing::debug_span!("reply", rows = rows.len());
        let found = self.output(lease, rows.len(), values);
        let alone = rows.len() == 1;
        let failed_before = self.judge.borrow().wrong().map(ToOwned::to_owned);
        if let Some(reason) = failed_before {
            // Whatever it says, it is not to be believed any more.
            self.failed(ErrorClass::NonFinite, reason, alone, rows);
            return Ok(());
        }
        let done = BatchDone {
            worker: self.lane.id(),
            tier: self.lane.tier(),
            tokens: tokens as usize,
            texts: 0,
            service,
            exclusive,
            good: false,
        };
        let found = match found {
            Ok(found) => found,
            Err(message) => {
                self.dispatch.send(DispatchEvent::Completed(done));
                return Err(message);
            }
        };
        if let Some(reason) = corrupt(answer, found) {
            self.metrics.reply_check_failed(ReplyCheck::Checksum);
            tracing::warn!(rows = rows.len(), "{reason}");
            self.dispatch.send(DispatchEvent::Completed(done));
            self.failed(ErrorClass::Corrupt, reason, alone, rows);
            return Ok(());
        }
        let checked = CheckedRows::new(rows, values, self.row_values(), self.norm_tolerance);
        let done = BatchDone { texts: checked.good(), good: checked.all_good(), ..done };
        self.dispatch.send(DispatchEvent::Completed(done));
        let (texts, tokens) = (answer.rows as usize, tokens as usize);
        let in_worker = InWorker { sent_at, answered_at, texts, tokens };
        let (replies, wrong) = checked.hand_out(&self.metrics, in_worker);
        self.judge.borrow_mut().handed_out(replies);
        if let Some(wrong) = wrong {
            let rows = wrong.texts.into_iter().map(Some).collect();
            self.failed(ErrorClass::NonFinite, wrong.reason, alone, rows);
        }
        self.metrics.stage_took(Stage::Reply, start.elapsed());
        Ok(())
    }

    /// Hands back the rows that have not been answered early. `alone`: the batch had one row.
    fn failed(&self, class: ErrorClass, message: String, alone: bool, rows: Vec<Option<Pending>>) {
        let rows = rows.into_iter().flatten().collect();
        let worker = self.lane.id();
        let failed = FailedRows { worker, class, message, alone, rows };
        self.dispatch.send(DispatchEvent::Failed(failed));
    }
}

/// What is wrong if the rows as copied out are not those that the worker wrote.
fn corrupt(answer: &Descriptor, found: u32) -> Option<String> {
    let said = answer.output_checksum;
    let differ = || format!("rows have checksum {found:#010x}, the worker said {said:#010x}");
    (said != found).then(differ)
}

#[cfg(test)]
mod tests;
