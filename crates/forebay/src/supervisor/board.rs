//! What is known about the rungs, written by the supervisor and readable by anybody at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::heartbeat::{Health, HealthReason, Heartbeat};
use super::ladder::WorkerState;
use super::level::Level;
use crate::config::Device;

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// The device, such as `cpu`.
    pub device: String,
    /// What it is doing.
    pub state: WorkerState,
    /// Since when it has been doing that.
    pub since: Duration,
    /// Process id of the worker, while there is one that is ready.
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

/// The board of one runtime.
pub(crate) struct Board {
    rungs: Mutex<Vec<Rung>>,
    level: watch::Sender<Level>,
    health: watch::Sender<(Level, HealthReason)>,
    heartbeat: Arc<Heartbeat>,
    started: watch::Sender<Option<Result<(), String>>>,
    settled: watch::Sender<bool>,
    pinned: Mutex<Option<Level>>,
    up_since: Instant,
}

struct Rung {
    status: WorkerStatus,
    since: Instant,
}

impl Board {
    pub(crate) fn new(devices: &[Device]) -> Self {
        let now = Instant::now();
        let rung = |device: &Device| Rung {
            since: now,
            status: WorkerStatus {
                device: device.to_string(),
                state: WorkerState::Absent,
                since: Duration::ZERO,
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
            health: watch::Sender::new((Level::Down, HealthReason::Starting)),
            heartbeat: Arc::new(Heartbeat::new(now)),
            started: watch::Sender::new(None),
            settled: watch::Sender::new(false),
            pinned: Mutex::new(None),
            up_since: now,
        }
    }

    /// Changes what is shown of one rung.
    pub(crate) fn update(&self, slot: usize, change: impl FnOnce(&mut WorkerStatus)) {
        if let Some(rung) = self.lock().get_mut(slot) {
            let before = rung.status.state;
            change(&mut rung.status);
            if rung.status.state != before {
                rung.since = Instant::now();
            }
        }
    }

    /// Shows the level and why it is no better.
    pub(crate) fn show(&self, level: Level, reason: HealthReason) {
        self.heartbeat.set_level(level, reason);
        self.level.send_if_modified(|shown| std::mem::replace(shown, level) != level);
        let health = (level, reason);
        self.health.send_if_modified(|shown| std::mem::replace(shown, health) != health);
    }

    /// Every rung has come to the end of its first start.
    pub(crate) fn settle(&self) {
        self.settled.send_replace(true);
    }

    /// The runtime itself cannot go on: nothing serves from now on, whatever the workers do.
    pub(crate) fn fail(&self, reason: &str) {
        for rung in self.lock().iter_mut() {
            rung.status.state = WorkerState::Absent;
            rung.status.last_end = Some(reason.to_owned());
        }
        self.show(Level::Down, HealthReason::HostFailed);
        self.settle();
        self.first_outcome(Err(reason.to_owned()));
    }

    /// Shows the operator's cap on the level.
    pub(crate) fn pin(&self, cap: Option<Level>) {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = cap;
    }

    /// The operator's cap on the level.
    pub(crate) fn pinned(&self) -> Option<Level> {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn level(&self) -> Level {
        *self.level.borrow()
    }

    pub(crate) fn heartbeat(&self) -> &Arc<Heartbeat> {
        &self.heartbeat
    }

    /// A watch on the level whose waits by plain threads use the timers of `handle`'s runtime.
    pub(crate) fn watch(&self, timers: Handle) -> LevelWatch {
        LevelWatch { level: self.level.subscribe(), timers }
    }

    /// A watch on level and reason.
    pub(crate) fn watch_health(&self) -> HealthWatch {
        HealthWatch { health: self.health.subscribe(), heartbeat: Arc::clone(&self.heartbeat) }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        let status =
            |rung: &Rung| WorkerStatus { since: rung.since.elapsed(), ..rung.status.clone() };
        self.lock().iter().map(status).collect()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.up_since.elapsed()
    }

    /// Why each rung last ended, in words.
    pub(crate) fn last_ends(&self) -> String {
        let said = |rung: &Rung| {
            let reason = rung.status.last_end.as_deref().unwrap_or("stopped");
            format!("{}: {reason}", rung.status.device)
        };
        self.lock().iter().map(said).collect::<Vec<_>>().join("; ")
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

/// Tells of changes of the level or of the reason for it.
#[derive(Clone)]
pub struct HealthWatch {
    health: watch::Receiver<(Level, HealthReason)>,
    heartbeat: Arc<Heartbeat>,
}

impl HealthWatch {
    /// The heartbeat now.
    #[must_use]
    pub fn current(&self) -> Health {
        self.heartbeat.read(Instant::now())
    }

    /// Waits for the next change of level or reason; `None` once the runtime is gone.
    pub async fn changed(&mut self) -> Option<Health> {
        self.health.changed().await.ok()?;
        let (level, reason) = *self.health.borrow_and_update();
        // What changed is told even if it has changed again since.
        Some(Health { level, reason, ..self.current() })
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
