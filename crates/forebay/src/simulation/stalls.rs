//! Times in which nothing goes on as usual: the host or everything stands still, messages take long,
//! a worker stops for a while; and how long nothing has served.

use std::time::{Duration, Instant};

use rand::Rng;

use super::checks::Checked;
use super::script::GRACE;
use super::world::{Due, World};
use crate::dispatch::WorkerId;
use crate::dispatch::core::IDLE;

/// How long messages may be under way between two parts of the host.
const MESSAGES: Duration = Duration::from_millis(20);
/// How much longer while a part of it is busy.
const BUSY: Duration = Duration::from_millis(50);

/// Time that the host has at least between two times in which it stands still.
const BETWEEN_STANDSTILLS: Duration = Duration::from_millis(50);

/// What stands still when the clock jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// The host's process: its workers go on, and what they send waits.
    Host,
    /// The machine, or all of its processes.
    Everything,
}

/// The last time in which nothing served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Downtime {
    since: Instant,
    until: Option<Instant>,
    /// Nothing was to be hoped for, at some moment of it.
    hopeless: bool,
}

impl Downtime {
    pub(super) fn new(start: Instant) -> Self {
        Self { since: start, until: None, hopeless: false }
    }

    pub(super) fn observe(&mut self, serves: bool, hopeless: bool, late: Duration, now: Instant) {
        if serves {
            self.until.get_or_insert(now);
            return;
        }
        if self.until.take().is_some_and(|until| until + late < now) {
            *self = Self::new(now);
        }
        self.hopeless |= hopeless;
    }

    /// Whether a text may be told now that nothing serves, by a dispatcher that hears late.
    pub(super) fn excuses(&self, late: Duration, now: Instant) -> bool {
        let lasts = self.until.is_none_or(|until| now <= until + late);
        let lasted = self.until.unwrap_or(now).saturating_duration_since(self.since);
        // When it began the dispatcher may have heard before the ladder, and later than usual.
        let heard_before = late.max(MESSAGES + 2 * BUSY);
        lasts && (self.hopeless || lasted + heard_before >= GRACE)
    }
}

impl World {
    pub(super) fn is_busy(&self) -> bool {
        self.now < self.busy_until
    }

    /// How long it may take at this moment until another part has heard of something.
    pub(super) fn messages(&self) -> Duration {
        // What was sent while it was busy is under way for a while yet.
        match self.now < self.busy_until + 2 * BUSY {
            true => MESSAGES + 2 * BUSY,
            false => MESSAGES,
        }
    }

    /// How long it may take the dispatcher to hear that something serves again. It cannot see that it
    /// stood still for less than the time for which it may sleep.
    pub(super) fn unheard(&self) -> Duration {
        let since = self.now.saturating_duration_since(self.stood_still_until);
        let unseen = self.stood_still_for.filter(|length| *length <= IDLE && since <= MESSAGES);
        self.messages() + unseen.unwrap_or_default()
    }

    pub(super) fn message_time(&mut self, within_us: u64) -> Duration {
        let within = match self.is_busy() {
            true => BUSY.as_micros() as u64,
            false => within_us,
        };
        Duration::from_micros(self.random.random_range(0..within))
    }

    pub(super) fn get_busy(&mut self) {
        let length = Duration::from_millis(self.random.random_range(10..800));
        self.busy_until = self.busy_until.max(self.now + length);
    }

    /// The worker does nothing for a while, and then goes on with what it was at.
    pub(super) fn pause(&mut self, id: WorkerId) {
        self.change(id, |process| process.stopped = true);
        let length = Duration::from_millis(self.random.random_range(5..700));
        self.at(self.now + length, Due::Resumes(id));
    }

    pub(super) fn resume(&mut self, id: WorkerId) {
        self.sometimes("a worker stood still and went on");
        self.change(id, |process| {
            process.stopped = false;
            process.computing.clear();
        });
    }

    /// How long something stands still: moments, seconds, or as long as a machine sleeps.
    pub(super) fn any_standstill(&mut self) -> Duration {
        let ms = match self.random.random_range(0..10) {
            0..5 => self.random.random_range(5..600),
            5..8 => self.random.random_range(600..10_000),
            _ => self.random.random_range(10_000..7_200_000),
        };
        Duration::from_millis(ms)
    }

    /// The clock jumps.
    pub(super) fn stand_still(&mut self, length: Duration, holds: Holds) -> Checked {
        if self.now < self.stood_still_until + BETWEEN_STANDSTILLS {
            // One that stands still again and again is always held up, and judges all the same.
            let later = self.stood_still_until + BETWEEN_STANDSTILLS;
            self.at(later, Due::StandsStill(length, holds));
            return Ok(());
        }
        self.report.faults += 1;
        self.now += length;
        self.stood_still_until = self.now;
        self.stood_still_for = Some(length);
        match holds {
            Holds::Host => self.sometimes("the host stood still"),
            Holds::Everything => {
                self.sometimes("everything stood still");
                let due = std::mem::take(&mut self.due);
                self.due = due.into_iter().map(|((at, n), due)| ((at + length, n), due)).collect();
                self.last_to_core += length;
                self.last_to_ladder += length;
                self.busy_until += length;
            }
        }
        // Nobody could notice anything meanwhile.
        self.flipped_at.values_mut().chain(self.died_at.values_mut()).for_each(|at| *at += length);
        // The dispatcher may be the first to go on, before it hears what it has missed.
        if self.random.random_bool(0.7) { self.turn() } else { Ok(()) }
    }
}
