//! Soak tests of an embedding runtime: load that does not wait for the runtime, faults by seed,
//! answers that are known, measurements over hours, a verdict, and a report.
//!
//! ```text
//! profile ─▶ schedule, plan, texts ─▶ driver ─▶ target (library, or a server in three dialects)
//!            faults ─────────────────▶ injector ─▶    │ answers
//!                                      observer ◀─────┤
//!                    recorder ◀── events ─────────────┘
//!                     │     └─▶ history ─▶ forebay-checker ─┐
//!                     └─▶ figures ──────────────────────────┴─▶ verdict ─▶ report
//! ```
//! What is right is said twice: here for the figures, and in `forebay-checker`, which sees nothing but
//! the history, for the verdict.

pub mod capacity;
mod clock;
mod driver;
mod error;
mod event;
pub mod faults;
pub mod follow;
mod heartbeat;
mod history;
mod injector;
mod observer;
pub mod oracle;
pub mod plan;
pub mod profile;
mod recorder;
pub mod report;
mod run;
pub mod samples;
pub mod schedule;
pub mod stats;
mod sync;
pub mod targets;
pub mod texts;
pub mod verdict;

pub use error::SoakError;
pub use heartbeat::Beats;
pub use observer::{DeviceSample, LevelChange};
pub use oracle::Oracle;
pub use profile::Profile;
pub use recorder::SoFar;
pub use report::Report;
pub use run::{Run, RunOptions, run};
pub use verdict::{Code, Verdict};
