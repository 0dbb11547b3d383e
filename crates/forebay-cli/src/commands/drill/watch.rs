//! When a fault showed, cost the level and was over, from the runtime's event log. Pure: the caller
//! reads the log, and the times are those at which its events happened.

use std::time::Duration;

use forebay::config::Device;
use forebay::events::{Event, EventId, EventKind};
use forebay::{Level, WorkerStatus};

/// What has been seen of one fault; times count from its injection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The last of the workers concerned had shown a sign: late texts given to others, wrong known
    /// answers, or a slot that stopped serving.
    pub(super) detected: Option<Duration>,
    /// The level was lower.
    pub(super) demoted: Option<Duration>,
    /// Every slot concerned served again, and the level was what it had been.
    pub(super) healed: Option<Duration>,
}

/// Looks out for the effects of one fault.
pub(super) struct Watch {
    best: u32,
    level: u32,
    /// Whether each worker concerned has to be replaced before the fault is over.
    ends_workers: bool,
    slots: Vec<Slot>,
    /// Events up to this one are known.
    known: Option<EventId>,
    injected: Option<Event>,
    seen: Seen,
}

/// The slot of one device concerned.
struct Slot {
    device: String,
    /// The worker that is to suffer.
    incarnation: u64,
    has_shown: bool,
    serves: bool,
}

impl Watch {
    /// Before the injection: with the level now, the level that is to come back, and what the log has
    /// last.
    pub(super) fn new(
        [level, best]: [Level; 2],
        devices: &[Device],
        ends_workers: bool,
        workers: &[WorkerStatus],
        last: Option<&Event>,
    ) -> Self {
        let slot = |device: &Device| {
            let device = device.to_string();
            let worker = workers.iter().find(|worker| worker.device == device);
            let incarnation = worker.map_or(0, |worker| worker.incarnation);
            Slot { device, incarnation, has_shown: false, serves: true }
        };
        Self {
            best: best.gauge(),
            level: level.gauge(),
            ends_workers,
            slots: devices.iter().map(slot).collect(),
            known: last.map(|event| event.id),
            injected: None,
            seen: Seen::default(),
        }
    }

    /// Takes the newest events of the log, by rising number; those that are known already change
    /// nothing.
    pub(super) fn look(&mut self, events: &[Event]) {
        for event in events {
            if self.known.is_none_or(|known| event.id > known) {
                self.known = Some(event.id);
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: &Event) {
        if matches!(event.kind, EventKind::FaultInjected { .. }) {
            self.injected.get_or_insert_with(|| event.clone());
        }
        let Some(injected) = &self.injected else { return };
        let at = event.since(injected);
        match &event.kind {
            EventKind::SlotChanged { device, to, incarnation, .. } => {
                let ends_workers = self.ends_workers;
                if let Some(slot) = self.slots.iter_mut().find(|slot| slot.device == *device) {
                    match to.as_str() {
                        "suspect" | "exited" | "stuck" => {
                            (slot.has_shown, slot.serves) = (true, false);
                        }
                        "serving" => {
                            slot.serves = !ends_workers || *incarnation > slot.incarnation;
                        }
                        _ => {}
                    }
                }
            }
            EventKind::Hedged { device, .. } | EventKind::CanaryFailed { device, .. } => {
                if let Some(slot) = self.slots.iter_mut().find(|slot| slot.device == *device) {
                    (slot.has_shown, slot.serves) = (true, false);
                }
            }
            EventKind::LevelChanged { to, .. } => self.level = gauge(to),
            _ => return,
        }
        let Seen { detected, demoted, healed } = &mut self.seen;
        if !self.slots.is_empty() && self.slots.iter().all(|slot| slot.has_shown) {
            detected.get_or_insert(at);
        }
        if self.level < self.best {
            demoted.get_or_insert(at);
        }
        let back = self.level >= self.best && self.slots.iter().all(|slot| slot.serves);
        // Who falls again while the fault lasts had not healed.
        if !back {
            *healed = None;
        } else if detected.is_some() || (self.slots.is_empty() && demoted.is_some()) {
            healed.get_or_insert(at);
        }
    }

    /// What has been seen so far.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether something is wrong that has not healed.
    pub(super) fn is_open(&self) -> bool {
        let shown = self.seen.detected.is_some() || self.seen.demoted.is_some();
        shown && self.seen.healed.is_none()
    }
}

/// [`Level::gauge`] of a level by its name in the log.
fn gauge(name: &str) -> u32 {
    let gpus = name.strip_prefix("gpu(").and_then(|rest| rest.strip_suffix(')'));
    let level = match gpus.and_then(|gpus| gpus.parse().ok()) {
        Some(gpus) => Level::Gpu(gpus),
        None if name == "cpu" => Level::Cpu,
        None => Level::Down,
    };
    level.gauge()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const GPU: Device = Device::Cuda(0);
    const BEST: Level = Level::Gpu(2);

    /// Events of consecutive numbers, by their milliseconds.
    fn log(events: &[(u64, EventKind)]) -> Vec<Event> {
        let event = |((at_ms, kind), number): (&(u64, EventKind), u64)| Event {
            id: EventId(number),
            cause: None,
            boot: "this".to_owned(),
            mono_ns: at_ms * 1_000_000,
            wall: SystemTime::UNIX_EPOCH,
            kind: kind.clone(),
        };
        events.iter().zip(1..).map(event).collect()
    }

    fn slot(device: Device, incarnation: u64, to: &str) -> EventKind {
        EventKind::SlotChanged {
            device: device.to_string(),
            incarnation,
            from: String::new(),
            to: to.to_owned(),
            reason: String::new(),
        }
    }

    fn level(to: Level) -> EventKind {
        EventKind::LevelChanged { from: String::new(), to: to.to_string(), reason: String::new() }
    }

    fn injected(device: Option<Device>) -> EventKind {
        let device = device.map(|device| device.to_string());
        EventKind::FaultInjected { device, fault: "kill".to_owned() }
    }

    fn watch(devices: &[Device], ends_workers: bool) -> Watch {
        let worker = |device: &Device| WorkerStatus {
            device: device.to_string(),
            state: forebay::WorkerState::Serving,
            since: Duration::ZERO,
            pid: None,
            incarnation: 1,
            restarts: 0,
            engine: String::new(),
            precision: String::new(),
            details: Default::default(),
            start_time: None,
            last_end: None,
        };
        let workers: Vec<WorkerStatus> = devices.iter().map(worker).collect();
        Watch::new([BEST, BEST], devices, ends_workers, &workers, None)
    }

    fn seen(detected: u64, demoted: u64, healed: u64) -> Seen {
        let ms = |ms| Some(Duration::from_millis(ms));
        Seen { detected: ms(detected), demoted: ms(demoted), healed: ms(healed) }
    }

    #[test]
    fn a_fault_shows_costs_the_level_and_heals() {
        let events = log(&[
            (1, slot(GPU, 1, "exited")),
            (10, injected(Some(GPU))),
            (12, EventKind::Hedged { device: GPU.to_string(), rows: 3 }),
            (13, slot(GPU, 1, "suspect")),
            (14, level(Level::Gpu(1))),
            (15, slot(GPU, 1, "exited")),
            (16, slot(GPU, 2, "starting")),
            (18, slot(GPU, 2, "serving")),
            (19, level(BEST)),
            (30, slot(GPU, 2, "exited")),
        ]);
        let mut watch = watch(&[GPU], true);
        for until in 0..events.len() {
            // Each look finds what was known before, too.
            watch.look(&events[..until]);
            let is_open = (3..9).contains(&until);
            assert_eq!(watch.is_open(), is_open, "after {until} events");
        }
        assert_eq!(watch.seen(), seen(2, 4, 9));
        watch.look(&events);
        assert!(watch.is_open(), "it has fallen again, so it had not healed");
    }

    #[test]
    fn a_worker_that_is_to_end_has_not_healed_by_catching_up() {
        let events = log(&[
            (0, injected(Some(GPU))),
            (1, slot(GPU, 1, "suspect")),
            (2, level(Level::Gpu(1))),
            (3, slot(GPU, 1, "warming")),
            (4, slot(GPU, 1, "serving")),
            (5, level(BEST)),
        ]);
        for ends_workers in [false, true] {
            let mut watch = watch(&[GPU], ends_workers);
            watch.look(&events);
            assert_eq!(watch.is_open(), ends_workers);
            assert_eq!(watch.seen().healed.is_some(), !ends_workers);
        }
    }

    #[test]
    fn of_several_the_last_one_counts() {
        let both = [GPU, Device::Cuda(1)];
        let events = log(&[
            (10, injected(Some(both[0]))),
            (11, injected(Some(both[1]))),
            (12, slot(both[0], 1, "exited")),
            (13, level(Level::Gpu(1))),
            (15, slot(both[1], 1, "exited")),
            (16, level(Level::Cpu)),
            (20, slot(both[1], 2, "serving")),
            (21, level(Level::Gpu(1))),
            (25, slot(both[0], 2, "serving")),
            (26, level(BEST)),
        ]);
        let mut watch = watch(&both, true);
        watch.look(&events);
        assert_eq!(watch.seen(), seen(5, 3, 16));
    }

    #[test]
    fn a_fault_of_no_device_shows_by_the_level_at_most() {
        let mut quiet = watch(&[], false);
        quiet.look(&log(&[(0, injected(None)), (5, slot(GPU, 1, "exited"))]));
        assert_eq!((quiet.seen(), quiet.is_open()), (Seen::default(), false));
        let mut felt = watch(&[], false);
        felt.look(&log(&[(0, injected(None)), (5, level(Level::Cpu)), (9, level(BEST))]));
        let expected = Seen { detected: None, ..seen(0, 5, 9) };
        assert_eq!((felt.seen(), felt.is_open()), (expected, false));
    }
}
