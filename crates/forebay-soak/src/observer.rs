//! Watches how a target is while it is under load: level, workers, processes, devices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::clock::us_since;
use crate::error::SoakError;
use crate::event::Event;
use crate::samples::{self, Sample};
use crate::sync::lock;
use crate::targets::{Look, Stray, Target};

/// Changes of the level that are kept at most.
const CHANGES_MAX: usize = 100_000;
/// Samples that are kept at most.
const SAMPLES_MAX: usize = 1_000_000;
/// A target that used to tell how it is, and has not for this long, is not there.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// Longest sleep of the sampler: within it, it hears that it is to stop.
const NAP: Duration = Duration::from_millis(50);

/// The level from a moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelChange {
    /// The moment, in seconds since the measured part began.
    pub at_s: f64,
    /// The level.
    pub level: String,
}

/// What a device showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceSample {
    /// When, in seconds since the measured part began.
    pub at_s: f64,
    /// Name of the metric.
    pub name: String,
    /// The device.
    pub device: String,
    /// The value.
    pub value: f64,
}

/// Looks at a target again and again, until it is dropped.
pub(crate) struct Observer {
    looks: watch::Receiver<Option<Look>>,
    changes: Arc<Mutex<Vec<(Instant, String)>>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Observer {
    pub(crate) fn start(
        target: Arc<dyn Target>,
        events: mpsc::Sender<Event>,
        zero: Instant,
    ) -> Self {
        let (tell, looks) = watch::channel(None);
        let changes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&changes);
        let task = tokio::spawn(async move {
            let interval = target.look_interval();
            let mut level = String::new();
            let mut told_at: Option<Instant> = None;
            loop {
                pass_strays(target.as_ref(), &events, zero).await;
                let look = target.look().await;
                if look.is_some() {
                    told_at = Some(Instant::now());
                }
                // A look that fails now and then says nothing: the last one holds.
                let is_gone = told_at.is_some_and(|at| at.elapsed() > SILENT_MAX);
                if let Some(look) = look.or_else(|| is_gone.then(unreachable)) {
                    if look.level != level {
                        level.clone_from(&look.level);
                        let now = Instant::now();
                        let at_us = us_since(zero, now);
                        note(&noted, now, &level);
                        events.send(Event::Level { at_us, level: level.clone() }).await.ok();
                    }
                    tell.send_if_modified(|last| {
                        let is_new = last.as_ref() != Some(&look);
                        *last = Some(look);
                        is_new
                    });
                }
                tokio::time::sleep(interval).await;
            }
        });
        Self { looks, changes, task: Some(task) }
    }

    /// Ends it; it has let go of the target then.
    pub(crate) async fn end(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            task.await.ok();
        }
    }

    /// The latest look; `None` while there is none.
    pub(crate) fn latest(&self) -> Option<Look> {
        self.looks.borrow().clone()
    }

    /// Looks as they come.
    pub(crate) fn looks(&self) -> watch::Receiver<Option<Look>> {
        self.looks.clone()
    }

    /// The changes of the level between two moments, the first of them being the level at `from`.
    pub(crate) fn changes(&self, from: Instant, to: Instant) -> Vec<LevelChange> {
        let mut found: Vec<LevelChange> = Vec::new();
        for (at, level) in lock(&self.changes).iter().filter(|(at, _)| *at <= to) {
            let at_s = at.saturating_duration_since(from).as_secs_f64();
            if *at <= from {
                found.clear();
            }
            found.push(LevelChange { at_s, level: level.clone() });
        }
        found
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Passes on the answers that nobody had asked for. Ended early, it loses none.
pub(crate) async fn pass_strays(target: &dyn Target, events: &mpsc::Sender<Event>, zero: Instant) {
    while let Ok(room) = events.reserve().await
        && let Some(Stray { at, request, why }) = target.stray()
    {
        room.send(Event::Stray { at_us: us_since(zero, at), request, why });
    }
}

/// What is seen of a target that is not there.
fn unreachable() -> Look {
    Look { level: "unreachable".to_owned(), ..Look::default() }
}

fn note(changes: &Mutex<Vec<(Instant, String)>>, now: Instant, level: &str) {
    let mut changes = lock(changes);
    if changes.len() < CHANGES_MAX {
        changes.push((now, level.to_owned()));
    }
}

/// Looks at processes and devices again and again, in a thread of its own.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(Vec<Sample>, Vec<DeviceSample>)>>,
}

impl Sampler {
    pub(crate) fn start(
        target: Arc<dyn Target>,
        looks: watch::Receiver<Option<Look>>,
        interval: Duration,
        from: Instant,
    ) -> Result<Self, SoakError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tasks = tokio::runtime::Handle::current();
        let body = move || {
            let (mut processes, mut devices) = (Vec::new(), Vec::new());
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let left = next.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    std::thread::sleep(left.min(NAP));
                    continue;
                }
                next += interval;
                let at_s = from.elapsed().as_secs_f64();
                if let Some(root) = target.root_pid()
                    && processes.len() < SAMPLES_MAX
                {
                    let look = looks.borrow().clone();
                    processes.extend(samples::look(root, look.as_ref(), at_s));
                }
                if devices.len() < SAMPLES_MAX {
                    let readings = tasks.block_on(target.readings());
                    devices.extend(readings.into_iter().map(|reading| DeviceSample {
                        at_s,
                        name: reading.name,
                        device: reading.device,
                        value: reading.value,
                    }));
                }
            }
            (processes, devices)
        };
        let thread = std::thread::Builder::new().name("fb-sample".to_owned()).spawn(body);
        let thread = thread.map_err(SoakError::harness)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; gives what it saw.
    pub(crate) async fn end(mut self) -> (Vec<Sample>, Vec<DeviceSample>) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Default::default() };
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        thread.join().unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
