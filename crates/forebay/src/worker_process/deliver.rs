//! From a finished slot to the callers: check every row, hand it out, count what is wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_arena::SlotLease;
use forebay_protocol::{Descriptor, DescriptorKind, ErrorClass, output_checksum};

use crate::dispatch::core::FailedRows;
use crate::dispatch::lane::{InFlight, Unusable, WorkerLane};
use crate::dispatch::port::WorkerPort;
use crate::dispatch::{DispatchEvent, DispatchSender};
use crate::metrics::{AnswerDropped, Metrics, ReplyCheck, Stage};
use crate::request::Pending;

/// What the reader of a worker needs to answer callers.
pub(crate) struct Delivery {
    pub(crate) lane: Arc<WorkerLane>,
    pub(crate) dispatch: DispatchSender,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) norm_tolerance: f64,
}

impl Delivery {
    /// Handles one answer. An error text means that the worker broke the protocol and must end.
    pub(crate) fn answer(&self, answer: &Descriptor, now: Instant) -> Result<(), String> {
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
            DescriptorKind::Done => self.rows(answer, lease, batch, service),
            _ => {
                let class = answer.error.unwrap_or(ErrorClass::Internal);
                let read = self.lane.arena().read_message(&lease, answer.message_bytes as usize);
                self.lane.release(lease);
                let message = read.unwrap_or_else(|error| error.to_string());
                tracing::warn!(class = class.name(), rows = batch.rows.len(), "{message}");
                self.failed(class, message, batch.rows.len() == 1, batch.rows);
                Ok(())
            }
        }
    }

    fn rows(
        &self,
        answer: &Descriptor,
        lease: SlotLease,
        batch: InFlight,
        service: Duration,
    ) -> Result<(), String> {
        let start = Instant::now();
        let InFlight { rows, tokens, span, .. } = batch;
        // The batch is done with; what follows has a span of its own.
        drop(span);
        let _span = tracing::debug_span!("reply", rows = rows.len());
        let row_values = self.lane.arena().layout().spec().row_values as usize;
        let read = self.lane.arena().read_output(&lease, rows.len() * row_values);
        // The slot goes back before the callers are told: the next batch can be written meanwhile.
        self.lane.release(lease);
        if let Some(reason) = read.as_ref().ok().and_then(|values| corrupt(answer, values)) {
            self.metrics.reply_check_failed(ReplyCheck::Checksum);
            let alone = rows.len() == 1;
            tracing::warn!(rows = rows.len(), "{reason}");
            self.failed(ErrorClass::Corrupt, reason, alone, rows);
            return Ok(());
        }
        let (worker, tier, tokens) = (self.lane.id(), self.lane.tier(), tokens as usize);
        self.dispatch.send(DispatchEvent::Completed { worker, tier, tokens, service });
        let values = read.map_err(|error| error.to_string())?;
        let alone = rows.len() == 1;
        let mut wrong = Vec::new();
        let mut reason = String::new();
        for (pending, row) in rows.into_iter().zip(values.chunks_exact(row_values)) {
            let Some(pending) = pending else {
                self.metrics.answer_dropped(AnswerDropped::Late);
                continue;
            };
            match check(row, self.norm_tolerance) {
                Ok(()) => {
                    let embedding = pending.embedding(row);
                    pending.reply(Ok(embedding));
                }
                Err((check, message)) => {
                    self.metrics.reply_check_failed(check);
                    reason = message;
                    wrong.push(Some(pending));
                }
            }
        }
        if !wrong.is_empty() {
            self.failed(ErrorClass::NonFinite, reason, alone, wrong);
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
fn corrupt(answer: &Descriptor, values: &[f32]) -> Option<String> {
    let (said, found) = (answer.output_checksum, output_checksum(values));
    let differ = || format!("rows have checksum {found:#010x}, the worker said {said:#010x}");
    (said != found).then(differ)
}

/// A row is the unit-length embedding and the length it had: all finite, and the length of the
/// unit row 1 within `tolerance`, or 0 for a row of zeros.
fn check(row: &[f32], tolerance: f64) -> Result<(), (ReplyCheck, String)> {
    let Some((length, unit)) = row.split_last() else {
        return Err((ReplyCheck::Shape, "row is empty".to_owned()));
    };
    let squares = sum_of_squares(unit);
    // A sum of squares is finite only if every value is.
    if !squares.is_finite() || !length.is_finite() || *length < 0.0 {
        return Err((ReplyCheck::Finite, "a value is not finite".to_owned()));
    }
    let found = squares.sqrt();
    if (found - 1.0).abs() <= tolerance || (found == 0.0 && *length == 0.0) {
        Ok(())
    } else {
        let message = format!("unit row has length {found:.6}, expected 1 within {tolerance}");
        Err((ReplyCheck::Norm, message))
    }
}

/// Several sums side by side: one alone would wait for each addition, and this runs for every row.
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let (groups, rest) = values.as_chunks::<8>();
    for group in groups {
        for (sum, value) in sums.iter_mut().zip(group) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    let rest: f64 = rest.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use forebay_protocol::{Descriptor, DescriptorKind, output_checksum};

    use super::{check, corrupt, sum_of_squares};

    #[test]
    fn rows_that_changed_on_the_way_are_corrupt() {
        let rows = [0.6, 0.8, 12.0];
        let done = Descriptor::new(DescriptorKind::Done);
        let answer = Descriptor { output_checksum: output_checksum(&rows), ..done };
        assert_eq!(corrupt(&answer, &rows), None);
        // A change that no check of the values could see.
        let changed = [0.6, 0.8, 12.5];
        assert!(check(&changed, 1e-3).is_ok());
        assert!(corrupt(&answer, &changed).is_some());
    }

    #[test]
    fn no_value_is_left_out_of_the_sum() {
        for length in [0, 1, 7, 8, 9, 384, 385] {
            let values: Vec<f32> = (0..length).map(|index| index as f32).collect();
            let expected: f64 = (0..length).map(|index| (index * index) as f64).sum();
            assert_eq!(sum_of_squares(&values), expected, "{length}");
        }
    }

    #[test]
    fn only_finite_unit_rows_pass() {
        assert_eq!(check(&[0.6, 0.8, 12.0], 1e-3), Ok(()));
        assert_eq!(check(&[0.0, 0.0, 0.0], 1e-3), Ok(()));
        let wrong: [&[f32]; 7] = [
            &[],
            &[0.6, 0.9, 1.0],
            &[f32::NAN, 1.0, 1.0],
            &[f32::INFINITY, 0.0, 1.0],
            &[1.0, 0.0, f32::NAN],
            &[1.0, 0.0, -1.0],
            &[0.0, 0.0, 3.0],
        ];
        for row in wrong {
            assert!(check(row, 1e-3).is_err(), "{row:?}");
        }
    }
}
