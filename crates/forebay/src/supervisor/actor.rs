//! The supervisor actor: hears of every start and end, lets the ladder decide, and acts.
//!
//! What the ladder's actions mean to the workers and to whoever looks on is in [`super::follow`].

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_protocol::Ready;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use kameo::reply::{DelegatedReply, ReplySender};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::AbortHandle;

use super::board::Board;
use super::chronicle::{Chronicle, restored};
use super::end_cause::EndCause;
use super::follow::tell;
use super::inject::{FailStarts, FaultHooks};
use super::ladder::{Event, Ladder, Limits};
use super::level::Level;
use crate::admission::Admission;
use crate::config::{Device, ReplyConfig, SupervisorConfig};
use crate::dispatch::{DispatchEvent, DispatchSender, EndedWorker, WorkerId, WorkerNews};
use crate::error::EmbedError;
use crate::events::{EventLog, StandingQuarantine};
use crate::health::DeviceVerdict;
use crate::metrics::{Metrics, RungMetrics};
use crate::worker_process::actor::{End, WorkerProcess};
use crate::worker_process::spawn::LaunchSpec;

/// Control messages that may wait for the supervisor.
pub(crate) const MAILBOX: usize = 256;

/// What the supervisor is started with.
pub(crate) struct SupervisorArgs {
    /// How each rung is launched, best rung first.
    pub(crate) rungs: Vec<Arc<LaunchSpec>>,
    pub(crate) restarts: SupervisorConfig,
    pub(crate) canary_interval: Duration,
    pub(crate) reply: ReplyConfig,
    pub(crate) spin: Duration,
    pub(crate) board: Arc<Board>,
    pub(crate) dispatch: DispatchSender,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fault_hooks: FaultHooks,
    pub(crate) events: EventLog,
    /// What an earlier run left in quarantine.
    pub(crate) quarantines: Vec<StandingQuarantine>,
    /// Something will be heard of the devices.
    pub(crate) watched: bool,
    /// The operator's cap on the level from the start.
    pub(crate) pinned: Option<Level>,
}

/// A worker is ready.
pub(crate) struct WorkerReady {
    pub(crate) id: WorkerId,
    pub(crate) pid: u32,
    pub(crate) ready: Ready,
    pub(crate) took: Duration,
}

/// A worker answers no more; what it had is handed back.
pub(crate) struct WorkerLost {
    pub(crate) id: WorkerId,
    pub(crate) reason: String,
}

/// A worker's process is gone.
pub(crate) struct WorkerEnded {
    pub(crate) id: WorkerId,
    pub(crate) pid: Option<u32>,
    pub(crate) cause: EndCause,
    pub(crate) log: String,
}

/// A worker's process does not end although it was killed.
pub(crate) struct WorkerStuck {
    pub(crate) id: WorkerId,
    pub(crate) pid: u32,
}

/// A process whose actor is gone has been reaped.
pub(crate) struct Orphaned(pub(crate) WorkerId);

/// The ladder's next moment has come.
struct Tick;

/// Drains every worker and ends; the reply comes when all are gone.
pub(crate) struct Shutdown {
    pub(crate) drain: Duration,
}

/// A worker as this actor sees it.
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) actor: ActorRef<WorkerProcess>,
    /// Its process has been started and not been reaped.
    pub(super) process_exists: Arc<AtomicBool>,
}

/// One rung as this actor sees it.
pub(super) struct Rung {
    pub(super) launch: Arc<LaunchSpec>,
    pub(super) metrics: Arc<RungMetrics>,
    pub(super) worker: Option<Worker>,
    pub(super) fail_starts: FailStarts,
    /// What was last said of its device.
    pub(super) verdict: Option<DeviceVerdict>,
}

/// Supervises the rungs of one runtime.
pub(crate) struct Supervisor {
    pub(super) args: SupervisorArgs,
    pub(super) rungs: Vec<Rung>,
    pub(super) slot_of: HashMap<ActorId, usize>,
    pub(super) ladder: Ladder,
    pub(super) chronicle: Chronicle,
    /// The moment for which a [`Tick`] is on its way.
    timer: Option<(Instant, AbortHandle)>,
    /// How long workers may take to finish what they have when they are drained.
    pub(super) drain: Duration,
    pub(super) stopping: bool,
    /// The host itself has failed.
    pub(super) failed: bool,
    shutdown: Option<ReplySender<()>>,
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
            metrics: Arc::new(args.metrics.rung(&launch.worker.device)),
            worker: None,
            fail_starts: FailStarts::default(),
            verdict: None,
        };
        let rungs: Vec<Rung> = args.rungs.iter().map(rung).collect();
        let devices: Vec<Device> = rungs.iter().map(|rung| rung.launch.device).collect();
        let limits =
            Limits { restarts: args.restarts.clone(), canary_interval: args.canary_interval };
        let ladder = Ladder::new(&devices, &limits, StdRng::from_os_rng());
        let chronicle = Chronicle::new(args.events.clone(), &devices);
        let left = restored(&args.quarantines, &devices);
        let mut supervisor = Self {
            args,
            rungs,
            slot_of: HashMap::new(),
            ladder,
            chronicle,
            timer: None,
            drain: Duration::ZERO,
            stopping: false,
            failed: false,
            shutdown: None,
        };
        if let Some(cap) = supervisor.args.pinned {
            supervisor.pin(Some(cap));
            supervisor.ladder.handle(Event::Capped(Some(cap)), Instant::now());
        }
        let watched = supervisor.args.watched;
        supervisor.ladder.start(left, watched, Instant::now());
        supervisor.follow(&me).await;
        supervisor.set_timer(&me);
        Ok(supervisor)
    }

    /// Workers report their end before they stop; what is left to see here is an actor that
    /// failed to, and a stage of the host that failed.
    async fn on_link_died(
        &mut self,
        me: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Self::Error> {
        let slot = self.slot_of.remove(&id);
        let worker = slot.and_then(|slot| self.rungs.get_mut(slot)?.worker.take());
        if let (Some(Worker { id, process_exists, .. }), Some(me)) = (worker, me.upgrade()) {
            // The dispatcher takes what the worker had out of its books itself.
            let ended = EndedWorker { id, batches: Vec::new(), requested: false };
            self.args.dispatch.send(DispatchEvent::WorkerEnded(ended));
            let cause = EndCause::Protocol(format!("worker actor ended: {reason}"));
            self.note_end(id, None, &cause, "");
            self.happen(Event::Lost(id, cause.to_string()), &me).await;
            // Nothing else may use the device before the process is gone; who reaps it tells.
            let event = match process_exists.load(Ordering::Acquire) {
                true => Event::Unkillable(id),
                false => Event::Ended(id, cause),
            };
            self.happen(event, &me).await;
            self.finish_shutdown(&me);
        } else if slot.is_none() && !reason.is_normal() {
            self.host_failed(format!("a stage of the host failed: {reason}")).await;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Supervisor {
    /// Lets the ladder decide about an event, and does what it says.
    pub(super) async fn happen(&mut self, event: Event, me: &ActorRef<Self>) {
        self.ladder.handle(event, Instant::now());
        self.follow(me).await;
        self.set_timer(me);
    }

    async fn worker_ended(&mut self, ended: WorkerEnded, me: &ActorRef<Self>) {
        let WorkerEnded { id, pid, cause, log } = ended;
        let Some(rung) = self.rungs.get_mut(id.slot) else { return };
        let Some(worker) = rung.worker.take_if(|worker| worker.id == id) else { return };
        self.slot_of.remove(&worker.actor.id());
        self.note_end(id, pid, &cause, &log);
        self.happen(Event::Ended(id, cause), me).await;
        self.finish_shutdown(me);
    }

    /// The host itself cannot go on. Nothing is accepted or served any more, and the workers are ended:
    /// nobody is left who would notice that one of them hangs.
    async fn host_failed(&mut self, message: String) {
        tracing::error!("{message}");
        let error = EmbedError::Internal { message: message.clone() };
        self.args.admission.close(error.clone());
        self.args.dispatch.send(DispatchEvent::AnswerAll(error));
        self.args.board.fail(&message);
        self.args.metrics.level(0);
        if !std::mem::replace(&mut self.failed, true) {
            for rung in &self.rungs {
                if let Some(worker) = &rung.worker {
                    tell(&worker.actor, End(EndCause::Requested));
                }
            }
        }
    }

    /// Makes sure that the ladder's next moment is not missed.
    fn set_timer(&mut self, me: &ActorRef<Self>) {
        let next = self.ladder.next_wakeup();
        if self.timer.as_ref().map(|(at, _)| *at) == next {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
        self.timer = next.map(|at| {
            let me = me.clone();
            let ticking = tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                me.tell(Tick).send().await.ok();
            });
            (at, ticking.abort_handle())
        });
    }

    fn finish_shutdown(&mut self, me: &ActorRef<Self>) {
        if !self.ladder.is_down() {
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

impl Message<Tick> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, _: Tick, context: &mut Context<Self, ()>) {
        self.timer = None;
        let me = context.actor_ref().clone();
        self.happen(Event::Tick, &me).await;
    }
}

impl Message<WorkerNews> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, news: WorkerNews, context: &mut Context<Self, ()>) {
        let event = match news {
            WorkerNews::Canary { id, verdict, replies } => {
                self.note_canary(id, &verdict, replies);
                Event::Canary(id, verdict)
            }
            WorkerNews::Good { id } => Event::Good(id),
            WorkerNews::Late { id, reason, texts } => {
                self.chronicle.hedged(id, texts);
                Event::Late(id, reason)
            }
            WorkerNews::CaughtUp { id } => Event::CaughtUp(id),
            WorkerNews::RerunsRefused { texts } => return self.chronicle.reruns_refused(texts),
        };
        let me = context.actor_ref().clone();
        self.happen(event, &me).await;
    }
}

impl Message<WorkerReady> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, report: WorkerReady, context: &mut Context<Self, ()>) {
        let WorkerReady { id, pid, ready, took } = report;
        tracing::info!(
            device = ready.device,
            engine = ready.engine,
            precision = ready.precision,
            pid,
            start_ms = took.as_millis() as u64,
            details = ?ready.details,
            "worker is ready"
        );
        self.args.board.update(id.slot, |status| {
            status.pid = Some(pid);
            status.engine = ready.engine;
            status.precision = ready.precision;
            status.details = ready.details;
            status.start_time = Some(took);
        });
        let me = context.actor_ref().clone();
        self.happen(Event::Greeted(id), &me).await;
    }
}

impl Message<WorkerLost> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, lost: WorkerLost, context: &mut Context<Self, ()>) {
        let me = context.actor_ref().clone();
        self.happen(Event::Lost(lost.id, lost.reason), &me).await;
    }
}

impl Message<WorkerEnded> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, ended: WorkerEnded, context: &mut Context<Self, ()>) {
        let me = context.actor_ref().clone();
        self.worker_ended(ended, &me).await;
    }
}

impl Message<WorkerStuck> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, stuck: WorkerStuck, context: &mut Context<Self, ()>) {
        let WorkerStuck { id, pid } = stuck;
        tracing::error!(
            worker = id.slot,
            pid,
            "worker did not end within supervisor.reap_deadline_ms; its device is left alone"
        );
        let me = context.actor_ref().clone();
        self.happen(Event::Unkillable(id), &me).await;
        self.finish_shutdown(&me);
    }
}

impl Message<Orphaned> for Supervisor {
    type Reply = ();

    async fn handle(&mut self, Orphaned(id): Orphaned, context: &mut Context<Self, ()>) {
        let me = context.actor_ref().clone();
        let cause = EndCause::Protocol("the actor of this worker had failed".to_owned());
        self.happen(Event::Ended(id, cause), &me).await;
        self.finish_shutdown(&me);
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
        self.shutdown = done;
        self.drain = drain;
        self.stopping = true;
        let me = context.actor_ref().clone();
        self.happen(Event::Shutdown, &me).await;
        self.finish_shutdown(&me);
        delegated
    }
}
