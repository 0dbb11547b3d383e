//! The supervisor: which rungs are up, what follows when one falls, what level that makes.
//!
//! [`actor`] is linked to every worker and every stage of the host; it decides nothing itself.
//! [`inject`] takes requests for faults. [`policy`] says when a rung is started again, [`level`] what the serving rungs amount to, and
//! [`board`] is what everybody else may read of it without asking.

mod actor;
mod board;
mod inject;
mod level;
mod policy;

pub(crate) use actor::{MAILBOX, Shutdown, Supervisor, SupervisorArgs, WorkerEnded, WorkerReady};
pub(crate) use board::Board;
pub use board::{LevelWatch, WorkerState, WorkerStatus};
pub(crate) use inject::{FaultHooks, Inject};
pub use level::Level;
pub(crate) use policy::EndCause;
