//! The supervisor actor: hears of every start and end, asks the policy, acts.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_protocol::Ready;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::mailbox;
use kameo::message::{Context, Message};
use kameo::reply::{DelegatedReply, ReplySender};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::board::{Board, WorkerState};
use super::policy::{EndCause, Next, RestartPolicy};
use crate::admission::Admission;
use crate::config::{ReplyConfig, SupervisorConfig};
use crate::dispatch::{DispatchEvent, DispatchSender, EndedWorker, Standing, WorkerId, WorkerNews};
use crate::error::EmbedError;
use crate::metrics::{Metrics, RestartCause, RungMetrics};
use crate::worker_process::actor::{self as worker_actor, Drain, WorkerArgs, WorkerProcess};
use crate::worker_process::spawn::LaunchSpec;

/// Control messages that may wait for the supervisor.
pub(crate) const MAILBOX: usize = 64;

/// What the supervisor is started with.
pub(crate) struct SupervisorArgs {
    /// How each rung is launched, best rung first.
    pub(crate) rungs: Vec<Arc<LaunchSpec>>,
    pub(crate) restarts: SupervisorConfig,
    pub(crate) reply: ReplyConfig,
    pub(crate) spin: Duration,
    pub(crate) board: Arc<Board>,
    pub(crate) dispatch: DispatchSender,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A worker serves.
pub(crate) struct WorkerReady {
    pub(crate) id: WorkerId,
    pub(crate) pid: u32,
    pub(crate) ready: Ready,
    pub(crate) took: Duration,
}

/// A worker is gone and its batches are handed back.
pub(crate) struct WorkerEnded {
    pub(crate) id: WorkerId,
    pub(crate) cause: EndCause,
    pub(crate) log: String,
}

/// Starts a rung that is not running.
struct Launch(usize);

/// Drains every worker and ends; the reply comes when all are gone.
pub(crate) struct Shutdown {
    pub(crate) drain: Duration,
}

struct Rung {
    launch: Arc<LaunchSpec>,
    policy: RestartPolicy,
    metrics: Arc<RungMetrics>,
    incarnation: u64,
    worker: Option<ActorRef<WorkerProcess>>,
}

/// Supervises the rungs of one runtime.
pub(crate) struct Supervisor {
    args: SupervisorArgs,
    rungs: Vec<Rung>,
    slot_of: HashMap<ActorId, usize>,
    random: StdRng,
    shutdown: Option<ReplySender<()>>,
    stopping: bool,
}

impl Actor for Supervisor {
    type Args = SupervisorArgs;
    type Error = Infallible;

    fn name() -> &'static str {
        "supervisor"
    }

    async fn on_start(args: Self::Args, me: ActorRef<Self>) -> Result<Self, Self::Error> {
        let rung = |launch: &Arc<LaunchSpec>| Rung {
            launch: Arc::clone(launch),
            policy: RestartPolicy::new(args.restarts.clone()),
            metrics: Arc::new(args.metrics.rung(&launch.worker.device)),
            incarnation: 0,
            worker: None,
        };
        let rungs: Vec<Rung> = args.rungs.iter().map(rung).collect();
        // The last rung, the CPU, first: it is what answers before any other is ready.
        for slot in (0..rungs.len()).rev() {
            me.tell(Launch(slot)).send().await.ok();
        }
        Ok(Self {
            args,
            rungs,
            slot_of: HashMap::new(),
            random: StdRng::from_os_rng(),
            shutdown: None,
            stopping: false,
        })
    }

    /// Workers report their end before they stop; what is left to see here is an actor that
    /// failed to, and a stage of the host that failed.
    async fn on_link_died(
        &mut self,
        me: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Self::Error> {
        if let Some(slot) = self.slot_of.get(&id).copied() {
            if let Some(me) = me.upgrade() {
                let incarnation = self.rungs[slot].incarnation;
                let id = WorkerId { slot, incarnation };
                let cause = EndCause::Protocol(format!("worker actor ended: {reason}"));
                let ended = EndedWorker { id, batches: Vec::new(), requested: false };
                self.args.dispatch.send(DispatchEvent::WorkerEnded(ended));
                self.worker_ended(WorkerEnded { id, cause, log: String::new() }, &me);
            }
        } else if !reason.is_normal() {
            let message = format!("a stage of the host failed: {reason}");
            tracing::error!("{message}");
            let error = EmbedError::Internal { message: message.clone() };
            self.args.admission.close(error.clone());
            self.args.dispatch.send(DispatchEvent::AnswerAll(error));
            self.args.board.fail(&message);
            self.level_shown(true);
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Supervisor {
    fn worker_ended(&mut self, ended: WorkerEnded, me: &ActorRef<Self>) {
        let WorkerEnded { id, cause, log } = ended;
        let Some(rung) = self.rungs.get_mut(id.slot).filter(|r| r.incarnation == id.incarnation)
        else {
            return;
        };
        if let Some(worker) = rung.worker.take() {
            self.slot_of.remove(&worker.id());
        }
        let next = rung.policy.ended(&cause, Instant::now(), &mut self.random);
        let next = if self.stopping { Next::Stop } else { next };
        if next != Next::Stop {
            rung.metrics.restarted(restart_cause(&cause));
        }
        rung.metrics.quarantined(matches!(next, Next::Quarantine(_)));
        let device = rung.launch.worker.device.clone();
        let reason = match &cause {
            // The worker's own words; its log says the same.
            EndCause::StartFailed(message)
            | EndCause::StartLost(message)
            | EndCause::StartMissing(message) => message.clone(),
            _ if log.is_empty() => cause.to_string(),
            _ => format!("{cause}: {log}"),
        };
        match &next {
            Next::Stop => tracing::debug!(device, incarnation = id.incarnation, "{reason}"),
            _ => tracing::warn!(device, incarnation = id.incarnation, ?next, "{reason}"),
        }
        let state = match next {
            Next::Restart(_) => WorkerState::Backoff,
            Next::Quarantine(_) => WorkerState::Quarantined,
            Next::Stop => WorkerState::Stopped,
        };
        let changed = self.args.board.update(id.slot, |status| {
            status.state = state;
            status.pid = None;
            status.last_end = Some(reason);
        });
        self.level_shown(changed);
        if let Next::Restart(wait) | Next::Quarantine(wait) = next {
            let me = me.clone();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                me.tell(Launch(id.slot)).send().await.ok();
            });
        }
        if let Some(reason) = self.args.board.hopeless() {
            self.args.board.first_outcome(Err(reason.clone()));
            // What is left at a shutdown is told so when the dispatcher stops.
            if !self.stopping {
                self.args.dispatch.send(DispatchEvent::NoHope(reason));
            }
        }
        self.finish_shutdown(me);
    }

    fn level_shown(&self, changed: bool) {
        let level = self.args.board.level();
        self.args.metrics.level(level.gauge());
        if changed {
            tracing::info!(%level, "service level changed");
        }
    }

    fn finish_shutdown(&mut self, me: &ActorRef<Self>) {
        if !self.stopping || self.rungs.iter().any(|rung| rung.worker.is_some()) {
            return;
        }
        if let Some(done) = self.shutdown.take() {
            done.send(());
        }
        // Stages of the host are linked to this actor and outlive it by their closed lanes.
        let me = me.clone();
        tokio::spawn(async move { me.stop_gracefully().await.ok() });
    }
}

impl Message<Launch> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, Launch(slot): Launch, context: &mut Context<Self, ()>) {
        let Some(rung) = self.rungs.get_mut(slot).filter(|rung| rung.worker.is_none()) else {
            return;
        };
        if self.stopping {
            return;
        }
        rung.incarnation += 1;
        let me = context.actor_ref().clone();
        let incarnation = rung.incarnation;
        let worker_args = WorkerArgs {
            id: WorkerId { slot, incarnation },
            launch: Arc::clone(&rung.launch),
            supervisor: me.clone(),
            dispatch: self.args.dispatch.clone(),
            metrics: Arc::clone(&self.args.metrics),
            rung: Arc::clone(&rung.metrics),
            reap_deadline: self.args.restarts.reap_deadline(),
            norm_tolerance: self.args.reply.norm_tolerance,
            spin: self.args.spin,
        };
        let mailbox = mailbox::bounded(worker_actor::MAILBOX);
        let worker = WorkerProcess::spawn_link_with_mailbox(&me, worker_args, mailbox).await;
        self.slot_of.insert(worker.id(), slot);
        rung.worker = Some(worker);
        let probing = self.args.board.hopeless().is_some();
        let changed = self.args.board.update(slot, |status| {
            status.restarts += u64::from(incarnation > 1);
            status.incarnation = incarnation;
            // A probe raises no hope before it has succeeded.
            if !probing {
                status.state = WorkerState::Starting;
            }
        });
        self.level_shown(changed);
    }
}

impl Message<WorkerReady> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, report: WorkerReady, _: &mut Context<Self, ()>) {
        let WorkerReady { id, pid, ready, took } = report;
        let Some(rung) = self.rungs.get_mut(id.slot).filter(|r| r.incarnation == id.incarnation)
        else {
            return;
        };
        rung.policy.serving(Instant::now());
        self.args.dispatch.send(DispatchEvent::Canary(id));
        self.args.dispatch.send(DispatchEvent::Standing(id, Standing::Serving));
        rung.metrics.quarantined(false);
        tracing::info!(
            device = ready.device,
            engine = ready.engine,
            precision = ready.precision,
            pid,
            start_ms = took.as_millis() as u64,
            details = ?ready.details,
            "worker serves"
        );
        let changed = self.args.board.update(id.slot, |status| {
            status.state = WorkerState::Serving;
            status.pid = Some(pid);
            status.engine = ready.engine;
            status.precision = ready.precision;
            status.details = ready.details;
            status.start_time = Some(took);
        });
        self.level_shown(changed);
        self.args.board.first_outcome(Ok(()));
    }
}

impl Message<WorkerEnded> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, ended: WorkerEnded, context: &mut Context<Self, ()>) {
        let me = context.actor_ref().clone();
        self.worker_ended(ended, &me);
    }
}

impl Message<WorkerNews> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, news: WorkerNews, _: &mut Context<Self, ()>) {
        tracing::debug!(?news, "news of a worker");
        if let WorkerNews::CaughtUp { id } = news {
            self.args.dispatch.send(DispatchEvent::Standing(id, Standing::Serving));
        }
    }
}

impl Message<Shutdown> for Supervisor {
    type Reply = DelegatedReply<()>;

    async fn handle(
        &mut self,
        Shutdown { drain }: Shutdown,
        context: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let (delegated, done) = context.reply_sender();
        self.stopping = true;
        self.shutdown = done;
        for rung in &self.rungs {
            if let Some(worker) = &rung.worker {
                worker.tell(Drain { within: drain }).send().await.ok();
            }
        }
        let me = context.actor_ref().clone();
        self.finish_shutdown(&me);
        delegated
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
    }
}
