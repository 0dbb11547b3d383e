//! Faults on request: what a host that has enabled them asks of this worker, until a stage brings
//! it about. An engine with a device of its own sees to some of them itself; the others are imitated
//! here, for any engine. A worker whose host has not enabled them does none.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_protocol::{BatchTimes, ErrorClass, Fault};

use crate::engine::{Injection, StepError};

/// What has been asked for and is not over. The stages share it; a worker without faults pays a
/// load or two per batch and stage.
#[derive(Debug)]
pub(crate) struct Faults {
    enabled: bool,
    /// Whether something waits; changed under the lock of what does.
    asked: AtomicBool,
    /// For the next batch that the encoder takes.
    waiting: Mutex<Option<Fault>>,
    /// How many times as long a batch takes.
    slow: AtomicU32,
    /// Flip a bit of the next output behind its checksum.
    flip: AtomicBool,
    /// Give every row the same wrong value.
    wrong: AtomicBool,
}

impl Faults {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            asked: AtomicBool::new(false),
            waiting: Mutex::new(None),
            slow: AtomicU32::new(1),
            flip: AtomicBool::new(false),
            wrong: AtomicBool::new(false),
        }
    }

    /// Takes a request of the host. One that the encoder has not begun with yet is replaced.
    pub(crate) fn ask(&self, fault: Fault) {
        if !self.enabled || !fault.is_workers() {
            tracing::error!(%fault, "protocol error: the host asks for a fault that this worker \
                does not bring about; it is ignored");
            return;
        }
        tracing::warn!(%fault, "a fault was asked for");
        match fault {
            Fault::Slow(factor) => self.slow.store(factor, Ordering::Relaxed),
            Fault::FlipOutputBit => self.flip.store(true, Ordering::Relaxed),
            fault => {
                let mut waiting = self.lock();
                let before = waiting.replace(fault);
                self.asked.store(true, Ordering::Release);
                drop(waiting);
                if let Some(before) = before {
                    tracing::warn!(%before, "a fault was replaced before it began");
                }
            }
        }
    }

    /// Brings about what waits for the encoder, which is about to run a batch. `engine` is asked
    /// first.
    ///
    /// # Errors
    /// What the batch fails with, if failing it is what the fault does.
    pub(crate) fn before_encoding(
        &self,
        engine: impl FnOnce(Fault) -> Injection,
    ) -> Result<(), StepError> {
        if !self.asked.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut waiting = self.lock();
        let fault = waiting.take();
        self.asked.store(false, Ordering::Release);
        drop(waiting);
        let Some(fault) = fault else { return Ok(()) };
        match engine(fault) {
            Injection::Begun => Ok(()),
            Injection::Imitate => self.imitate(fault),
        }
    }

    fn imitate(&self, fault: Fault) -> Result<(), StepError> {
        match fault {
            Fault::Trap => crate::os::end_by(libc::SIGABRT),
            Fault::IllegalAddress => crate::os::end_by(libc::SIGSEGV),
            Fault::EndlessKernel => loop {
                std::thread::park();
            },
            Fault::DeviceOutOfMemory => Err(StepError::Batch {
                class: ErrorClass::OutOfMemory,
                message: "a fault was asked for: the device is out of memory".to_owned(),
            }),
            Fault::FlipWeightBit => {
                self.wrong.store(true, Ordering::Relaxed);
                Ok(())
            }
            // `ask` lets no other through.
            _ => Ok(()),
        }
    }

    /// What happens to a batch that has been computed, before its checksum is: it may be wrong, and
    /// it may take longer. Gives the times to report.
    pub(crate) fn after_computing(
        &self,
        rows: &mut [f32],
        row_values: usize,
        times: BatchTimes,
    ) -> BatchTimes {
        if self.wrong.load(Ordering::Relaxed) {
            spoil(rows, row_values);
        }
        let factor = self.slow.load(Ordering::Relaxed);
        if factor <= 1 {
            return times;
        }
        let computing = u64::from(times.infer_us) + u64::from(times.pool_us);
        std::thread::sleep(Duration::from_micros(computing) * (factor - 1));
        let slower = |us: u32| us.saturating_mul(factor);
        BatchTimes { infer_us: slower(times.infer_us), pool_us: slower(times.pool_us), ..times }
    }

    /// What happens to the rows behind their checksum.
    pub(crate) fn after_checksum(&self, rows: &mut [f32]) {
        if !self.flip.load(Ordering::Relaxed) || !self.flip.swap(false, Ordering::Relaxed) {
            return;
        }
        // The least bit of a value in the middle: no check of values can see it.
        let middle = rows.len() / 2;
        if let Some(value) = rows.get_mut(middle) {
            *value = f32::from_bits(value.to_bits() ^ 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Fault>> {
        // Each change is one assignment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes every row of `row_values` values one and the same: a unit vector that lies along the
/// diagonal, and the length 1.
fn spoil(rows: &mut [f32], row_values: usize) {
    for row in rows.chunks_exact_mut(row_values.max(1)) {
        if let Some((length, unit)) = row.split_last_mut() {
            let value = 1.0 / (unit.len() as f64).sqrt();
            unit.fill(value as f32);
            *length = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_protocol::output_checksum;

    use super::*;

    const TIMES: BatchTimes = BatchTimes { wait_us: 5, infer_us: 30, pool_us: 10 };

    fn rows() -> Vec<f32> {
        (0..2 * 5).map(|value| value as f32).collect()
    }

    fn nothing(_: Fault) -> Injection {
        panic!("nothing was asked for")
    }

    #[test]
    fn a_worker_without_faults_brings_none_about() {
        let faults = Faults::new(false);
        Fault::ALL.into_iter().for_each(|fault| faults.ask(fault));
        assert_eq!(faults.before_encoding(nothing), Ok(()));
        let mut all = rows();
        assert_eq!(faults.after_computing(&mut all, 5, TIMES), TIMES);
        faults.after_checksum(&mut all);
        assert_eq!(all, rows());
    }

    #[test]
    fn the_engine_is_asked_once_and_what_it_leaves_is_imitated() {
        let faults = Faults::new(true);
        faults.ask(Fault::DeviceOutOfMemory);
        let begun = faults.before_encoding(|fault| {
            assert_eq!(fault, Fault::DeviceOutOfMemory);
            Injection::Begun
        });
        assert_eq!(begun, Ok(()));
        assert_eq!(faults.before_encoding(nothing), Ok(()), "it was taken");
        faults.ask(Fault::DeviceOutOfMemory);
        let failed = faults.before_encoding(|_| Injection::Imitate);
        assert!(
            matches!(failed, Err(StepError::Batch { class: ErrorClass::OutOfMemory, .. })),
            "{failed:?}"
        );
    }

    #[test]
    fn a_flipped_weight_gives_the_same_unit_vector_for_ever() {
        let faults = Faults::new(true);
        faults.ask(Fault::FlipWeightBit);
        assert_eq!(faults.before_encoding(|_| Injection::Imitate), Ok(()));
        for _ in 0..2 {
            let mut all = rows();
            faults.after_computing(&mut all, 5, TIMES);
            assert_eq!(all, [[0.5, 0.5, 0.5, 0.5, 1.0]; 2].concat());
        }
    }

    #[test]
    fn one_output_is_flipped_behind_its_checksum_and_no_other() {
        let faults = Faults::new(true);
        faults.ask(Fault::FlipOutputBit);
        let mut all = rows();
        assert_eq!(faults.after_computing(&mut all, 5, TIMES), TIMES);
        let checksum = output_checksum(&all);
        faults.after_checksum(&mut all);
        assert_ne!(output_checksum(&all), checksum);
        let mut next = rows();
        faults.after_checksum(&mut next);
        assert_eq!(next, rows());
    }

    #[test]
    fn slowness_is_reported_and_ends_with_a_factor_of_one() {
        let faults = Faults::new(true);
        faults.ask(Fault::Slow(3));
        let slowed = BatchTimes { wait_us: 5, infer_us: 90, pool_us: 30 };
        assert_eq!(faults.after_computing(&mut rows(), 5, TIMES), slowed);
        faults.ask(Fault::Slow(1));
        assert_eq!(faults.after_computing(&mut rows(), 5, TIMES), TIMES);
    }
}
