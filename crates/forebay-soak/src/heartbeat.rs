//! Whether the harness itself is on time: a task and a thread that want to wake up every few
//! milliseconds, and note by how much they were late. What answers come through is the same runtime as
//! the task's, so its delays are in their latencies and must not be blamed on the target.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock::{us, us_since};
use crate::error::SoakError;
use crate::event::Event;
use crate::profile::Profile;
use crate::stats::{Latencies, LatencySummary};
use crate::sync::lock;

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(5);
/// Time between two views of the figures so far.
const TICK: Duration = Duration::from_millis(250);

/// No harness on a machine that it shares is more punctual than this, in milliseconds. A task that stood
/// still for longer is noted in the history, allowed or not: replies that came late by it are not the
/// target's.
const LATE_MS_LEAST: f64 = 10.0;

/// By how much the harness may be late, in milliseconds: never by more than what is asked of the target,
/// which it would hide or be blamed for.
#[must_use]
pub(crate) fn late_ms_max(profile: &Profile) -> f64 {
    let objectives = &profile.objectives;
    let quantiles = objectives.quantiles().into_iter().filter_map(|(_, _, ms)| ms);
    let asked = quantiles
        .chain(objectives.calm_p99_ms)
        .chain(objectives.calm_p999_ms)
        .chain(objectives.calm_max_ms)
        .chain(objectives.disturbed_max_ms)
        .fold(f64::INFINITY, f64::min);
    profile.harness.lag_ms_max.min(asked.max(LATE_MS_LEAST))
}

/// How late the harness woke up in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Beats {
    /// Lateness of the task in the runtime that takes the answers.
    pub task: LatencySummary,
    /// Lateness of a thread of its own: that of the machine.
    pub thread: LatencySummary,
    /// Seconds for which the task stood still for longer than is allowed.
    pub stalled_s: f64,
}

struct Pulse {
    task: Latencies,
    thread: Latencies,
    stalled_us: u64,
}

impl Pulse {
    fn new() -> Result<Self, SoakError> {
        Ok(Self { task: Latencies::new()?, thread: Latencies::new()?, stalled_us: 0 })
    }
}

/// The beats, until it is dropped.
pub(crate) struct Heartbeat {
    pulse: Arc<Mutex<Pulse>>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Heartbeat {
    /// Begins to beat; what is later than `late_max` counts against the harness.
    pub(crate) fn start(
        events: mpsc::Sender<Event>,
        zero: Instant,
        late_max: Duration,
    ) -> Result<Self, SoakError> {
        let (pulse, stop) = (Arc::new(Mutex::new(Pulse::new()?)), Arc::new(AtomicBool::new(false)));
        let noted = Arc::clone(&pulse);
        let noted_min = late_max.min(Duration::from_secs_f64(LATE_MS_LEAST / 1e3));
        let task = tokio::spawn(async move {
            let mut ticked = Instant::now();
            loop {
                if ticked.elapsed() >= TICK {
                    ticked = Instant::now();
                    // One that finds no room is not missed: the next comes soon.
                    events.try_send(Event::Tick { at_us: us_since(zero, ticked) }).ok();
                }
                let due = Instant::now() + BEAT;
                tokio::time::sleep_until(due.into()).await;
                let late = due.elapsed();
                {
                    let mut pulse = lock(&noted);
                    pulse.task.add(us(late));
                    pulse.stalled_us += if late > late_max { us(late) } else { 0 };
                }
                if late > noted_min {
                    let from_us = us_since(zero, due);
                    let stall = Event::Stall { from_us, to_us: from_us + us(late) };
                    events.send(stall).await.ok();
                }
            }
        });
        let (noted, stopped) = (Arc::clone(&pulse), Arc::clone(&stop));
        let body = move || {
            while !stopped.load(Ordering::Relaxed) {
                let due = Instant::now() + BEAT;
                std::thread::sleep(BEAT);
                lock(&noted).thread.add(us(due.elapsed()));
            }
        };
        let thread = std::thread::Builder::new().name("fb-beat".to_owned()).spawn(body);
        thread.map_err(SoakError::harness)?;
        Ok(Self { pulse, stop, task })
    }

    /// What was so far does not count.
    pub(crate) fn measure(&self) -> Result<(), SoakError> {
        *lock(&self.pulse) = Pulse::new()?;
        Ok(())
    }

    /// How late it was since [`Heartbeat::measure`].
    pub(crate) fn beats(&self) -> Beats {
        let pulse = lock(&self.pulse);
        Beats {
            task: pulse.task.summary(),
            thread: pulse.thread.summary(),
            stalled_s: pulse.stalled_us as f64 / 1e6,
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_that_stands_still_is_noted() {
        let (events, mut noted) = mpsc::channel(16);
        let late_max = Duration::from_millis(40);
        let heart = Heartbeat::start(events, Instant::now(), late_max).unwrap();
        // It is due once it has run.
        tokio::time::sleep(BEAT / 5).await;
        // The one thread of this runtime is kept from everything else.
        std::thread::sleep(Duration::from_millis(200));
        match noted.recv().await {
            Some(Event::Stall { from_us, to_us }) => assert!(to_us - from_us > 40_000),
            other => panic!("{other:?}"),
        }
        let beats = heart.beats();
        assert!(beats.stalled_s > 0.04 && beats.task.max_ms > 40.0, "{beats:?}");
        heart.measure().unwrap();
        assert_eq!(heart.beats().stalled_s, 0.0);
    }

    #[tokio::test]
    async fn what_is_allowed_is_noted_all_the_same() {
        let (events, mut noted) = mpsc::channel(16);
        let heart = Heartbeat::start(events, Instant::now(), Duration::from_secs(60)).unwrap();
        tokio::time::sleep(BEAT / 5).await;
        std::thread::sleep(Duration::from_millis(50));
        match noted.recv().await {
            Some(Event::Stall { from_us, to_us }) => assert!(to_us - from_us > 10_000),
            other => panic!("{other:?}"),
        }
        assert_eq!(heart.beats().stalled_s, 0.0);
    }

    #[test]
    fn the_harness_may_not_be_later_than_what_is_asked_of_the_target() {
        let mut profile = Profile::load("smoke").unwrap();
        profile.harness.lag_ms_max = 100.0;
        profile.objectives = crate::profile::Objectives::default();
        assert_eq!(late_ms_max(&profile), 100.0);
        profile.objectives.p99_ms = Some(40.0);
        profile.objectives.max_ms = Some(400.0);
        assert_eq!(late_ms_max(&profile), 40.0);
        profile.objectives.calm_max_ms = Some(25.0);
        assert_eq!(late_ms_max(&profile), 25.0);
        profile.objectives.p50_ms = Some(0.1);
        assert_eq!(late_ms_max(&profile), 10.0);
    }
}
