//! The black box: which batches are under way on the device, so that the one record of a fault says
//! what it may have been about. It holds one entry per slot and decides nothing.
//!
//! A fault shows in whichever call comes next, often one for another batch than the culprit. So the
//! record lists all of them.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A batch between its arrival in a slot and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnderWay {
    /// Batches since the start, counted by the first stage.
    pub(super) batch: u64,
    pub(super) rows: usize,
    pub(super) tokens: usize,
    /// Once the encoder has been enqueued.
    pub(super) encoded: Option<Encoded>,
    /// The stage that enqueued work for it last.
    pub(super) enqueued_by: Option<&'static str>,
}

/// How the encoder runs a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoded {
    /// Bucket of its last device batch, in tokens.
    pub(super) bucket: u32,
    /// Tokens really computed.
    pub(super) computed: u32,
}

/// What is under way on one device. The four stages share it.
pub(super) struct BlackBox {
    /// The device and its driver, as `key=value`.
    device: String,
    slots: Mutex<Vec<Option<UnderWay>>>,
}

impl BlackBox {
    /// An empty box for `slots` batches.
    pub(super) fn new(device: String, slots: u32) -> Self {
        Self { device, slots: Mutex::new(vec![None; slots as usize]) }
    }

    /// A batch has arrived in `slot`.
    pub(super) fn enters(&self, slot: u32, batch: u64, rows: usize, tokens: usize) {
        let arrived = UnderWay { batch, rows, tokens, encoded: None, enqueued_by: None };
        if let Some(place) = self.lock().get_mut(slot as usize) {
            *place = Some(arrived);
        }
    }

    /// `stage` has enqueued its work for the batch in `slot`.
    pub(super) fn enqueued(&self, slot: u32, stage: &'static str, encoded: Option<Encoded>) {
        if let Some(Some(under_way)) = self.lock().get_mut(slot as usize) {
            under_way.enqueued_by = Some(stage);
            under_way.encoded = encoded.or(under_way.encoded);
        }
    }

    /// The batch in `slot` has come to its end.
    pub(super) fn leaves(&self, slot: u32) {
        if let Some(place) = self.lock().get_mut(slot as usize) {
            *place = None;
        }
    }

    /// The record of a fault that `stage` met with the batch in `slot`.
    pub(super) fn record(&self, error: &dyn Display, stage: &str, slot: u32) -> String {
        line(error, stage, slot, &self.device, &self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<UnderWay>>> {
        // Each change is one assignment.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line: the error, then `key=value`, then every batch that is under way, the oldest first.
fn line(
    error: &dyn Display,
    stage: &str,
    slot: u32,
    device: &str,
    slots: &[Option<UnderWay>],
) -> String {
    let entry =
        |(slot, under_way): (usize, &Option<UnderWay>)| under_way.map(|batch| (slot, batch));
    let mut all: Vec<(usize, UnderWay)> = slots.iter().enumerate().filter_map(entry).collect();
    all.sort_unstable_by_key(|(_, under_way)| under_way.batch);
    let error = error.to_string().replace(['\n', '\r'], " ");
    let count = all.len();
    let batches: String =
        all.into_iter().map(|(slot, batch)| format!(" [{}]", batch.text(slot))).collect();
    format!("{error}; stage={stage} slot={slot} {device} under_way={count}{batches}")
}

impl UnderWay {
    fn text(self, slot: usize) -> String {
        let Self { batch, rows, tokens, encoded, enqueued_by } = self;
        let encoded = encoded.map_or_else(String::new, |Encoded { bucket, computed }| {
            format!(" bucket={bucket} computed={computed}")
        });
        let enqueued_by = enqueued_by.unwrap_or("none");
        format!(
            "batch={batch} slot={slot} rows={rows} tokens={tokens}{encoded} enqueued_by={enqueued_by}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_lists_every_batch_under_way_the_oldest_first() {
        let device = "device=cuda:1 name=\"NVIDIA H200\" driver=13.0";
        let black_box = BlackBox::new(device.to_owned(), 3);
        black_box.enters(2, 7, 1, 9);
        black_box.enters(0, 8, 4, 100);
        black_box.enters(1, 6, 2, 20);
        let encoded = Encoded { bucket: 16, computed: 9 };
        black_box.enqueued(2, "copy-in", None);
        black_box.enqueued(2, "infer", Some(encoded));
        black_box.enqueued(2, "pool", None);
        black_box.enqueued(0, "copy-in", None);
        black_box.leaves(1);
        let line = black_box.record(&"cuLaunchKernel:\nILLEGAL_ADDRESS (700)", "infer", 0);
        assert_eq!(
            line,
            "cuLaunchKernel: ILLEGAL_ADDRESS (700); stage=infer slot=0 device=cuda:1 \
             name=\"NVIDIA H200\" driver=13.0 under_way=2 \
             [batch=7 slot=2 rows=1 tokens=9 bucket=16 computed=9 enqueued_by=pool] \
             [batch=8 slot=0 rows=4 tokens=100 enqueued_by=copy-in]"
        );
    }

    #[test]
    fn a_slot_is_one_entry_and_a_strange_one_is_none() {
        let black_box = BlackBox::new(String::new(), 1);
        for batch in 1..10 {
            black_box.enters(0, batch, 1, 1);
        }
        black_box.enters(5, 99, 1, 1);
        black_box.enqueued(5, "pool", None);
        let line = black_box.record(&"gone", "pool", 5);
        assert!(line.contains("under_way=1 [batch=9 slot=0"), "{line}");
        black_box.leaves(0);
        assert!(black_box.record(&"gone", "pool", 0).ends_with("under_way=0"));
    }
}
