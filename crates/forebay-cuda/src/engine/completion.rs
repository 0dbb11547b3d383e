//! Waiting for the device on the host: look without a pause for a while, then with short pauses.
//!
//! A blocking wait of the driver costs tens of microseconds to wake up from. No wait is endless: a
//! device that does not finish in a time that no batch needs is an error of its own.

use std::time::{Duration, Instant};

use super::error::EngineError;
use crate::edge::Event;

/// How long a pause between two looks may get.
const PAUSE_MAX: Duration = Duration::from_micros(100);

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_micros(10);

/// Longer than any batch can take, with kernels compiled and products measured on the way.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(120);

/// How to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    spin: Duration,
    limit: Duration,
}

impl Completion {
    /// Looks without a pause for `spin_us`.
    pub(crate) fn new(spin_us: u32) -> Self {
        Self { spin: Duration::from_micros(u64::from(spin_us)), limit: STUCK_AFTER }
    }

    /// Waits until `event` is complete. `what` is a word for the error.
    ///
    /// # Errors
    /// [`EngineError::Stuck`]; the failure of the work before the event.
    pub(crate) fn wait(&self, event: &Event, what: &'static str) -> Result<(), EngineError> {
        self.until(what, || Ok(event.is_complete()?))
    }

    fn until(
        &self,
        what: &'static str,
        mut done: impl FnMut() -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let start = Instant::now();
        let mut pause = PAUSE_MIN;
        while !done()? {
            let waited = start.elapsed();
            if waited > self.limit {
                return Err(EngineError::Stuck { what, seconds: self.limit.as_secs() });
            }
            if waited < self.spin {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_not_waited_for_and_failures_end_the_wait() {
        let completion = Completion::new(0);
        let mut looks = 0;
        let done = completion.until("test", || {
            looks += 1;
            Ok(looks == 4)
        });
        assert!(done.is_ok());
        assert_eq!(looks, 4);
        let failed = completion.until("test", || Err(EngineError::Pipeline("gone")));
        assert!(matches!(failed, Err(EngineError::Pipeline("gone"))));
    }

    #[test]
    fn a_wait_has_an_end() {
        for spin_us in [0, 1000] {
            let completion = Completion { limit: Duration::ZERO, ..Completion::new(spin_us) };
            let error = completion.until("a batch", || Ok(false)).unwrap_err();
            assert!(error.to_string().starts_with("a batch did not finish"), "{error}");
        }
    }
}
