//! The event log: what happened to workers, devices and the service level, with times and causes.
//!
//! [`EventLog::record`] numbers an event, keeps it in memory and hands it to a thread that appends
//! it to a ring of files; it never waits for a disk and cannot fail. [`read`] reads such a folder
//! back, whatever state a crash, a loss of power or a bad disk left it in: it returns every
//! undamaged record in order and says where something is damaged or missing. On top of both are two
//! pure functions: [`explain`] follows one event to its causes and consequences, and
//! [`standing_quarantines`] says which devices an earlier run had put away. `docs/event-log.md`
//! describes the format.
//!
//! Nothing here decides anything about workers or devices, and no event carries a text that was
//! embedded.

mod clock;
mod disk;
mod format;
mod history;
mod kind;
mod log;
mod quarantine;
mod queue;
mod read;
mod record;
mod story;
mod writer;

#[cfg(test)]
mod tests;

pub use clock::boot_id;
pub use history::{Damage, DamageKind, EventHistory, EventReadError, Gap};
pub use kind::EventKind;
pub use log::{EventLog, EventLogError};
pub use quarantine::{StandingQuarantine, standing_quarantines};
pub use read::{Follower, read};
pub use record::{Event, EventId};
pub use story::{Step, Story, explain};
