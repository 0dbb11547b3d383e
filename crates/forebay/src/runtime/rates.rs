//! How fast a runtime is, how full, and whether it would serve a text now: for status and readiness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::Runtime;
use crate::admission::Admission;
use crate::dispatch::core::VitalSigns;
use crate::priority::Priority;
use crate::supervisor::{Health, HealthReason, Level};

/// The dispatcher goes round its loop at least once a second. One that has not for so long hangs,
/// or the machine has no time for it at all; nothing would be computed either way.
const BEAT_AGE_MAX: Duration = Duration::from_secs(5);

/// How fast the workers are and how many texts are under way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Tokens per second that the workers which serve compute together, as measured of what they
    /// computed lately; 0 before any measurement or while nothing serves.
    pub tokens_per_s: f64,
    /// The same in texts of the mean length of those that came lately; 0 before the first.
    pub texts_per_s: f64,
    /// Texts accepted and not answered, by class in the order of [`Priority::ALL`].
    pub under_way: [usize; 3],
    /// Texts that may be under way now, by class in the order of [`Priority::ALL`]: it follows what
    /// the workers are measured to compute in time.
    pub limits: [usize; 3],
}

/// Whether a runtime would serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Some rung serves, and there is room for an interactive text.
    pub ready: bool,
    /// Why, or why not.
    pub reason: ReadyReason,
}

/// Why a runtime is ready or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyReason {
    /// It serves.
    Serving,
    /// No rung serves.
    NothingServes,
    /// As many interactive texts are under way as are computed in time: another is refused or waits.
    Full,
    /// It ends.
    Stopping,
    /// A part of the host has failed or hangs; only a restart of the program helps.
    HostFailed,
}

impl ReadyReason {
    /// Its name in status and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NothingServes => "nothing_serves",
            Self::Full => "full",
            Self::Stopping => "stopping",
            Self::HostFailed => "host_failed",
        }
    }
}

impl std::fmt::Display for ReadyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The measured capacity as the dispatcher last published it. Each number is whole by itself.
#[derive(Debug, Default)]
pub(super) struct Measured {
    tokens_per_s: AtomicU64,
    texts_per_s: AtomicU64,
}

impl Measured {
    pub(super) fn set(&self, signs: &VitalSigns) {
        self.tokens_per_s.store(signs.capacity_tokens_per_s.to_bits(), Ordering::Relaxed);
        self.texts_per_s.store(signs.capacity_texts_per_s.to_bits(), Ordering::Relaxed);
    }

    fn rates(&self, gate: &Admission) -> Rates {
        let read = |number: &AtomicU64| f64::from_bits(number.load(Ordering::Relaxed));
        Rates {
            tokens_per_s: read(&self.tokens_per_s),
            texts_per_s: read(&self.texts_per_s),
            under_way: gate.all_under_way(),
            limits: Priority::ALL.map(|priority| gate.limit(priority)),
        }
    }
}

impl Runtime {
    /// How fast it is and how full. A few atomic loads; no lock is held for long.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.measured.rates(&self.admission)
    }

    /// Whether it would take an interactive text now and compute it: some rung serves, and its gate
    /// has room.
    #[must_use]
    pub fn is_ready(&self) -> Ready {
        let priority = Priority::Interactive;
        let room = self.admission.under_way(priority) < self.admission.limit(priority);
        ready(self.health(), self.admission.is_closed(), room)
    }
}

fn ready(health: Health, is_closed: bool, room: bool) -> Ready {
    let hangs = health.beat_age > BEAT_AGE_MAX;
    let reason = match health.reason {
        HealthReason::Stopping => ReadyReason::Stopping,
        HealthReason::HostFailed => ReadyReason::HostFailed,
        _ if hangs => ReadyReason::HostFailed,
        _ if is_closed => ReadyReason::Stopping,
        _ if health.level == Level::Down => ReadyReason::NothingServes,
        _ if !room => ReadyReason::Full,
        _ => ReadyReason::Serving,
    };
    Ready { ready: reason == ReadyReason::Serving, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(level: Level, reason: HealthReason) -> Health {
        Health {
            level,
            reason,
            capacity_ktokens_per_s: 0,
            worst_age: Duration::ZERO,
            beat_age: Duration::ZERO,
        }
    }

    #[test]
    fn it_is_ready_only_while_it_serves_and_has_room() {
        let well = health(Level::Cpu, HealthReason::Quarantined);
        let reason = |health, closed, room| ready(health, closed, room).reason;
        assert_eq!(ready(well, false, true), Ready { ready: true, reason: ReadyReason::Serving });
        assert_eq!(reason(well, false, false), ReadyReason::Full);
        assert_eq!(reason(well, true, true), ReadyReason::Stopping);
        let down = health(Level::Down, HealthReason::Recovering);
        assert_eq!(reason(down, false, true), ReadyReason::NothingServes);
        let stopping = health(Level::Cpu, HealthReason::Stopping);
        assert_eq!(reason(stopping, false, true), ReadyReason::Stopping);
        let hangs = Health { beat_age: Duration::from_secs(6), ..well };
        assert_eq!(reason(hangs, false, true), ReadyReason::HostFailed);
        let failed = health(Level::Down, HealthReason::HostFailed);
        assert!(!ready(failed, true, true).ready);
    }
}
