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
    /// Beyond this many, further ones are refused or wait.
    pub requests_max: usize,
}

/// The state of a runtime at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How well it can serve.
    pub level: Level,
    /// Each rung, best first.
    pub workers: Vec<WorkerStatus>,
    /// Each class.
    pub queues: Vec<QueueStatus>,
    /// Time since the start.
    pub uptime: Duration,
}
