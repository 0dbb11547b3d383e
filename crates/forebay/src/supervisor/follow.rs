//! What the ladder's actions mean: workers are started and ended, the dispatcher is told, and
//! whoever looks on is shown what happened.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use kameo::actor::{ActorRef, Spawn};
use kameo::error::SendError;
use kameo::mailbox;
use kameo::message::Message;

use super::actor::{Supervisor, Worker};
use super::end_cause::EndCause;
use super::heartbeat::HealthReason;
use super::ladder::{Action, Change, WorkerState};
use crate::dispatch::{DispatchEvent, WorkerId};
use crate::metrics::RestartCause;
use crate::worker_process::actor::{self as worker_actor, Drain, End, WorkerArgs, WorkerProcess};

impl Supervisor {
    /// Does what the ladder says, in its order.
    pub(super) async fn follow(&mut self, me: &ActorRef<Self>) {
        for action in self.ladder.take_actions() {
            match action {
                Action::Launch(id) => self.launch(id, me).await,
                Action::Standing(id, standing) => {
                    self.args.dispatch.send(DispatchEvent::Standing(id, standing));
                }
                Action::Canary(id) => self.args.dispatch.send(DispatchEvent::Canary(id)),
                Action::End(id, cause) => {
                    if let Some(worker) = self.worker(id) {
                        tell(&worker, End(cause));
                    }
                }
                Action::Drain(id) => {
                    if let Some(worker) = self.worker(id) {
                        tell(&worker, Drain { within: self.drain });
                    }
                }
                Action::Changed(change) => self.show_change(change),
                Action::Quarantined(slot, reason, detail, probe_after) => {
                    if let Some(rung) = self.rungs.get(slot) {
                        let device = &rung.launch.worker.device;
                        tracing::warn!(device, %reason, ?probe_after, "quarantined: {detail}");
                        rung.metrics.quarantined(true);
                    }
                    let why = format!("{reason}: {detail}");
                    self.args.board.update(slot, |status| {
                        status.last_end.get_or_insert(why);
                    });
                    self.chronicle.quarantined(slot, reason, &detail, probe_after);
                }
                Action::Released(slot, by) => {
                    if let Some(rung) = self.rungs.get(slot) {
                        rung.metrics.quarantined(false);
                    }
                    self.chronicle.released(slot, by.as_str());
                }
                Action::Level(from, to) => {
                    tracing::info!(%from, %to, "service level changed");
                    self.chronicle.level(from, to);
                }
            }
        }
        if self.chronicle.wants_reminder() {
            let now = Instant::now();
            for (slot, reason, detail, wait) in self.ladder.quarantines(now) {
                self.chronicle.quarantined(slot, reason, detail, wait);
            }
        }
        if self.failed {
            // What the rungs do is of no use to anybody any more.
            return;
        }
        let level = self.ladder.level();
        self.args.metrics.level(level.gauge());
        self.args.board.show(level, self.reason());
        if self.ladder.states().any(|state| state == WorkerState::Serving) {
            self.args.board.first_outcome(Ok(()));
        }
        if self.ladder.is_settled() {
            self.args.board.settle();
        }
        if self.ladder.is_hopeless() && !self.stopping {
            // What is left at a shutdown is told so when the dispatcher stops.
            let mut reason = self.args.board.last_ends();
            if let Some(cap) = self.ladder.cap() {
                reason.push_str(&format!("; the operator has capped the level at {cap}"));
            }
            self.args.board.first_outcome(Err(reason.clone()));
            self.args.dispatch.send(DispatchEvent::NoHope(reason));
        }
    }

    fn worker(&self, id: WorkerId) -> Option<ActorRef<WorkerProcess>> {
        let worker = self.rungs.get(id.slot)?.worker.as_ref()?;
        (worker.id == id).then(|| worker.actor.clone())
    }

    async fn launch(&mut self, id: WorkerId, me: &ActorRef<Self>) {
        let Some(rung) = self.rungs.get_mut(id.slot) else { return };
        let process_exists = Arc::new(AtomicBool::new(false));
        let worker_args = WorkerArgs {
            id,
            process_exists: Arc::clone(&process_exists),
            launch: rung.fail_starts.next(&rung.launch),
            supervisor: me.clone(),
            dispatch: self.args.dispatch.clone(),
            metrics: Arc::clone(&self.args.metrics),
            rung: Arc::clone(&rung.metrics),
            kill_grace: self.args.restarts.kill_grace(),
            reap_deadline: self.args.restarts.reap_deadline(),
            norm_tolerance: self.args.reply.norm_tolerance,
            spin: self.args.spin,
        };
        let mailbox = mailbox::bounded(worker_actor::MAILBOX);
        let actor = WorkerProcess::spawn_link_with_mailbox(me, worker_args, mailbox).await;
        self.slot_of.insert(actor.id(), id.slot);
        rung.worker = Some(Worker { id, actor, process_exists });
    }

    fn show_change(&mut self, change: Change) {
        self.chronicle.changed(&change);
        let Change { id, from, to, reason } = change;
        let Some(rung) = self.rungs.get(id.slot) else { return };
        let device = &rung.launch.worker.device;
        tracing::info!(device, incarnation = id.incarnation, %from, %to, "{reason}");
        self.args.board.update(id.slot, |status| {
            status.state = to;
            if (from, to) == (WorkerState::Absent, WorkerState::Quarantined) {
                // Nothing ended in this run that could say why.
                status.last_end = Some(reason);
            }
            status.incarnation = id.incarnation;
            status.restarts = id.incarnation.saturating_sub(1);
            if !to.has_process() || matches!(to, WorkerState::Starting | WorkerState::Exited) {
                status.pid = None;
            }
        });
    }

    /// Keeps why a worker ended, and tells people unless they wanted it.
    pub(super) fn note_end(&mut self, id: WorkerId, pid: Option<u32>, cause: &EndCause, log: &str) {
        let Some(rung) = self.rungs.get(id.slot) else { return };
        let reason = match cause {
            // The worker's own words; its log says the same.
            EndCause::StartFailed(message)
            | EndCause::StartLost(message)
            | EndCause::StartMissing(message) => message.clone(),
            _ if log.is_empty() => cause.to_string(),
            _ => format!("{cause}: {log}"),
        };
        self.chronicle.ended(id, pid, &cause.to_string(), log);
        let device = &rung.launch.worker.device;
        if *cause == EndCause::Requested || self.stopping {
            tracing::debug!(device, incarnation = id.incarnation, "{reason}");
        } else {
            tracing::warn!(device, incarnation = id.incarnation, "{reason}");
            rung.metrics.restarted(restart_cause(cause));
        }
        self.args.board.update(id.slot, |status| {
            status.pid = None;
            status.last_end = Some(reason);
        });
    }

    /// Says what a canary found if it found something; `replies` were given out since the one before.
    pub(super) fn note_canary(&mut self, id: WorkerId, verdict: &Result<(), String>, replies: u64) {
        if let (Err(message), Some(rung)) = (verdict, self.rungs.get(id.slot)) {
            self.chronicle.canary_failed(id, message, replies);
            let device = &rung.launch.worker.device;
            tracing::error!(
                device,
                incarnation = id.incarnation,
                replies,
                "known answers are wrong: {message}; so many embeddings were given out since they \
                 were last right"
            );
        }
    }

    /// Why the level is no better, by what the rungs are doing.
    fn reason(&self) -> HealthReason {
        if self.stopping {
            return HealthReason::Stopping;
        }
        let states: Vec<WorkerState> = self.ladder.states().collect();
        let any = |wanted: &[WorkerState]| states.iter().any(|state| wanted.contains(state));
        use WorkerState::{Backoff, Capped, Exited, Quarantined, Serving, Stuck, Suspect};
        if states.iter().all(|state| *state == Serving) {
            HealthReason::Nominal
        } else if any(&[Suspect]) {
            HealthReason::Late
        } else if any(&[Exited, Backoff]) {
            HealthReason::Recovering
        } else if !self.ladder.is_settled() {
            HealthReason::Starting
        } else if any(&[Quarantined, Stuck]) {
            HealthReason::Quarantined
        } else if any(&[Capped]) {
            HealthReason::Capped
        } else {
            HealthReason::Recovering
        }
    }
}

/// Tells a worker's actor something without waiting for room in its mailbox: it may be waiting for
/// room in this actor's.
pub(super) fn tell<M>(worker: &ActorRef<WorkerProcess>, message: M)
where
    M: Send + 'static,
    WorkerProcess: Message<M>,
{
    if let Err(SendError::MailboxFull(message)) = worker.tell(message).try_send() {
        let worker = worker.clone();
        tokio::spawn(async move { worker.tell(message).send().await.ok() });
    }
}

fn restart_cause(cause: &EndCause) -> RestartCause {
    match cause {
        EndCause::Exit(_) | EndCause::UnknownExit(_) | EndCause::Requested => RestartCause::Exit,
        EndCause::Signal(_) => RestartCause::Signal,
        EndCause::StartFailed(_) | EndCause::StartLost(_) | EndCause::StartMissing(_) => {
            RestartCause::StartFailed
        }
        EndCause::StartLate => RestartCause::StartDeadline,
        EndCause::BatchLate => RestartCause::BatchDeadline,
        EndCause::BatchesFailed(_) => RestartCause::BatchesFailed,
        EndCause::Protocol(_) => RestartCause::Protocol,
        EndCause::Canary(_) => RestartCause::Canary,
        EndCause::Device(_) => RestartCause::Device,
    }
}
