//! What is tested: something that takes texts and gives vectors, and perhaps tells how it is.
//!
//! A target reports what came, as it came. Whether that is right is judged elsewhere.

mod address;
mod dialect;
mod grpc;
mod http;
mod library;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use forebay::config::Device;
use forebay::{Fault, Level, Priority};
use futures::future::BoxFuture;
use serde::Serialize;

pub use address::{Address, Place};
pub use dialect::Dialect;
pub use http::{HttpTarget, Server};
pub use library::LibraryTarget;

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number of the request.
    pub number: u64,
    /// The texts.
    pub texts: Vec<String>,
    /// How urgent it is, where the target knows such a thing.
    pub priority: Priority,
    /// When its answer is of no more use. A target that knows deadlines is told what is left of it when
    /// it leaves.
    pub deadline: Option<Instant>,
    /// Time for a connection, where it needs one; without one by then it does not leave.
    pub connection_wait: Duration,
    /// Time for its answer from when it has left; after it no answer is expected any more.
    pub wait: Duration,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Vectors, as many as came.
    Rows(Vec<Vec<f32>>),
    /// The target did not take it; the name of the reason.
    Refused(Cow<'static, str>),
    /// The target took it and answered with an error; its name.
    Error(Cow<'static, str>),
    /// The target took it and answered with success, but with what is no list of vectors; why.
    Unreadable(String),
    /// It is certain that no answer will come; why.
    Lost(String),
}

/// What came of a request, and when it left and was over.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it went out: after it had found a connection.
    pub sent_at: Instant,
    /// When its answer was there, or given up.
    pub over_at: Instant,
    /// What came.
    pub answer: Answer,
}

/// The state of one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerLook {
    /// The device.
    pub device: String,
    /// What it does, as the runtime names it.
    pub state: String,
    /// Its process, if it has one.
    pub pid: Option<u32>,
    /// How often its process has been started.
    pub incarnation: u64,
}

impl WorkerLook {
    /// Whether it takes batches.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.state == "serving"
    }
}

/// One look at a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Look {
    /// The service level, as the runtime names it.
    pub level: String,
    /// The workers.
    pub workers: Vec<WorkerLook>,
    /// Texts that are accepted and not answered.
    pub under_way: u64,
}

impl Look {
    /// The level as one that can be compared; down if it has another name.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.parse().unwrap_or(Level::Down)
    }

    /// The level at which every worker serves that the target has, whether or not it does now.
    #[must_use]
    pub fn best_level(&self) -> Level {
        let devices = self.workers.iter().filter_map(|worker| worker.device.parse::<Device>().ok());
        // One that names no workers is taken for as good as it is.
        Level::of(devices).max(self.level())
    }
}

/// A value that a device shows, such as its temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Its name in the metrics.
    pub name: String,
    /// The device.
    pub device: String,
    /// The value, in the unit of the name.
    pub value: f64,
}

/// An answer that nobody had asked for.
#[derive(Clone, Debug)]
pub struct Stray {
    /// When it was noticed.
    pub at: Instant,
    /// The last request before it on its connection.
    pub request: Option<u64>,
    /// What came.
    pub why: String,
}

/// Waits for an answer as long as one is expected; what there is to say if none came.
async fn within<T>(wait: Duration, answer: impl Future<Output = T>) -> Result<T, Answer> {
    let answered = tokio::time::timeout(wait, answer).await;
    answered.map_err(|_| Answer::Lost(format!("no reply within {} ms", wait.as_millis())))
}

/// Something that is tested.
pub trait Target: Send + Sync {
    /// Its name in reports.
    fn name(&self) -> String;

    /// Sends a request. What has to happen at once happens before this returns.
    fn send(&self, call: Call) -> BoxFuture<'static, Sent>;

    /// Whether it is told of deadlines, and so answers for them.
    fn knows_deadlines(&self) -> bool;

    /// Whether it is one that tells how it is.
    fn tells(&self) -> bool;

    /// How it is; `None` if it does not tell.
    fn look(&self) -> BoxFuture<'_, Option<Look>>;

    /// How often it may be asked how it is.
    fn look_interval(&self) -> Duration;

    /// What its devices show; empty if it does not tell.
    fn readings(&self) -> BoxFuture<'_, Vec<Reading>>;

    /// A counter of its metrics, summed over its labels; `None` if it does not tell.
    fn counted<'t>(&'t self, name: &'t str) -> BoxFuture<'t, Option<u64>>;

    /// Brings a fault about.
    fn inject<'t>(
        &'t self,
        device: Option<&'t str>,
        fault: Fault,
    ) -> BoxFuture<'t, Result<(), String>>;

    /// The process that everything of it descends from, if it is on this machine and known.
    fn root_pid(&self) -> Option<u32>;

    /// The next answer that nobody had asked for.
    fn stray(&self) -> Option<Stray>;

    /// Lets go of what is kept for the next request.
    fn rest(&self);
}
