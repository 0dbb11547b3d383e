//! What is known about the rungs, written by the supervisor and readable by anybody at any time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::level::Level;
use crate::config::Device;

/// What a rung is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Its process is on the way to being ready.
    Starting,
    /// It takes batches.
    Serving,
    /// It waits before its next start.
    Backoff,
    /// It is only probed now and then.
    Quarantined,
    /// It was told to end.
    Stopped,
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// The device, such as `cpu`.
    pub device: String,
    /// What it is doing.
    pub state: WorkerState,
    /// Process id of the worker, while there is one that serves.
    pub pid: Option<u32>,
    /// How often its process has been started.
    pub incarnation: u64,
    /// Restarts so far.
    pub restarts: u64,
    /// The engine and its version, once known.
    pub engine: String,
    /// Arithmetic of the encoder, once known.
    pub precision: String,
    /// What else the engine said of itself when it last started, by name.
    pub details: BTreeMap<String, String>,
    /// How long the latest start took.
    pub start_time: Option<Duration>,
    /// Why it last ended, if it did.
    pub last_end: Option<String>,
}

struct Rung {
    device: Device,
    status: WorkerStatus,
    /// Its first start has come to an end.
    settled: bool,
}

/// The board of one runtime.
pub(crate) struct Board {
    rungs: Mutex<Vec<Rung>>,
    level: watch::Sender<Level>,
    started: watch::Sender<Option<Result<(), String>>>,
    settled: watch::Sender<bool>,
    up_since: Instant,
}

impl Board {
    pub(crate) fn new(devices: &[Device]) -> Self {
        let rung = |device: &Device| Rung {
            device: *device,
            settled: false,
            status: WorkerStatus {
                device: device.to_string(),
                state: WorkerState::Starting,
                pid: None,
                incarnation: 0,
                restarts: 0,
                engine: String::new(),
                precision: String::new(),
                details: BTreeMap::new(),
                start_time: None,
                last_end: None,
            },
        };
        Self {
            rungs: Mutex::new(devices.iter().map(rung).collect()),
            level: watch::Sender::new(Level::Down),
            started: watch::Sender::new(None),
            settled: watch::Sender::new(false),
            up_since: Instant::now(),
        }
    }

    /// Changes one rung and shows the level that results; says whether the level changed.
    pub(crate) fn update(&self, slot: usize, change: impl FnOnce(&mut WorkerStatus)) -> bool {
        let mut rungs = self.lock();
        if let Some(rung) = rungs.get_mut(slot) {
            change(&mut rung.status);
            rung.settled |= rung.status.state != WorkerState::Starting;
        }
        let serving = rungs.iter().filter(|rung| rung.status.state == WorkerState::Serving);
        let level = Level::of(serving.map(|rung| rung.device));
        // Under the lock, so that two changes cannot show their levels in the wrong order.
        let changed = self.level.send_if_modified(|shown| std::mem::replace(shown, level) != level);
        // Whoever waits for this looks at the level next.
        if rungs.iter().all(|rung| rung.settled) {
            self.settled.send_replace(true);
        }
        changed
    }

    /// The runtime itself cannot go on: nothing serves from now on, whatever the workers do.
    pub(crate) fn fail(&self, reason: &str) {
        for rung in self.lock().iter_mut() {
            rung.settled = true;
            rung.status.state = WorkerState::Stopped;
            rung.status.last_end = Some(reason.to_owned());
        }
        self.update(usize::MAX, |_| ());
        self.first_outcome(Err(reason.to_owned()));
    }

    pub(crate) fn level(&self) -> Level {
        *self.level.borrow()
    }

    /// A watch on the level whose waits by plain threads use the timers of `handle`'s runtime.
    pub(crate) fn watch(&self, timers: Handle) -> LevelWatch {
        LevelWatch { level: self.level.subscribe(), timers }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        self.lock().iter().map(|rung| rung.status.clone()).collect()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.up_since.elapsed()
    }

    /// Whether any rung serves or will be tried again soon.
    pub(crate) fn hopeless(&self) -> Option<String> {
        let rungs = self.lock();
        let lost = |rung: &Rung| {
            matches!(rung.status.state, WorkerState::Quarantined | WorkerState::Stopped)
        };
        rungs.iter().all(lost).then(|| {
            let reasons: Vec<String> = rungs
                .iter()
                .map(|rung| {
                    let reason = rung.status.last_end.as_deref().unwrap_or("stopped");
                    format!("{}: {reason}", rung.status.device)
                })
                .collect();
            reasons.join("; ")
        })
    }

    /// The outcome of the first start, once: a rung serves, or none will.
    pub(crate) fn first_outcome(&self, outcome: Result<(), String>) {
        self.started.send_if_modified(|shown| {
            let first = shown.is_none();
            shown.get_or_insert(outcome);
            first
        });
    }

    pub(crate) async fn wait_for_first_outcome(&self) -> Result<(), String> {
        let mut started = self.started.subscribe();
        let outcome = started.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err("supervisor has ended".to_owned()),
        }
    }

    pub(crate) async fn wait_until_settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender lives as long as this board.
        settled.wait_for(|settled| *settled).await.ok();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rung>> {
        // The rungs are plain values: whatever panicked left them readable.
        self.rungs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of changes of the level. It can be waited for in any executor or by a plain thread.
#[derive(Debug, Clone)]
pub struct LevelWatch {
    level: watch::Receiver<Level>,
    timers: Handle,
}

impl LevelWatch {
    /// The level now.
    #[must_use]
    pub fn current(&self) -> Level {
        *self.level.borrow()
    }

    /// Waits for the next change; `None` once the runtime is gone.
    pub async fn changed(&mut self) -> Option<Level> {
        self.level.changed().await.ok()?;
        Some(*self.level.borrow_and_update())
    }

    /// Blocks this thread until the next change, for `limit` at most; `None` if there is none by
    /// then or the runtime is gone.
    pub fn wait_changed(&mut self, limit: Duration) -> Option<Level> {
        let timers = self.timers.clone();
        let _entered = timers.enter();
        block_on(tokio::time::timeout(limit, self.changed())).ok().flatten()
    }

    /// Waits until the level is at least `level`; `false` if the runtime ends first.
    pub async fn reached(&mut self, level: Level) -> bool {
        self.level.wait_for(|current| *current >= level).await.is_ok()
    }
}
