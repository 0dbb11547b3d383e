//! One slot of the ladder: a device, the worker on it if there is one, and what has become of the
//! workers before it. What concerns its quarantine is in [`quarantine`].

mod lapse;
mod quarantine;

use std::time::{Duration, Instant};

use rand::Rng;

pub(crate) use self::lapse::LAPSED;
use self::lapse::Lapse;
use super::restarts::{Next, RestartPolicy};
use super::{Action, Change, Level, Limits, QuarantineReason, ReleasedBy, WorkerState};
use crate::config::Device;
use crate::dispatch::{Standing, WorkerId};
use crate::supervisor::EndCause;

/// The least time between two canaries of one worker.
const CANARY_GAP_MIN: Duration = Duration::from_millis(5);

pub(super) struct Slot {
    index: usize,
    device: Device,
    limits: Limits,
    state: WorkerState,
    incarnation: u64,
    restarts: RestartPolicy,
    /// How often it has fallen since it last served for long enough to be forgiven.
    relapses: u32,
    /// Work done well since the probation began, canaries included.
    good: u32,
    dwell_until: Option<Instant>,
    lapse: Lapse,
    canary_at: Option<Instant>,
    canary_out: bool,
    /// How often it has given wrong numbers since it was last forgiven.
    wrong_numbers: u32,
    serving_since: Option<Instant>,
    launch_at: Option<Instant>,
    /// What its end will lead to, if that is settled before, or has led to.
    quarantine: Option<(QuarantineReason, String)>,
    /// Why it must not serve now although it could.
    hold: Option<String>,
    /// The last that was heard of its device is that it is well.
    well: bool,
    /// It has been heard in this run that its device is well.
    ever_well: bool,
    /// An earlier run left it in quarantine, and nothing has been heard of its device since.
    awaits_verdict: bool,
    /// The operator's cap, while it leaves no room for this slot.
    pub(super) capped: Option<Level>,
    /// It was started to see whether it can be.
    probing: bool,
    settled: bool,
}

type Out = Vec<Action>;

impl Slot {
    pub(super) fn new(index: usize, device: Device, limits: Limits) -> Self {
        Self {
            index,
            device,
            restarts: RestartPolicy::new(limits.restarts.clone()),
            limits,
            state: WorkerState::Absent,
            incarnation: 0,
            relapses: 0,
            good: 0,
            dwell_until: None,
            lapse: Lapse::default(),
            canary_at: None,
            canary_out: false,
            wrong_numbers: 0,
            serving_since: None,
            launch_at: None,
            quarantine: None,
            hold: None,
            well: false,
            ever_well: false,
            awaits_verdict: false,
            capped: None,
            probing: false,
            settled: false,
        }
    }

    pub(super) fn id(&self) -> WorkerId {
        WorkerId { slot: self.index, incarnation: self.incarnation }
    }

    pub(super) fn device(&self) -> Device {
        self.device
    }

    pub(super) fn state(&self) -> WorkerState {
        self.state
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    pub(super) fn raises_hope(&self) -> bool {
        match self.state {
            WorkerState::Serving | WorkerState::Suspect => true,
            // A probe raises no hope before it has succeeded.
            WorkerState::Starting
            | WorkerState::Warming
            | WorkerState::Probation
            | WorkerState::Draining
            | WorkerState::Exited => !self.probing && self.quarantine.is_none(),
            WorkerState::Backoff => true,
            WorkerState::Quarantined => self.awaits_verdict,
            WorkerState::Absent | WorkerState::Capped | WorkerState::Stuck => false,
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        match self.state {
            WorkerState::Backoff | WorkerState::Quarantined => self.launch_at,
            WorkerState::Probation => {
                let dwell = self.dwell_until.filter(|_| self.hold.is_none());
                [dwell.filter(|_| self.is_proven()), self.canary_due()].into_iter().flatten().min()
            }
            WorkerState::Serving | WorkerState::Capped => self.canary_due(),
            _ => None,
        }
    }

    fn canary_due(&self) -> Option<Instant> {
        self.canary_at.filter(|_| !self.canary_out)
    }

    pub(super) fn go(&mut self, to: WorkerState, reason: impl Into<String>, out: &mut Out) {
        let from = self.state;
        debug_assert!(from.may_become(to), "{from} to {to}");
        self.state = to;
        let settles = !matches!(
            to,
            WorkerState::Absent
                | WorkerState::Starting
                | WorkerState::Warming
                | WorkerState::Probation
        );
        self.settled |= settles;
        out.push(Action::Changed(Change { id: self.id(), from, to, reason: reason.into() }));
    }

    pub(super) fn launch_first(&mut self, out: &mut Out) {
        if self.state == WorkerState::Absent {
            self.launch("first start", out);
        }
    }

    fn launch(&mut self, reason: &str, out: &mut Out) {
        self.probing = self.state == WorkerState::Quarantined;
        self.incarnation += 1;
        self.launch_at = None;
        self.canary_at = None;
        self.canary_out = false;
        self.dwell_until = None;
        self.lapse.close();
        self.quarantine = self.quarantine.take().filter(|_| self.probing);
        self.go(WorkerState::Starting, reason, out);
        out.push(Action::Launch(self.id()));
    }

    /// Whether it serves, or may do so again in a moment.
    pub(super) fn serves_or_has_lapsed(&self) -> bool {
        match self.state {
            WorkerState::Serving => true,
            WorkerState::Suspect | WorkerState::Warming | WorkerState::Probation => {
                self.lapse.is_open()
            }
            _ => false,
        }
    }

    /// Nothing serves: a restart does not wait for long.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.state == WorkerState::Backoff {
            let soon = now + self.limits.restarts.backoff_alone_max();
            self.launch_at = self.launch_at.map(|at| at.min(soon));
        }
    }

    /// Starts what is due and asks for the canaries that are.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Out) {
        match self.state {
            WorkerState::Backoff if self.launch_at.is_some_and(|at| at <= now) => {
                self.launch("back-off is over", out);
            }
            WorkerState::Quarantined if self.launch_at.is_some_and(|at| at <= now) => {
                self.launch("probe", out);
            }
            WorkerState::Probation | WorkerState::Serving | WorkerState::Capped
                if self.canary_due().is_some_and(|at| at <= now) =>
            {
                self.ask_for_canary(out);
            }
            _ => {}
        }
    }

    /// From now on it gets no text.
    pub(super) fn hold_back(&mut self, out: &mut Out) {
        self.serving_since = None;
        self.lapse.close();
        out.push(Action::Standing(self.id(), Standing::Warming));
    }

    pub(super) fn ask_for_canary(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.canary_out, true) {
            out.push(Action::Canary(self.id()));
        }
    }

    pub(super) fn greeted(&mut self, out: &mut Out) {
        if self.state != WorkerState::Starting {
            return;
        }
        self.go(WorkerState::Warming, "worker is ready", out);
        if mutated!(PromotesUnproven) {
            return self.go(WorkerState::Probation, "mutation", out);
        }
        self.ask_for_canary(out);
    }

    pub(super) fn canary(&mut self, verdict: Result<(), String>, now: Instant, out: &mut Out) {
        self.canary_out = false;
        if let Err(message) = verdict
            && !mutated!(BelievesWrongAnswers)
        {
            self.wrong(message, now, out);
            return;
        }
        match (self.state, self.capped) {
            (WorkerState::Warming, Some(level)) => {
                self.canary_at = Some(now + self.limits.canary_interval);
                self.cap(level, out);
            }
            (WorkerState::Warming, None) => {
                self.good = 0;
                self.dwell_until = Some(now + self.dwell());
                self.canary_at = Some(now + self.probation_gap());
                self.go(WorkerState::Probation, "known answers are right", out);
                out.push(Action::Standing(self.id(), Standing::Probation));
            }
            (WorkerState::Probation, _) => {
                self.good();
                self.canary_at = Some(now + self.probation_gap());
            }
            _ => self.canary_at = Some(now + self.limits.canary_interval),
        }
    }

    /// It gave wrong numbers, so nothing that it says is worth anything.
    fn wrong(&mut self, message: String, now: Instant, out: &mut Out) {
        if !matches!(
            self.state,
            WorkerState::Warming
                | WorkerState::Probation
                | WorkerState::Serving
                | WorkerState::Capped
                | WorkerState::Suspect
        ) {
            return;
        }
        // It may have served for long enough that what was before is forgiven.
        self.relapse(now);
        self.quarantine = Some((self.count_wrong_numbers(), message.clone()));
        out.push(Action::End(self.id(), EndCause::Canary(message.clone())));
        self.fall(format!("wrong numbers: {message}"), out);
    }

    /// Once may be a particle from space; twice is a device.
    fn count_wrong_numbers(&mut self) -> QuarantineReason {
        self.wrong_numbers += 1;
        match self.wrong_numbers {
            1 => QuarantineReason::Canary,
            _ => QuarantineReason::Operator,
        }
    }

    pub(super) fn good(&mut self) {
        if self.state == WorkerState::Probation {
            self.good = self.good.saturating_add(1);
        }
    }

    /// How long a probation lasts: nothing without a relapse on record, then doubling.
    fn dwell(&self) -> Duration {
        let limits = &self.limits.restarts;
        match self.relapses {
            _ if self.lapse.is_pardoned() => Duration::ZERO,
            0 => Duration::ZERO,
            relapses => {
                let doubled = limits.dwell_min().saturating_mul(1 << (relapses - 1).min(31));
                doubled.min(limits.dwell_max())
            }
        }
    }

    /// Canaries on probation come often enough to fill it if no other work does.
    fn probation_gap(&self) -> Duration {
        let batches = self.limits.restarts.probation_batches.max(1);
        (self.dwell() / batches)
            .clamp(CANARY_GAP_MIN, self.limits.canary_interval.max(CANARY_GAP_MIN))
    }

    fn is_proven(&self) -> bool {
        self.relapses == 0
            || self.lapse.is_pardoned()
            || self.good >= self.limits.restarts.probation_batches
    }

    /// Ends the probation if it is over. If nothing else serves it is over at once.
    pub(super) fn promote_if_due(&mut self, alone: bool, now: Instant, out: &mut Out) {
        if self.state != WorkerState::Probation {
            return;
        }
        let dwelt = self.dwell_until.is_none_or(|until| until <= now) && self.is_proven();
        let reason = match (alone, dwelt && self.hold.is_none()) {
            (_, true) if self.lapse.is_pardoned() => LAPSED,
            (_, true) => "probation is over",
            (true, false) => "nothing else serves",
            (false, false) => return,
        };
        // A lapse takes nothing from its time of good service.
        if !self.lapse.close() || self.serving_since.is_none() {
            self.serving_since = Some(now);
            self.restarts.serving(now);
        }
        self.canary_at = Some(now + self.limits.canary_interval);
        self.probing = false;
        if self.quarantine.take().is_some() {
            out.push(Action::Released(self.index, ReleasedBy::Ladder));
        }
        self.go(WorkerState::Serving, reason, out);
        out.push(Action::Standing(self.id(), Standing::Serving));
    }

    pub(super) fn lost(&mut self, reason: String, now: Instant, out: &mut Out) {
        let has_served = matches!(self.state, WorkerState::Probation | WorkerState::Serving);
        if has_served || self.lapse.close() {
            self.relapse(now);
        }
        self.fall(reason, out);
    }

    /// Counts a fall; a long time of good service before it wipes out the earlier ones.
    pub(super) fn relapse(&mut self, now: Instant) {
        self.lapse.close();
        let served = self.serving_since.take().map(|since| now.saturating_duration_since(since));
        if served.is_some_and(|served| served >= self.limits.restarts.clean()) {
            self.relapses = 0;
            self.wrong_numbers = 0;
        }
        self.relapses = self.relapses.saturating_add(1);
    }

    /// Its worker answers no more.
    fn fall(&mut self, reason: String, out: &mut Out) {
        let has_fallen = matches!(self.state, WorkerState::Exited | WorkerState::Stuck);
        if self.state.has_process() && !has_fallen {
            self.go(WorkerState::Exited, reason, out);
        }
    }

    pub(super) fn ended(
        &mut self,
        cause: &EndCause,
        stopping: bool,
        now: Instant,
        random: &mut impl Rng,
        out: &mut Out,
    ) {
        if self.state == WorkerState::Stuck {
            self.go(WorkerState::Exited, "its process has ended after all", out);
        }
        if self.state != WorkerState::Exited {
            self.lost(cause.to_string(), now, out);
        }
        if self.state != WorkerState::Exited {
            return;
        }
        let next = self.restarts.ended(cause, now, random);
        let settled_before = self.quarantine.take();
        if stopping {
            self.go(WorkerState::Absent, cause.to_string(), out);
            return;
        }
        let next = match next {
            // Its own check at the start says the same as a canary would.
            Next::Quarantine(QuarantineReason::Canary, wait) if settled_before.is_none() => {
                Next::Quarantine(self.count_wrong_numbers(), wait)
            }
            next => next,
        };
        let next = match (next, settled_before) {
            // What put it into quarantine has not changed by this end.
            (Next::Quarantine(_, wait), Some((reason, _))) => Next::Quarantine(reason, wait),
            (_, Some((reason, _))) => {
                let wait = self.limits.restarts.quarantine_probe(0);
                Next::Quarantine(reason, wait)
            }
            (next, None) => next,
        };
        match next {
            Next::Restart(wait) => {
                self.launch_at = Some(now + wait);
                self.go(WorkerState::Backoff, cause.to_string(), out);
            }
            Next::Quarantine(reason, wait) => {
                self.quarantine_for(reason, cause.to_string(), wait, now, out);
            }
            Next::Stop => self.go(WorkerState::Absent, cause.to_string(), out),
        }
    }

    pub(super) fn unkillable(&mut self, now: Instant, out: &mut Out) {
        if self.state.has_process() && self.state != WorkerState::Stuck {
            self.fall("its process is to end".to_owned(), out);
            if mutated!(RestartsBesideStuck) {
                self.launch_at = Some(now);
                return self.go(WorkerState::Backoff, "mutation", out);
            }
            self.go(WorkerState::Stuck, "its process does not end although it was killed", out);
        }
    }

    pub(super) fn shut_down(&mut self, out: &mut Out) {
        match self.state {
            WorkerState::Backoff | WorkerState::Quarantined => {
                self.go(WorkerState::Absent, "shutdown", out);
            }
            WorkerState::Absent
            | WorkerState::Exited
            | WorkerState::Stuck
            | WorkerState::Draining => {}
            _ => {
                self.go(WorkerState::Draining, "shutdown", out);
                out.push(Action::Drain(self.id()));
            }
        }
    }
}
