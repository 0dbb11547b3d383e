//! One event: its number, its cause, its times and what happened. Plain data.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::format::SEQUENCE_MAX;
use super::kind::EventKind;

/// The number of an event. The first of a log is 1; each event has the next one, across restarts.
///
/// Events that were recorded and not written when the program was killed or the power failed leave
/// no trace, and the next run gives their numbers again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct EventId(pub u64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl FromStr for EventId {
    type Err = String;

    /// A number, with or without the `#` that it is shown with.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        match digits.parse() {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(format!("`{text}` is not the number of an event; write 42 or #42")),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub id: EventId,
    /// The event that led to it; `None` for what came from outside.
    pub cause: Option<EventId>,
    /// The boot of the system in which it happened, as in `/proc/sys/kernel/random/boot_id`; empty
    /// if that is not known.
    pub boot: String,
    /// Nanoseconds since that boot, times of sleep included (`CLOCK_BOOTTIME`).
    pub mono_ns: u64,
    /// Time of day by the clock of the system, which may jump.
    #[serde(rename = "wall_ns", with = "unix_ns")]
    pub wall: SystemTime,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// Time from `earlier` to this event: by the clock that does not jump if both happened in one
    /// boot, else by the time of day. Zero if it would be negative.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        if self.boot == earlier.boot && !self.boot.is_empty() {
            Duration::from_nanos(self.mono_ns.saturating_sub(earlier.mono_ns))
        } else {
            self.wall.duration_since(earlier.wall).unwrap_or_default()
        }
    }

    /// The number after the last one that this event accounts for.
    pub(super) fn end(&self) -> u64 {
        let numbers = if let EventKind::Lost { events } = self.kind { events.max(1) } else { 1 };
        self.id.0.saturating_add(numbers).min(SEQUENCE_MAX)
    }
}

/// Nanoseconds since 1970, 0 for times before.
pub(super) fn to_unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn from_unix_ns(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}

mod unix_ns {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(super::to_unix_ns(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        u64::deserialize(deserializer).map(super::from_unix_ns)
    }
}
