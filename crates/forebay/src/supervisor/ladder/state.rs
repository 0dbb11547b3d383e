//! What a slot of the ladder can be doing, which state may follow which, and why a slot can be in
//! quarantine. It holds names and rules, no history.

use serde::Serialize;

/// What a rung is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// There is no process and none is planned.
    Absent,
    /// Its process is on the way to being ready.
    Starting,
    /// It is ready and has yet to give the known answers.
    Warming,
    /// It has given the known answers, and shows for a while that it stays up; it gets a small
    /// share of the work.
    Probation,
    /// It takes batches.
    Serving,
    /// It could serve, but the operator has capped the level below: it gets no work.
    Capped,
    /// A batch is late: it gets no more work until it has answered, and the work that it holds is
    /// done elsewhere.
    Suspect,
    /// It finishes what it holds, and ends.
    Draining,
    /// It answers no more, and its process is being ended or reaped.
    Exited,
    /// It waits before its next start.
    Backoff,
    /// It is only probed now and then, or waits for help from outside.
    Quarantined,
    /// Its process cannot be ended, so no other one is started on its device.
    Stuck,
}

impl WorkerState {
    /// Every state.
    pub const ALL: [Self; 12] = [
        Self::Absent,
        Self::Starting,
        Self::Warming,
        Self::Probation,
        Self::Serving,
        Self::Capped,
        Self::Suspect,
        Self::Draining,
        Self::Exited,
        Self::Backoff,
        Self::Quarantined,
        Self::Stuck,
    ];

    /// The name in status, metrics and the event log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Warming => "warming",
            Self::Probation => "probation",
            Self::Serving => "serving",
            Self::Capped => "capped",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Exited => "exited",
            Self::Backoff => "backoff",
            Self::Quarantined => "quarantined",
            Self::Stuck => "stuck",
        }
    }

    /// Whether a slot may go from this state to `next` in one step.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use WorkerState::{
            Absent, Backoff, Capped, Draining, Exited, Probation, Quarantined, Serving, Starting,
            Stuck, Suspect, Warming,
        };
        match self {
            Absent => matches!(next, Starting | Quarantined),
            Starting => matches!(next, Warming | Draining | Exited | Stuck),
            Warming => matches!(next, Probation | Capped | Suspect | Draining | Exited | Stuck),
            Probation => matches!(next, Serving | Capped | Suspect | Draining | Exited | Stuck),
            Serving => matches!(next, Capped | Suspect | Draining | Exited | Stuck),
            // Both show anew that they give the known answers.
            Capped => matches!(next, Warming | Suspect | Draining | Exited | Stuck),
            Suspect => matches!(next, Warming | Draining | Exited | Stuck),
            Draining => matches!(next, Exited | Stuck),
            Exited => matches!(next, Backoff | Quarantined | Absent | Stuck),
            Backoff => matches!(next, Starting | Quarantined | Absent),
            Quarantined => matches!(next, Starting | Backoff | Absent),
            // Its process has ended after all.
            Stuck => matches!(next, Exited),
        }
    }

    /// Whether a process of this slot may exist.
    #[must_use]
    pub const fn has_process(self) -> bool {
        !matches!(self, Self::Absent | Self::Backoff | Self::Quarantined)
    }
}

impl std::fmt::Display for WorkerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a slot is in quarantine, which says what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuarantineReason {
    /// It failed too often. Ends with a probe that succeeds.
    Intensity,
    /// It cannot start as it is set up. Ends with a probe that succeeds.
    Start,
    /// It gave wrong numbers once. Ends with a probe that gives right ones.
    Canary,
    /// Its device is gone. Ends when the device is reported well, or with a probe that succeeds.
    Lost,
    /// Its device needs a reset. Ends when the device is reported well.
    Reset,
    /// Its device needs a reboot of the machine. Ends when the device is reported well.
    Reboot,
    /// It gave wrong numbers again. Ends only when somebody says so.
    Operator,
}

impl QuarantineReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Intensity,
        Self::Start,
        Self::Canary,
        Self::Lost,
        Self::Reset,
        Self::Reboot,
        Self::Operator,
    ];

    /// The name in status and the event log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intensity => "intensity",
            Self::Start => "start",
            Self::Canary => "canary",
            Self::Lost => "lost",
            Self::Reset => "reset",
            Self::Reboot => "reboot",
            Self::Operator => "operator",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// Whether a start is tried now and then. A device that needs a reset or a reboot could only
    /// fail again, and wrong numbers for the second time are not to be trusted to chance.
    #[must_use]
    pub const fn is_probed(self) -> bool {
        matches!(self, Self::Intensity | Self::Start | Self::Canary | Self::Lost)
    }

    /// Whether a report that the device is well ends it.
    #[must_use]
    pub const fn ends_with_health(self) -> bool {
        matches!(self, Self::Lost | Self::Reset | Self::Reboot)
    }
}

impl std::fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_serves_only_after_the_known_answers_and_a_probation() {
        for before in WorkerState::ALL {
            assert_eq!(before.may_become(WorkerState::Serving), before == WorkerState::Probation);
            assert_eq!(before.may_become(WorkerState::Probation), before == WorkerState::Warming);
            assert!(!before.may_become(before));
        }
    }

    #[test]
    fn a_process_is_started_only_where_there_is_none() {
        for before in WorkerState::ALL {
            assert!(!before.may_become(WorkerState::Starting) || !before.has_process());
        }
    }

    #[test]
    fn names_lead_back_to_their_reasons() {
        for reason in QuarantineReason::ALL {
            assert_eq!(QuarantineReason::from_name(reason.as_str()), Some(reason));
            assert!(!(reason.is_probed() && reason == QuarantineReason::Operator));
        }
        assert_eq!(QuarantineReason::from_name("boredom"), None);
    }
}
