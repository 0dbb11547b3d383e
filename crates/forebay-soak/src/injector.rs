//! Injects the planned faults at their time and follows each until it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::{Fault, Level};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::event::Event;
use crate::faults::{FaultSeen, Follow, Place, PlannedFault};
use crate::targets::{Look, Target};

/// Time between two looks at what became of a fault.
const LOOK: Duration = Duration::from_millis(10);
/// A fault that need not show is followed at least this long: it comes with the next batch.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a fault that is refused is asked for again: its worker may be on its way back.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// What a target is like when nothing is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Best {
    pub(crate) level: Level,
    /// Devices of the best tier, in the target's order.
    pub(crate) devices: Vec<String>,
}

impl Best {
    /// The devices that serve now of the tier that makes this level.
    pub(crate) fn of(look: &Look, level: Level) -> Self {
        let gpus = level > Level::Cpu;
        let serving = look.workers.iter().filter(|worker| worker.serves());
        let best = serving.filter(|worker| (worker.device != "cpu") == gpus);
        Self { level, devices: best.map(|w| w.device.clone()).collect() }
    }
}

/// Injects faults.
#[derive(Clone)]
pub(crate) struct Injector {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) looks: watch::Receiver<Option<Look>>,
    pub(crate) zero: Instant,
    /// When the measured part began.
    pub(crate) start: Instant,
    /// From when on it is quiet.
    pub(crate) until: Instant,
    pub(crate) best: Best,
    pub(crate) heal_within: Duration,
    pub(crate) lasts: Duration,
    /// Whether the next fault waits until the last one has healed, and this long after that: what
    /// piled up has to be worked off.
    pub(crate) pause: Option<Duration>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Injector {
    /// Injects each fault; gives what was seen of each, in their order.
    pub(crate) async fn run(self, planned: Vec<PlannedFault>) -> Vec<FaultSeen> {
        let mut seen = Vec::new();
        let mut under_way = JoinSet::new();
        let mut not_before = self.start;
        for (index, planned) in planned.into_iter().enumerate() {
            let due = not_before.max(self.start + planned.at);
            while Instant::now() < due && !self.is_over() {
                tokio::time::sleep(LOOK).await;
            }
            if self.is_over() {
                break;
            }
            let devices = self.devices(&planned.place);
            let (on, fault) = (self.name(&devices, planned.fault), planned.fault.to_string());
            let event = Event::Fault { at_us: self.now_us(), on, fault };
            if self.events.send(event).await.is_err() {
                break;
            }
            let this = self.clone();
            let following = async move {
                let seen = this.one(planned.fault, &devices).await;
                let at_us = this.now_us();
                if seen.healed_ms.is_some() || seen.refused.is_some() {
                    this.events.send(Event::Healed { at_us, index }).await.ok();
                }
                (index, seen)
            };
            if let Some(pause) = self.pause {
                seen.push(following.await);
                not_before = Instant::now() + pause;
            } else {
                under_way.spawn(following);
            }
        }
        while let Some(followed) = under_way.join_next().await {
            seen.extend(followed.ok());
        }
        seen.sort_by_key(|(index, _)| *index);
        seen.into_iter().map(|(_, seen)| seen).collect()
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.stop.load(Ordering::Relaxed)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn devices(&self, place: &Place) -> Vec<String> {
        let all = &self.best.devices;
        match place {
            Place::All => all.clone(),
            Place::Device(device) => vec![device.clone()],
            Place::Nth(nth) if all.is_empty() => {
                tracing::warn!(nth, "the target names no device that could be struck");
                Vec::new()
            }
            Place::Nth(nth) => vec![all[*nth as usize % all.len()].clone()],
        }
    }

    fn name(&self, devices: &[String], fault: Fault) -> String {
        if fault.is_of_device() { devices.join("+") } else { "host".to_owned() }
    }

    /// Injects one fault and follows it until it is over, for `heal_within` after what there is of it
    /// has ended.
    async fn one(&self, fault: Fault, devices: &[String]) -> FaultSeen {
        let start = Instant::now();
        let mut seen = FaultSeen {
            fault: fault.to_string(),
            on: self.name(devices, fault),
            at_s: start.saturating_duration_since(self.start).as_secs_f64(),
            ..FaultSeen::default()
        };
        let look = self.looks.borrow().clone().unwrap_or_default();
        let mut follow = Follow::new(start, self.best.level, devices, fault.shows(), &look);
        let mut refused = self.ask(fault, devices).await;
        if refused.is_none() && matches!(fault, Fault::FailStarts(_)) {
            // A fault of a start needs a start.
            refused = self.ask(Fault::Kill, devices).await;
        }
        if refused.is_some() {
            seen.refused = refused;
            return seen;
        }
        let mut back = fault.undo();
        let lasts = if back.is_some() { self.lasts } else { SETTLE };
        let until = start + lasts + self.heal_within;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            let has_lasted = start.elapsed() >= lasts;
            if has_lasted && let Some(fault) = back.take() {
                // A worker that has gone has taken the fault along.
                self.ask(fault, devices).await;
            }
            if let Some(look) = self.looks.borrow().as_ref() {
                follow.see(look, Instant::now(), back.is_none());
            }
            if has_lasted && follow.healed.is_some() {
                break;
            }
        }
        let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        seen.detected_ms = ms(follow.detected);
        seen.demoted_ms = ms(follow.demoted);
        seen.healed_ms = ms(follow.healed);
        seen
    }

    /// Asks for a fault on each device; why it is refused, if it is.
    async fn ask(&self, fault: Fault, devices: &[String]) -> Option<String> {
        if !fault.is_of_device() {
            return self.target.inject(None, fault).await.err();
        }
        if devices.is_empty() {
            return Some("the target names no device that could be struck".to_owned());
        }
        let until = Instant::now() + ASK_AGAIN;
        for device in devices {
            while let Err(reason) = self.target.inject(Some(device), fault).await {
                if Instant::now() >= until {
                    return Some(reason);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        None
    }
}
