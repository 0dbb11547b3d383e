//! What a daemon has said: one look, and the looks of the last while, from which rates come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use forebay::events::Event;
use serde::Deserialize;
use serde_json::Value;

use super::exposition::Exposition;

/// Rates and quantiles are those of this time.
const WINDOW: Duration = Duration::from_secs(30);

/// What is read of `/api/v1/status`; a daemon of another release may say more or less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) uptime_s: f64,
    pub(super) model: Model,
    pub(super) level: String,
    pub(super) reason: String,
    pub(super) ready: bool,
    pub(super) ready_reason: String,
    pub(super) draining: bool,
    pub(super) beat_age_ms: u64,
    pub(super) worst_age_ms: u64,
    pub(super) rates: Rates,
    pub(super) workers: Vec<Worker>,
    pub(super) queues: Vec<Queue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Model {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rates {
    pub(super) tokens_per_s: f64,
    pub(super) texts_per_s: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub(super) device: String,
    pub(super) state: String,
    pub(super) since: Duration,
    pub(super) pid: Option<u32>,
    pub(super) restarts: u64,
    pub(super) engine: String,
    pub(super) precision: String,
    pub(super) last_end: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) priority: String,
    pub(super) under_way: usize,
    pub(super) limit: usize,
    pub(super) requests_max: usize,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<Value>,
}

/// One look.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Status,
    /// Oldest first.
    pub(super) events: Vec<Event>,
    /// Events of kinds that this release does not know.
    pub(super) unknown_events: usize,
    pub(super) metrics: Exposition,
}

impl Sample {
    /// Reads the daemon's answers.
    ///
    /// # Errors
    /// They are not those of a daemon.
    pub(super) fn read(status: &[u8], events: &[u8], metrics: Exposition) -> Result<Self, String> {
        let wrong = |what: &str, error| format!("its {what} cannot be understood: {error}");
        let status: Status =
            serde_json::from_slice(status).map_err(|error| wrong("status", error))?;
        if status.level.is_empty() {
            return Err("its status has no level; is it a Forebay daemon?".to_owned());
        }
        let said: Events =
            serde_json::from_slice(events).map_err(|e| wrong("list of events", e))?;
        let all = said.events.len();
        let known = said.events.into_iter().filter_map(|event| serde_json::from_value(event).ok());
        let events: Vec<Event> = known.collect();
        let unknown_events = all - events.len();
        Ok(Self { at: Instant::now(), status, events, unknown_events, metrics })
    }
}

/// What is to be shown.
pub(super) struct Picture {
    /// Where the daemon is asked.
    pub(super) source: String,
    pub(super) now: Option<Sample>,
    /// Why the daemon does not answer, and in what time it is asked again.
    pub(super) trouble: Option<(String, Duration)>,
    /// Former readings, oldest first; the first is that which rates count from.
    former: VecDeque<(Instant, Exposition)>,
}

impl Picture {
    pub(super) fn new(source: String) -> Self {
        Self { source, now: None, trouble: None, former: VecDeque::new() }
    }

    /// The daemon has answered.
    pub(super) fn add(&mut self, sample: Sample) {
        if let Some(last) = self.now.take() {
            self.former.push_back((last.at, last.metrics));
        }
        // One that is older than the window stays, so that there is always one.
        while self.former.get(1).is_some_and(|(at, _)| sample.at.duration_since(*at) >= WINDOW) {
            self.former.pop_front();
        }
        self.trouble = None;
        self.now = Some(sample);
    }

    /// The daemon has not answered.
    pub(super) fn lost(&mut self, reason: String, again_in: Duration) {
        self.trouble = Some((reason, again_in));
        // Whoever answers next may have begun anew.
        self.former.clear();
    }

    /// A counter's rise per second.
    pub(super) fn rate(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let (now, (at, before)) = (self.now.as_ref()?, self.former.front()?);
        let seconds = now.at.duration_since(*at).as_secs_f64();
        now.metrics.rise(before, name, wanted).filter(|_| seconds > 0.0).map(|rise| rise / seconds)
    }

    /// A quantile of a histogram, lately.
    pub(super) fn quantile(
        &self,
        name: &str,
        wanted: &[(&str, &str)],
        quantile: f64,
    ) -> Option<f64> {
        let (now, (_, before)) = (self.now.as_ref()?, self.former.front()?);
        now.metrics.quantile(before, name, wanted, quantile)
    }
}
