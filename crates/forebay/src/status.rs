//! One look at the whole runtime, for people and for health endpoints.

use std::time::Duration;

use serde::Serialize;

use crate::priority::Priority;
use crate::supervisor::{Level, WorkerStatus};

/// Texts of one class that are accepted and not yet answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueStatus {
    /// The class.
    pub priority: Priority,
    /// Accepted and not yet answered.
    pub under_way: usize,
    /// Beyond this many, further ones are refused or wait: follows what the workers that serve are
    /// measured to compute.
    pub limit: usize,
    /// The most that the limit can be, as configured.
    pub requests_max: usize,
}

/// What one thread of the host has done. Counts that stand still while texts are under way are a
/// stage that hangs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Name of the stage and of its thread.
    pub stage: &'static str,
    /// Items completed.
    pub items: u64,
    /// Time spent on them.
    pub busy: Duration,
}

/// The state of a runtime at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How well it can serve.
    pub level: Level,
    /// The operator's cap on the level, if there is one.
    pub pinned: Option<Level>,
    /// Each rung, best first.
    pub workers: Vec<WorkerStatus>,
    /// Each class.
    pub queues: Vec<QueueStatus>,
    /// Each thread of the host's pipeline.
    pub stages: Vec<StageStatus>,
    /// Time since the start.
    pub uptime: Duration,
}
