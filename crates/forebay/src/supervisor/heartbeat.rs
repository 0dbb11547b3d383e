//! What a controller reads in its loop: level, reason, capacity and worst age in one atomic word,
//! and when the dispatcher last showed that it is alive in another. Reading takes no lock, makes no
//! call and never waits.
//!
//! The supervisor writes level and reason, the dispatcher the rest; each replaces its own part of
//! the word.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::level::Level;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Why the level is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum HealthReason {
    /// Every rung serves.
    Nominal = 0,
    /// A rung has yet to come to the end of its first start.
    Starting = 1,
    /// A rung has failed and is on its way back.
    Recovering = 2,
    /// A worker is late with its answers.
    Late = 3,
    /// A rung is in quarantine: it is only probed, or waits for help from outside.
    Quarantined = 4,
    /// The runtime ends.
    Stopping = 5,
    /// A part of the host has failed; nothing is served any more.
    HostFailed = 6,
    /// The operator has capped the level.
    Capped = 7,
}

impl HealthReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Nominal,
        Self::Starting,
        Self::Recovering,
        Self::Late,
        Self::Quarantined,
        Self::Stopping,
        Self::HostFailed,
        Self::Capped,
    ];
}

/// The state of a runtime, as one look at its heartbeat shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Health {
    /// How well it can serve.
    pub level: Level,
    /// Why not better.
    pub reason: HealthReason,
    /// Tokens per second that the workers which serve have been measured at together, in thousands;
    /// 0 before any measurement.
    pub capacity_ktokens_per_s: u32,
    /// Age of the oldest text that is accepted and not answered; at most about 4.6 hours are shown.
    pub worst_age: Duration,
    /// Time since the dispatcher last went round its loop, which it does at least once a second. A
    /// greater age than a few seconds means that nothing else here can be believed.
    pub beat_age: Duration,
}

const LEVEL_SHIFT: u32 = 56;
const REASON_SHIFT: u32 = 48;
const CAPACITY_SHIFT: u32 = 24;
const FIELD: u64 = 0xff_ffff;
const STANDING: u64 = !0 << REASON_SHIFT;

/// The heartbeat of one runtime.
pub(crate) struct Heartbeat {
    word: AtomicU64,
    beat_us: AtomicU64,
    start: Instant,
}

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        let word = u64::from(HealthReason::Starting as u8) << REASON_SHIFT;
        Self { word: AtomicU64::new(word), beat_us: AtomicU64::new(0), start: now }
    }

    /// The supervisor's part.
    pub(crate) fn set_level(&self, level: Level, reason: HealthReason) {
        let level = u64::from(u8::try_from(level.gauge()).unwrap_or(u8::MAX));
        let standing = (level << LEVEL_SHIFT) | (u64::from(reason as u8) << REASON_SHIFT);
        self.replace(STANDING, standing);
    }

    /// The dispatcher's part: it goes round its loop at `now`.
    pub(crate) fn beat(&self, now: Instant, tokens_per_s: f64, worst_age: Duration) {
        // A float that is too large, or none, becomes the nearest bound.
        let capacity = ((tokens_per_s / 1_000.0) as u64).min(FIELD);
        let age_ms = u64::try_from(worst_age.as_millis()).unwrap_or(FIELD).min(FIELD);
        self.replace(!STANDING, (capacity << CAPACITY_SHIFT) | age_ms);
        self.beat_us.store(self.micros(now), Ordering::Release);
    }

    /// One look.
    pub(crate) fn read(&self, now: Instant) -> Health {
        let beat_us = self.beat_us.load(Ordering::Acquire);
        let word = self.word.load(Ordering::Acquire);
        let level = match word >> LEVEL_SHIFT {
            0 => Level::Down,
            1 => Level::Cpu,
            gauge => Level::Gpu(gauge as u32 - 1),
        };
        let code = (word >> REASON_SHIFT) as u8;
        let reason = HealthReason::ALL.into_iter().find(|reason| *reason as u8 == code);
        Health {
            level,
            // Only codes of reasons are ever written.
            reason: reason.unwrap_or(HealthReason::HostFailed),
            capacity_ktokens_per_s: ((word >> CAPACITY_SHIFT) & FIELD) as u32,
            worst_age: Duration::from_millis(word & FIELD),
            beat_age: Duration::from_micros(self.micros(now).saturating_sub(beat_us)),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    fn replace(&self, mask: u64, bits: u64) {
        let update = |word: u64| Some((word & !mask) | (bits & mask));
        // The closure never refuses.
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).ok();
    }
}

#[cfg(all(test, feature = "interleavings"))]
mod interleavings;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_written_is_read_up_to_its_bounds() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.read(start).reason, HealthReason::Starting);
        for level in [Level::Down, Level::Cpu, Level::Gpu(1), Level::Gpu(16)] {
            for reason in HealthReason::ALL {
                heartbeat.set_level(level, reason);
                heartbeat.beat(start, 28e6, Duration::from_millis(1_234));
                let health = heartbeat.read(start + Duration::from_millis(7));
                let expected = Health {
                    level,
                    reason,
                    capacity_ktokens_per_s: 28_000,
                    worst_age: Duration::from_millis(1_234),
                    beat_age: Duration::from_millis(7),
                };
                assert_eq!(health, expected);
            }
        }
        heartbeat.beat(start, f64::INFINITY, Duration::from_secs(1 << 40));
        let health = heartbeat.read(start);
        assert_eq!(health.capacity_ktokens_per_s, 0xff_ffff);
        assert_eq!(health.worst_age, Duration::from_millis(0xff_ffff));
        assert_eq!((health.level, health.reason), (Level::Gpu(16), HealthReason::Capped));
        heartbeat.beat(start, f64::NAN, Duration::ZERO);
        assert_eq!(heartbeat.read(start).capacity_ktokens_per_s, 0);
    }

    #[test]
    fn two_writers_never_undo_each_other() {
        let start = Instant::now();
        let heartbeat = Arc::new(Heartbeat::new(start));
        let other = Arc::clone(&heartbeat);
        let beats = std::thread::spawn(move || {
            for round in 0..50_000_u32 {
                let rate = f64::from(round) * 1_000.0;
                other.beat(start, rate, Duration::ZERO);
                assert_eq!(other.read(start).capacity_ktokens_per_s, round);
            }
        });
        for round in 0..50_000 {
            heartbeat.set_level(Level::Gpu(round % 8 + 1), HealthReason::Nominal);
            assert_eq!(heartbeat.read(start).level, Level::Gpu(round % 8 + 1));
        }
        beats.join().expect("the other writer found its own");
    }
}
