//! How a slot gets into quarantine and out of it again.

use std::time::{Duration, Instant};

use super::{Out, Slot};
use crate::supervisor::EndCause;
use crate::supervisor::ladder::{Action, DeviceNews, QuarantineReason, WorkerState};

impl Slot {
    /// An earlier run left it in quarantine.
    pub(in crate::supervisor::ladder) fn restore(
        &mut self,
        reason: QuarantineReason,
        detail: String,
        now: Instant,
        out: &mut Out,
    ) {
        self.go(WorkerState::Quarantined, format!("as an earlier run left it: {detail}"), out);
        let wait = reason.is_probed().then(|| self.limits.restarts.quarantine_probe(0));
        self.launch_at = wait.map(|wait| now + wait);
        self.quarantine = Some((reason, detail));
    }

    pub(super) fn quarantine_for(
        &mut self,
        reason: QuarantineReason,
        detail: String,
        wait: Duration,
        now: Instant,
        out: &mut Out,
    ) {
        let wait = reason.is_probed().then_some(wait);
        self.launch_at = wait.map(|wait| now + wait);
        self.quarantine = Some((reason, detail.clone()));
        self.go(WorkerState::Quarantined, format!("{reason}: {detail}"), out);
        out.push(Action::Quarantined(self.index, reason, detail, wait));
    }

    pub(in crate::supervisor::ladder) fn device_news(
        &mut self,
        news: DeviceNews,
        now: Instant,
        out: &mut Out,
    ) {
        self.hold = None;
        match news {
            DeviceNews::Unknown => {}
            DeviceNews::Well => {
                let waits = self.state == WorkerState::Quarantined;
                let ends = |(reason, _): &(QuarantineReason, String)| reason.ends_with_health();
                if waits && self.quarantine.as_ref().is_some_and(ends) {
                    self.launch_at = Some(now);
                }
            }
            DeviceNews::Hold(why) => self.hold = Some(why),
            DeviceNews::Shaken(_) => {
                use WorkerState::{Capped, Probation, Serving};
                if matches!(self.state, Probation | Serving | Capped) {
                    self.ask_for_canary(out);
                }
            }
            DeviceNews::Unfit(reason, why) => self.unfit(reason, why, now, out),
        }
    }

    fn unfit(&mut self, reason: QuarantineReason, why: String, now: Instant, out: &mut Out) {
        match self.state {
            WorkerState::Quarantined => {
                // Wrong numbers weigh more than a device that is ill as well.
                let known = self.quarantine.as_ref().map(|(reason, _)| *reason);
                let keeps = [Some(QuarantineReason::Operator), Some(reason)].contains(&known);
                if !keeps {
                    let wait = reason.is_probed().then(|| self.limits.restarts.quarantine_probe(0));
                    self.launch_at = wait.map(|wait| now + wait);
                    self.quarantine = Some((reason, why.clone()));
                    out.push(Action::Quarantined(self.index, reason, why, wait));
                }
            }
            WorkerState::Backoff => {
                let wait = self.limits.restarts.quarantine_probe(0);
                self.quarantine_for(reason, why, wait, now, out);
            }
            WorkerState::Absent | WorkerState::Draining => {}
            WorkerState::Exited | WorkerState::Stuck => {
                self.quarantine.get_or_insert((reason, why));
            }
            _ => {
                self.quarantine = Some((reason, why.clone()));
                out.push(Action::End(self.id(), EndCause::Device(why.clone())));
                self.lost(format!("device cannot be used: {why}"), now, out);
            }
        }
    }

    /// Somebody vouches for it.
    pub(in crate::supervisor::ladder) fn release(&mut self, now: Instant, out: &mut Out) {
        if self.state == WorkerState::Quarantined {
            self.quarantine = None;
            self.wrong_numbers = 0;
            self.launch_at = Some(now);
            out.push(Action::Released(self.index));
            self.go(WorkerState::Backoff, "released", out);
        }
    }
}
