//! What threads and tasks of a run share: locks, and the sign to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks; whoever panicked while holding it has left what is behind it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a run is to end early: because it was interrupted from outside, or because it cannot go on
/// itself, which is no reason for the next run of the same command to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    interrupt: Arc<AtomicBool>,
    own: Arc<AtomicBool>,
}

impl Stop {
    /// Set from outside by `interrupt`.
    pub(crate) fn new(interrupt: Arc<AtomicBool>) -> Self {
        Self { interrupt, own: Arc::default() }
    }

    /// Ends this run.
    pub(crate) fn set(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub(crate) fn is_set(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.is_interrupted()
    }

    /// Whether that was asked for from outside.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ends_itself_interrupts_no_other() {
        let interrupt = Arc::<AtomicBool>::default();
        let (one, next) = (Stop::new(Arc::clone(&interrupt)), Stop::new(Arc::clone(&interrupt)));
        one.set();
        assert!(one.is_set() && !one.is_interrupted() && !next.is_set());
        interrupt.store(true, Ordering::Relaxed);
        assert!(next.is_set() && next.is_interrupted());
    }
}
