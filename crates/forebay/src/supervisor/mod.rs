//! The supervisor: which rungs are up, what follows when one falls, what level that makes.
//!
//! [`actor`] is linked to every worker and every stage of the host; it decides nothing itself.
//! [`ladder`] says what each rung does next and what the serving rungs amount to, [`end_cause`] why
//! a worker ended, [`devices`] what is known of the devices, [`chronicle`] what goes into the event
//! log; [`inject`] takes requests for faults, [`pin`] the
//! operator's cap on the level, and [`board`] is what everybody else may
//! read of it all without asking.

mod actor;
mod board;
mod chronicle;
mod devices;
mod end_cause;
mod follow;
mod heartbeat;
mod inject;
mod ladder;
mod level;
mod pin;

pub(crate) use actor::{
    MAILBOX, Orphaned, Shutdown, Supervisor, SupervisorArgs, WorkerEnded, WorkerLost, WorkerReady,
    WorkerStuck,
};
pub(crate) use board::Board;
pub use board::{HealthWatch, LevelWatch, WorkerStatus};
pub(crate) use devices::{DeviceReport, Release};
pub(crate) use end_cause::EndCause;
pub use heartbeat::{Health, HealthReason};
pub(crate) use inject::{FaultHook, FaultHooks, Inject};
pub use ladder::{QuarantineReason, WorkerState};
pub use level::Level;
pub(crate) use pin::Pin;

#[cfg(any(test, feature = "simulation"))]
pub(crate) use ladder::{
    Action as LadderAction, Change, DeviceNews, Event as LadderEvent, LAPSED, Ladder, Limits,
    Restored,
};
