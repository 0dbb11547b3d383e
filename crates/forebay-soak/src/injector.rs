//! Injects the planned faults at their time and follows each until it is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::{Fault, Level};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::us;
use crate::error::SoakError;
use crate::event::Event;
use crate::faults::{Place, PlannedFault};
use crate::follow::{FaultSeen, Follow};
use crate::sync::{Stop, lock};
use crate::targets::{Look, Target};

/// Time between two looks at what became of a fault.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two looks at the metrics, which take longer.
const COUNT: Duration = Duration::from_millis(50);
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
    pub(crate) stop: Stop,
    pub(crate) ongoing: Arc<Ongoing>,
}

impl Injector {
    /// Injects each fault; gives what was seen of each, in their order.
    ///
    /// # Errors
    /// What follows a fault failed, so that nothing is known of it.
    pub(crate) async fn run(self, planned: Vec<PlannedFault>) -> Result<Vec<FaultSeen>, SoakError> {
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
                let seen = this.one(index, planned.fault, &devices).await;
                // One that did not heal in its time is over, too: what comes then is not its doing alone.
                let is_cut = seen.healed_ms.is_none() && this.stop.is_set();
                if !is_cut {
                    let at_us = this.now_us();
                    this.events.send(Event::FaultOver { at_us, index }).await.ok();
                }
                seen
            };
            if let Some(pause) = self.pause {
                seen.push(following.await);
                not_before = Instant::now() + pause;
            } else {
                under_way.spawn(following);
            }
        }
        // The others take their faults back all the same.
        let mut failed = None;
        while let Some(followed) = under_way.join_next().await {
            match followed {
                Ok(followed) => seen.push(followed),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(SoakError::harness(error));
        }
        seen.sort_by_key(|seen| seen.number);
        Ok(seen)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.stop.is_set()
    }

    fn now_us(&self) -> u64 {
        us(self.zero.elapsed())
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

    /// Injects one fault and follows it until it is over, for `heal_within` after what there is of it,
    /// and of later ones that strike the same devices, has ended.
    async fn one(&self, index: usize, fault: Fault, devices: &[String]) -> FaultSeen {
        let start = Instant::now();
        let mut seen = FaultSeen {
            number: Some(index),
            fault: fault.to_string(),
            on: self.name(devices, fault),
            at_s: start.saturating_duration_since(self.start).as_secs_f64(),
            ..FaultSeen::default()
        };
        let look = self.looks.borrow().clone().unwrap_or_default();
        let before = self.counted(fault).await;
        let (mut struck, refusals) = self.strike(fault, devices, &look).await;
        if struck.is_empty() {
            seen.refused = refusals.into_iter().next();
            return seen;
        }
        seen.refused_on = refusals;
        // A device that refused it for a while must not shorten it.
        let struck_at = Instant::now();
        let devices: Vec<String> = struck.iter().filter_map(|s| s.device.clone()).collect();
        seen.on = self.name(&devices, fault);
        let lasts = if fault.undo().is_some() { self.lasts } else { SETTLE };
        // What shows has ended as it struck, and what need not show once it has had its time.
        let mut ended = match (fault.undo(), fault.shows()) {
            (None, true) => Some(struck_at),
            (None, false) => Some(struck_at + lasts),
            (Some(_), _) => None,
        };
        self.ongoing.begin(index, &devices, struck_at + lasts);
        let mut follow = Follow::new(start, self.best.level, &devices, fault.shows(), &look);
        let mut count_at = Instant::now();
        let until = || self.ongoing.end_of(&devices, struck_at + lasts) + self.heal_within;
        while Instant::now() < until() && !self.stop.is_set() {
            tokio::time::sleep(LOOK).await;
            let has_lasted = struck_at.elapsed() >= lasts;
            let look = self.looks.borrow().clone();
            if has_lasted {
                seen.not_undone = self.take_back(fault, &mut struck, look.as_ref()).await;
                if seen.not_undone.is_none() {
                    ended.get_or_insert_with(Instant::now);
                }
            }
            if let Some(look) = look {
                let now = Instant::now();
                let ended = ended.filter(|ended| *ended <= now);
                follow.see(&look, now, ended, self.ongoing.has_others(index));
            }
            if seen.proved != Some(true) && Instant::now() >= count_at {
                count_at = Instant::now() + COUNT;
                let now = self.counted(fault).await;
                seen.proved = before.zip(now).map(|(before, now)| now > before);
            }
            if has_lasted && follow.healed.is_some() && seen.proved != Some(false) {
                break;
            }
        }
        // However it ended, nothing of it is left behind for the next run.
        seen.not_undone = self.take_back(fault, &mut struck, None).await;
        self.ongoing.end(index);
        if seen.not_undone.is_none() {
            ended.get_or_insert_with(Instant::now);
        }
        let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        seen.detected_ms = ms(follow.detected);
        seen.demoted_ms = ms(follow.demoted);
        let is_over = |ended: &Instant| seen.not_undone.is_none() && *ended <= Instant::now();
        let ended = ended.filter(is_over);
        seen.ended_ms = ms(ended.map(|ended| ended.saturating_duration_since(start)));
        seen.healed_ms = ms(follow.healed).filter(|_| seen.not_undone.is_none());
        seen
    }

    /// The metric that rises when this fault happens, as it is now; `None` if there is none.
    async fn counted(&self, fault: Fault) -> Option<u64> {
        let name = proof(fault)?;
        self.target.counted(name).await
    }

    /// Strikes each device, or the host; gives what was struck, and why the others refused.
    async fn strike(
        &self,
        fault: Fault,
        devices: &[String],
        look: &Look,
    ) -> (Vec<Struck>, Vec<String>) {
        if !fault.is_of_device() {
            return match self.target.inject(None, fault).await {
                Ok(()) => (vec![Struck::default()], Vec::new()),
                Err(reason) => (Vec::new(), vec![reason]),
            };
        }
        if devices.is_empty() {
            let reason = "the target names no device that could be struck".to_owned();
            return (Vec::new(), vec![reason]);
        }
        let until = Instant::now() + ASK_AGAIN;
        let (mut struck, mut refusals) = (Vec::new(), Vec::new());
        for device in devices {
            let mut asked = self.ask(device, fault, until).await;
            if asked.is_ok() && matches!(fault, Fault::FailStarts(_)) {
                // A fault of a start needs a start.
                asked = self.ask(device, Fault::Kill, until).await;
                if let Err(reason) = &mut asked
                    && let Err(why) = self.target.inject(Some(device), Fault::FailStarts(0)).await
                {
                    reason
                        .push_str(&format!("; starts that are to fail were not taken back: {why}"));
                }
            }
            match asked {
                Ok(()) => struck.push(Struck {
                    device: Some(device.clone()),
                    incarnation: incarnation(look, device),
                    is_undone: false,
                }),
                Err(reason) => refusals.push(format!("{device}: {reason}")),
            }
        }
        (struck, refusals)
    }

    /// Asks a device for a fault until `until`, or until the run ends.
    async fn ask(&self, device: &str, fault: Fault, until: Instant) -> Result<(), String> {
        loop {
            match self.target.inject(Some(device), fault).await {
                Err(_) if Instant::now() < until && !self.stop.is_set() => {
                    tokio::time::sleep(LOOK).await;
                }
                asked => return asked,
            }
        }
    }

    /// Takes a fault back wherever it still is; why that is refused, if it is. Asked again and again.
    async fn take_back(
        &self,
        fault: Fault,
        struck: &mut [Struck],
        look: Option<&Look>,
    ) -> Option<String> {
        let undo = fault.undo()?;
        let mut refused = None;
        for struck in struck.iter_mut().filter(|struck| !struck.is_undone) {
            let device = struck.device.as_deref();
            let now = look.zip(device).and_then(|(look, device)| incarnation(look, device));
            // A worker that has gone has taken the fault along.
            let has_gone = now.is_some() && now != struck.incarnation;
            match self.target.inject(device, undo).await {
                Err(reason) if !has_gone => refused = Some(reason),
                _ => struck.is_undone = true,
            }
        }
        refused
    }
}

/// Where a fault is.
#[derive(Default)]
struct Struck {
    /// `None` for the host.
    device: Option<String>,
    /// Its worker then.
    incarnation: Option<u64>,
    is_undone: bool,
}

fn incarnation(look: &Look, device: &str) -> Option<u64> {
    look.workers.iter().find(|worker| worker.device == device).map(|worker| worker.incarnation)
}

/// The metric that rises when a fault happens that does not end a worker.
fn proof(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::FlipOutputBit => Some("forebay_reply_check_failures_total"),
        Fault::DeviceOutOfMemory => Some("forebay_batches_rerun_total"),
        Fault::MonitorHang => Some("forebay_monitor_restarts_total"),
        Fault::LogDiskFull(true) => Some("forebay_event_log_failures_total"),
        _ => None,
    }
}

/// Faults that are not over, which in `chaos` may be several.
#[derive(Debug, Default)]
pub(crate) struct Ongoing {
    open: Mutex<BTreeSet<usize>>,
    /// When the last fault of a device ends.
    ends: Mutex<HashMap<String, Instant>>,
}

impl Ongoing {
    fn begin(&self, index: usize, devices: &[String], end: Instant) {
        lock(&self.open).insert(index);
        let mut ends = lock(&self.ends);
        for device in devices {
            let last = ends.entry(device.clone()).or_insert(end);
            *last = end.max(*last);
        }
    }

    fn end(&self, index: usize) {
        lock(&self.open).remove(&index);
    }

    fn has_others(&self, index: usize) -> bool {
        lock(&self.open).iter().any(|other| *other != index)
    }

    /// When the last fault of these devices ends, not before `own`.
    fn end_of(&self, devices: &[String], own: Instant) -> Instant {
        let ends = lock(&self.ends);
        devices.iter().filter_map(|device| ends.get(device)).fold(own, |last, end| last.max(*end))
    }
}

#[cfg(test)]
mod tests;
