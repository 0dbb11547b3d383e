//! How a slot gets into quarantine and out of it again.

use std::time::{Duration, Instant};

use super::{Out, Slot};
use crate::supervisor::EndCause;
use crate::supervisor::ladder::{
    Action, DeviceNews, QuarantineReason, ReleasedBy, Restored, WorkerState,
};

impl Slot {
    /// An earlier run left it in quarantine. With `watched` something will be heard of its device.
    pub(in crate::supervisor::ladder) fn restore(
        &mut self,
        restored: Restored,
        watched: bool,
        now: Instant,
        out: &mut Out,
    ) {
        let Restored { reason, detail, probe_after, .. } = restored;
        self.wrong_numbers = match reason {
            QuarantineReason::Canary => 1,
            QuarantineReason::Operator => 2,
            _ => 0,
        };
        self.awaits_verdict = watched && reason.ends_with_health();
        self.quarantine_for(reason, detail, probe_after, now, out);
    }

    pub(super) fn quarantine_for(
        &mut self,
        reason: QuarantineReason,
        detail: String,
        wait: Duration,
        now: Instant,
        out: &mut Out,
    ) {
        // A device may have been reported well while its worker was still on its way out.
        let well = self.well && reason.ends_with_health();
        let wait = (reason.is_probed() || well).then_some(wait);
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
        self.awaits_verdict = false;
        self.well = news == DeviceNews::Well;
        self.ever_well |= self.well;
        // What is unknown changes nothing about what was known.
        if news != DeviceNews::Unknown {
            self.hold = None;
        }
        let ends = |(reason, _): &(QuarantineReason, String)| reason.ends_with_health();
        let waits =
            self.state == WorkerState::Quarantined && self.quarantine.as_ref().is_some_and(ends);
        match news {
            // Where a device is never reported well, all that can be done is to try.
            DeviceNews::Unknown if waits && !self.ever_well && self.launch_at.is_none() => {
                self.launch_at = Some(now + self.limits.restarts.quarantine_probe(0));
            }
            DeviceNews::Unknown => {}
            DeviceNews::Well if waits => self.launch_at = Some(now),
            DeviceNews::Well => {}
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

    /// Somebody vouches for it: whatever would keep it from being started is forgotten.
    pub(in crate::supervisor::ladder) fn release(&mut self, now: Instant, out: &mut Out) {
        self.quarantine = None;
        self.wrong_numbers = 0;
        if self.state == WorkerState::Quarantined {
            self.launch_at = Some(now);
            out.push(Action::Released(self.index, ReleasedBy::Operator));
            self.go(WorkerState::Backoff, "released", out);
        }
    }

    /// Why it is in quarantine, if it is, and how long it is until it is probed.
    pub(in crate::supervisor::ladder) fn quarantine(
        &self,
        now: Instant,
    ) -> Option<(QuarantineReason, &str, Option<Duration>)> {
        let (reason, detail) = self.quarantine.as_ref()?;
        let wait = self.launch_at.map(|at| at.saturating_duration_since(now));
        (self.state == WorkerState::Quarantined).then_some((*reason, detail.as_str(), wait))
    }
}
