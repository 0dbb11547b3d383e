//! Waiting for the device on the host, soon after its end and with little polling.
//!
//! A blocking wait of the driver costs tens of microseconds to wake up from, and so may a sleep. So
//! a wait sleeps until shortly before the end that it expects, then looks without a pause for a
//! bounded time, and then with short pauses. What it expects is what batches of about the same size
//! took lately. A wrong expectation costs time and never a result, and no wait is endless: a device
//! that does not finish in a time that no batch needs is an error of its own.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::error::EngineError;
use crate::edge::Event;

/// A pause between two looks is this part of the time waited so far, and so is the most that it
/// adds to it; from [`PAUSE_MIN`] to [`PAUSE_MAX`].
const PAUSE_SHARE: u32 = 16;
const PAUSE_MIN: Duration = Duration::from_micros(10);
const PAUSE_MAX: Duration = Duration::from_micros(50);

/// Longer than any batch can take, with kernels compiled and products measured on the way.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(120);

/// Batches of one size that must have been seen before their end is expected: the first one may
/// have been slow for a reason of its own.
const TRUSTED_AFTER: u8 = 2;

/// Sizes that are kept apart: four for each power of two.
const CLASSES: usize = 128;

/// How late the kernel may wake a thread that waits here, in nanoseconds. Its default is fifty times
/// as much.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::new(1000).unwrap();

/// Work that the device has been given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enqueued {
    /// Its size.
    pub tokens: u32,
    /// When the last of it was given.
    pub at: Instant,
}

impl Enqueued {
    /// Work of this size, given just now.
    pub(crate) fn now(tokens: u32) -> Self {
        Self { tokens, at: Instant::now() }
    }
}

/// Time as a wait sees it.
pub(crate) trait Clock {
    /// The time.
    fn now(&self) -> Instant;
    /// Sleeps for about this long.
    fn sleep(&self, time: Duration);
}

/// The machine's own time. Sleeps end punctually, which is asked for once in each thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        thread_local!(static PUNCTUAL: Cell<bool> = const { Cell::new(false) });
        if !PUNCTUAL.replace(true)
            && let Err(error) = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS))
        {
            tracing::debug!(%error, "sleeps of this thread may end late");
        }
        std::thread::sleep(time);
    }
}

/// What batches of one size took lately.
#[derive(Debug, Clone, Copy, Default)]
struct Typical {
    time: Duration,
    seen: u8,
}

impl Typical {
    fn trusted(self) -> Option<Duration> {
        (self.seen >= TRUSTED_AFTER).then_some(self.time)
    }

    /// Follows shorter times at once and longer ones slowly: too short an expectation costs
    /// polling, too long a one costs latency.
    fn add(&mut self, time: Duration) {
        self.time = match self.seen {
            0 => time,
            _ if time <= self.time => time,
            _ => self.time + (time - self.time) / 8,
        };
        self.seen = self.seen.saturating_add(1);
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It was over before the first look.
    Before,
    /// It was over after a sleep, before the next look.
    Slept,
    /// Between two looks.
    Between,
}

/// How one thread waits, with what it has learned.
#[derive(Debug)]
pub(crate) struct Completion<C = MachineClock> {
    spin: Duration,
    limit: Duration,
    typical: [Typical; CLASSES],
    /// When the last batch was seen to be over: the next one ran alone from then on.
    last_end: Option<Instant>,
    clock: C,
}

impl Completion {
    /// Looks without a pause for at most `spin_us` in each wait.
    pub(crate) fn new(spin_us: u32) -> Self {
        Self::with_clock(spin_us, MachineClock)
    }
}

impl<C: Clock> Completion<C> {
    fn with_clock(spin_us: u32, clock: C) -> Self {
        Self {
            spin: Duration::from_micros(u64::from(spin_us)),
            limit: STUCK_AFTER,
            typical: [Typical::default(); CLASSES],
            last_end: None,
            clock,
        }
    }

    /// Waits until `event` is complete, without an idea of when that is. `what` is a word for the
    /// error.
    ///
    /// # Errors
    /// [`EngineError::Stuck`]; the failure of the work before the event.
    pub(crate) fn wait(&self, event: &Event, what: &'static str) -> Result<(), EngineError> {
        self.until(None, what, || Ok(event.is_complete()?)).map(|_| ())
    }

    /// Waits until `event`, the end of the batch `work`, is complete. Batches are waited for in the
    /// order in which the device runs them.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub(crate) fn wait_for(
        &mut self,
        event: &Event,
        work: Enqueued,
        what: &'static str,
    ) -> Result<(), EngineError> {
        self.batch(work, what, || Ok(event.is_complete()?))
    }

    fn batch(
        &mut self,
        work: Enqueued,
        what: &'static str,
        done: impl FnMut() -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let begun = self.last_end.map_or(work.at, |end| end.max(work.at));
        let class = class(work.tokens);
        let expected = self.typical[class].trusted().map(|time| begun + time);
        let seen = self.until(expected, what, done)?;
        let end = self.clock.now();
        let took = end.saturating_duration_since(begun);
        let typical = &mut self.typical[class];
        match seen {
            Seen::Between => typical.add(took),
            // Nobody knows when it ended, only that the expectation was wrong.
            Seen::Slept => *typical = Typical::default(),
            // It took no longer than this, which is news only if it is short.
            Seen::Before if took < typical.time => typical.add(took),
            Seen::Before => {}
        }
        self.last_end = Some(end);
        Ok(())
    }

    fn until(
        &self,
        expected: Option<Instant>,
        what: &'static str,
        mut done: impl FnMut() -> Result<bool, EngineError>,
    ) -> Result<Seen, EngineError> {
        let start = self.clock.now();
        if done()? {
            return Ok(Seen::Before);
        }
        let left = expected.map_or(Duration::ZERO, |end| end.saturating_duration_since(start));
        // Half of the polling is for an end that is early or a sleep that is long.
        if left > self.spin {
            self.clock.sleep((left - self.spin / 2).min(self.limit));
            if done()? {
                return Ok(Seen::Slept);
            }
        }
        let spin_from = self.clock.now();
        loop {
            let now = self.clock.now();
            let waited = now.saturating_duration_since(start);
            if waited > self.limit {
                return Err(EngineError::Stuck { what, seconds: self.limit.as_secs() });
            }
            if now.saturating_duration_since(spin_from) < self.spin {
                std::hint::spin_loop();
            } else {
                self.clock.sleep((waited / PAUSE_SHARE).clamp(PAUSE_MIN, PAUSE_MAX));
            }
            if done()? {
                return Ok(Seen::Between);
            }
        }
    }
}

/// Batches of one class differ in size by a quarter at most.
fn class(tokens: u32) -> usize {
    let tokens = u64::from(tokens.max(1));
    let log = tokens.ilog2();
    let quarter = ((tokens << 2) >> log) & 3;
    (4 * u64::from(log) + quarter) as usize
}

#[cfg(test)]
#[path = "completion_tests.rs"]
mod tests;
