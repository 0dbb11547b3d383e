//! What the supervisor writes into the event log, and which event led to which: from the first sign
//! of a fault on a slot, everything that follows on that slot points back to what came before it,
//! until the slot serves again.

use std::time::{Duration, SystemTime};

use super::ladder::{Change, QuarantineReason, Restored, WorkerState};
use super::level::Level;
use crate::config::Device;
use crate::dispatch::WorkerId;
use crate::events::{EventId, EventKind, EventLog, StandingQuarantine};

/// Most quarantines that are taken over from an earlier run.
const RESTORED_MAX: usize = 64;
/// After so many events the quarantines that stand are recorded again: the log is a ring, and they
/// must not be what it forgets.
const REMINDER_EVENTS: u64 = 4_096;

/// The event log as the supervisor uses it.
pub(super) struct Chronicle {
    log: EventLog,
    devices: Vec<String>,
    /// The last event of each slot's present trouble.
    trouble: Vec<Option<EventId>>,
    /// The last step of any slot, for the level that results, and why it was taken.
    last_step: (Option<EventId>, String),
    /// The first event after which they are recorded again.
    remind_at: u64,
    /// The operator's last word on the level.
    pinned: Option<EventId>,
}

impl Chronicle {
    pub(super) fn new(log: EventLog, devices: &[Device]) -> Self {
        Self {
            log,
            devices: devices.iter().map(ToString::to_string).collect(),
            trouble: vec![None; devices.len()],
            last_step: (None, String::new()),
            remind_at: 0,
            pinned: None,
        }
    }

    /// Whether it is time to record the quarantines that stand once more.
    pub(super) fn wants_reminder(&mut self) -> bool {
        let (Some(EventId(last)), _) = self.last_step else { return false };
        if self.remind_at == 0 {
            self.remind_at = last + REMINDER_EVENTS;
        }
        let due = last >= self.remind_at;
        if due {
            self.remind_at = last + REMINDER_EVENTS;
        }
        due
    }

    fn device(&self, slot: usize) -> String {
        self.devices.get(slot).cloned().unwrap_or_default()
    }

    /// Records what follows from the slot's trouble so far, and is part of it from now on.
    fn follows(&mut self, slot: usize, kind: EventKind) -> EventId {
        let cause = self.trouble.get(slot).copied().flatten();
        let id = self.log.record(cause, kind);
        if let Some(trouble) = self.trouble.get_mut(slot) {
            *trouble = Some(id);
        }
        id
    }

    pub(super) fn changed(&mut self, change: &Change) {
        let Change { id: WorkerId { slot, incarnation }, from, to, reason } = change;
        let is_of_cap = [from, to].contains(&&WorkerState::Capped);
        if let Some(trouble) = self.trouble.get_mut(*slot).filter(|_| is_of_cap) {
            *trouble = trouble.or(self.pinned);
        }
        let kind = EventKind::SlotChanged {
            device: self.device(*slot),
            incarnation: *incarnation,
            from: from.to_string(),
            to: to.to_string(),
            reason: reason.clone(),
        };
        let id = self.follows(*slot, kind);
        self.last_step = (Some(id), format!("{}: {reason}", self.device(*slot)));
        if *to == WorkerState::Serving
            && let Some(trouble) = self.trouble.get_mut(*slot)
        {
            *trouble = None;
        }
    }

    pub(super) fn level(&mut self, from: Level, to: Level) {
        let (cause, reason) = self.last_step.clone();
        let (from, to) = (from.to_string(), to.to_string());
        self.log.record(cause, EventKind::LevelChanged { from, to, reason });
    }

    pub(super) fn ended(&mut self, id: WorkerId, pid: Option<u32>, reason: &str, log: &str) {
        let kind = EventKind::WorkerEnded {
            device: self.device(id.slot),
            incarnation: id.incarnation,
            pid,
            reason: reason.to_owned(),
            log: log.to_owned(),
        };
        self.follows(id.slot, kind);
    }

    pub(super) fn canary_failed(&mut self, id: WorkerId, reason: &str, replies: u64) {
        let kind = EventKind::CanaryFailed {
            device: self.device(id.slot),
            incarnation: id.incarnation,
            reason: reason.to_owned(),
            replies,
        };
        self.follows(id.slot, kind);
    }

    pub(super) fn quarantined(
        &mut self,
        slot: usize,
        reason: QuarantineReason,
        detail: &str,
        probe_after: Option<Duration>,
    ) {
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let kind = EventKind::Quarantined {
            device: self.device(slot),
            reason: reason.to_string(),
            detail: detail.to_owned(),
            probe_after_ms: probe_after.map(millis),
        };
        self.follows(slot, kind);
    }

    pub(super) fn released(&mut self, slot: usize, by: &str) {
        let kind = EventKind::Released { device: self.device(slot), by: by.to_owned() };
        self.follows(slot, kind);
    }

    pub(super) fn health(&mut self, slot: usize, verdict: &str, detail: &str, is_trouble: bool) {
        let kind = EventKind::DeviceHealth {
            device: self.device(slot),
            verdict: verdict.to_owned(),
            detail: detail.to_owned(),
        };
        if is_trouble {
            self.follows(slot, kind);
        } else {
            self.log.record(self.trouble.get(slot).copied().flatten(), kind);
        }
    }

    pub(super) fn pinned(&mut self, level: Option<Level>) {
        let level = level.map(|level| level.to_string());
        self.pinned = Some(self.log.record(None, EventKind::LevelPinned { level }));
    }

    pub(super) fn reruns_refused(&mut self, texts: usize) {
        self.log.record(None, EventKind::RerunBudgetExhausted { rows: texts as u64 });
    }

    pub(super) fn hedged(&mut self, id: WorkerId, texts: usize) {
        if texts == 0 {
            return;
        }
        let rows = texts as u64;
        let kind = EventKind::Hedged { device: self.device(id.slot), rows };
        self.follows(id.slot, kind);
    }

    pub(super) fn fault_injected(&mut self, slot: Option<usize>, fault: &str) {
        let device = slot.map(|slot| self.device(slot));
        let kind = EventKind::FaultInjected { device, fault: fault.to_owned() };
        match slot {
            Some(slot) => drop(self.follows(slot, kind)),
            None => drop(self.log.record(None, kind)),
        }
    }
}

/// The quarantines of an earlier run that still hold for these devices. What only a reset or a
/// reboot cures is cured by a boot; what is probed is probed when it would have been.
pub(super) fn restored(standing: &[StandingQuarantine], devices: &[Device]) -> Vec<Restored> {
    let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
    let known = standing.iter().filter_map(|quarantine| {
        let slot = names.iter().position(|name| *name == quarantine.device)?;
        // A reason that this release does not know is the most careful one.
        let reason =
            QuarantineReason::from_name(&quarantine.reason).unwrap_or(QuarantineReason::Operator);
        let cured = !quarantine.same_boot
            && matches!(reason, QuarantineReason::Reboot | QuarantineReason::Reset);
        let since = SystemTime::now().duration_since(quarantine.quarantined_at).unwrap_or_default();
        let probe_after = Duration::from_millis(quarantine.probe_after_ms.unwrap_or_default());
        (!cured).then(|| Restored {
            slot,
            reason,
            detail: format!("left by an earlier run: {}", quarantine.detail),
            probe_after: probe_after.saturating_sub(since),
        })
    });
    known.take(RESTORED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EventsConfig;
    use crate::events::explain;
    use crate::metrics::Metrics;
    use std::sync::Arc;

    const DEVICES: [Device; 2] = [Device::Cuda(0), Device::Cpu];

    fn standing(reason: &str, probe_after_ms: Option<u64>, same_boot: bool) -> StandingQuarantine {
        StandingQuarantine {
            device: "cuda:0".to_owned(),
            reason: reason.to_owned(),
            detail: "then".to_owned(),
            probe_after_ms,
            quarantined_at: SystemTime::now() - Duration::from_secs(10),
            same_boot,
            event: EventId(7),
        }
    }

    #[test]
    fn a_quarantine_outlives_the_program_until_what_ends_it_has_happened() {
        let left = |quarantine| -> Option<Duration> {
            let mut left = restored(&[quarantine], &DEVICES);
            left.pop().map(|restored| restored.probe_after)
        };
        assert!(left(standing("operator", None, false)).is_some());
        assert!(left(standing("reset", None, true)).is_some());
        assert_eq!(left(standing("reset", None, false)), None, "a boot resets devices");
        assert_eq!(left(standing("reboot", None, false)), None);
        let waits = left(standing("intensity", Some(30_000), true)).expect("it stands");
        assert!(waits <= Duration::from_secs(20) && waits > Duration::from_secs(15), "{waits:?}");
        let due = left(standing("canary", Some(5_000), true));
        assert_eq!(due, Some(Duration::ZERO), "its probe is due; what it did is not forgotten");
        assert!(left(standing("of a later release", None, false)).is_some());
        let mut elsewhere = standing("operator", None, true);
        elsewhere.device = "cuda:7".to_owned();
        assert_eq!(left(elsewhere), None);
    }

    #[test]
    fn what_happens_to_a_slot_leads_back_to_the_first_sign() {
        let log = EventLog::in_memory(&EventsConfig::default(), Arc::new(Metrics::new()));
        let mut chronicle = Chronicle::new(log.clone(), &DEVICES);
        let id = WorkerId { slot: 0, incarnation: 3 };
        let step = |from, to| Change { id, from, to, reason: "so".to_owned() };
        chronicle.fault_injected(Some(0), "kill");
        chronicle.changed(&step(WorkerState::Serving, WorkerState::Exited));
        chronicle.level(Level::Gpu(1), Level::Cpu);
        chronicle.ended(id, Some(1), "signal 9", "");
        chronicle.changed(&step(WorkerState::Exited, WorkerState::Backoff));
        chronicle.changed(&step(WorkerState::Probation, WorkerState::Serving));
        chronicle.level(Level::Cpu, Level::Gpu(1));
        chronicle.changed(&step(WorkerState::Serving, WorkerState::Suspect));
        let events = log.recent(100);
        let causes: Vec<Option<u64>> =
            events.iter().map(|event| event.cause.map(|cause| cause.0)).collect();
        assert_eq!(causes, [None, Some(1), Some(2), Some(2), Some(4), Some(5), Some(6), None]);
        assert_eq!(causes_of_a_cap(&log, &mut chronicle, id), [None, Some(9), Some(10)]);
        let story = explain(&events, EventId(4)).expect("it is there");
        assert_eq!(story.steps.first().map(|step| step.event.id), Some(EventId(1)));
    }

    /// What a cap leads to on a slot that had no trouble of its own.
    fn causes_of_a_cap(
        log: &EventLog,
        chronicle: &mut Chronicle,
        id: WorkerId,
    ) -> Vec<Option<u64>> {
        chronicle.trouble[1] = None;
        let id = WorkerId { slot: 1, ..id };
        let step = |from, to| Change { id, from, to, reason: "so".to_owned() };
        chronicle.pinned(Some(Level::Cpu));
        chronicle.changed(&step(WorkerState::Serving, WorkerState::Capped));
        chronicle.level(Level::Gpu(1), Level::Cpu);
        log.recent(3).iter().map(|event| event.cause.map(|cause| cause.0)).collect()
    }
}
