//! The actor of one incarnation of a worker: it starts the process, watches its end, reaps it, and
//! hands back what it had in flight. A restarted worker is a new actor.
//!
//! The order at an end is fixed: take no more batches, close the socket, read what the worker had
//! answered, hand back the rest, kill the process if it does not end by itself, reap it. A batch
//! goes back as soon as no answer can come for it any more; another process is started only when
//! this one is reaped.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_protocol::{Ready, WorkerExit};
use forebay_stage::Stage;
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use rustix::net::Shutdown;
use tokio::sync::{mpsc, oneshot};

use super::child;
use super::conversation::Conversation;
use super::reader;
use super::spawn::{LaunchSpec, Spawned, spawn};
use crate::config::Device;
use crate::dispatch::lane::WorkerLane;
use crate::dispatch::{DispatchEvent, DispatchSender, EndedWorker, WorkerId};
use crate::metrics::{Metrics, RungMetrics};
use crate::supervisor::{
    EndCause, Orphaned, Supervisor, WorkerEnded, WorkerLost, WorkerReady, WorkerStuck,
};

/// Control messages that may wait for one worker's actor.
pub(crate) const MAILBOX: usize = 16;
/// How long the report of an end waits for the last lines of the log.
const LOG_DEADLINE: Duration = Duration::from_millis(200);

/// What every incarnation is started with.
#[derive(Clone)]
pub(crate) struct WorkerArgs {
    pub(crate) id: WorkerId,
    /// Whether there is a process that has not been reaped.
    pub(crate) process_exists: Arc<AtomicBool>,
    pub(crate) launch: Arc<LaunchSpec>,
    pub(crate) supervisor: ActorRef<Supervisor>,
    pub(crate) dispatch: DispatchSender,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rung: Arc<RungMetrics>,
    pub(crate) kill_grace: Duration,
    pub(crate) reap_deadline: Duration,
    pub(crate) norm_tolerance: f64,
    pub(crate) spin: Duration,
}

/// One incarnation of a worker.
pub(crate) struct WorkerProcess {
    args: WorkerArgs,
    started_at: Instant,
    process: Option<Process>,
    lane: Option<Arc<WorkerLane>>,
    /// Why it was ended, if this side had a reason; otherwise the exit status says it.
    cause: Option<EndCause>,
    exit: Option<EndCause>,
    draining: bool,
    /// Its process is being ended.
    ending: bool,
    reaped: bool,
    /// Every answer that it sent has been read.
    read_to_end: bool,
    finished: bool,
}

/// The child as the actor holds it; a task owns the handle and reports the exit.
struct Process {
    pid: u32,
    kill: mpsc::Sender<()>,
    socket: OwnedFd,
    log_ended: Option<oneshot::Receiver<String>>,
}

/// Starts the process; the actor sends it to itself.
struct Launch;
/// The handshake succeeded; from the reader's thread.
pub(super) struct Greeted(pub(super) Ready, pub(super) Arc<WorkerLane>);
/// The socket has ended or the worker broke the protocol; from the reader's thread.
pub(super) struct SocketEnded(pub(super) Result<(), EndCause>);
/// The process was reaped.
struct Reaped(std::io::Result<ExitStatus>);
/// The process was to end and has not been reaped and read to its end in time.
struct EndLate;

/// Asks a worker to finish what it has and exit; it is killed if it has not by the deadline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) within: Duration,
}

/// Ends a worker at once.
#[derive(Debug, Clone)]
pub(crate) struct End(pub(crate) EndCause);

impl Actor for WorkerProcess {
    type Args = WorkerArgs;
    type Error = Infallible;

    fn name() -> &'static str {
        "worker-process"
    }

    /// Does nothing that can fail or take long: nothing can interrupt this hook.
    async fn on_start(args: Self::Args, me: ActorRef<Self>) -> Result<Self, Self::Error> {
        // The mailbox is empty, so there is room.
        me.tell(Launch).try_send().ok();
        Ok(Self {
            args,
            started_at: Instant::now(),
            process: None,
            lane: None,
            cause: None,
            exit: None,
            draining: false,
            ending: false,
            reaped: false,
            read_to_end: false,
            finished: false,
        })
    }

    /// The reader's stage ended. Its own report has come before, unless it panicked.
    async fn on_link_died(
        &mut self,
        me: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<std::ops::ControlFlow<ActorStopReason>, Self::Error> {
        if id == self.args.supervisor.id() {
            // Nobody is left to report to; what is in flight is handed back all the same.
            self.finish().await;
            return Ok(std::ops::ControlFlow::Break(reason));
        }
        if !reason.is_normal()
            && let Some(me) = me.upgrade()
        {
            let message = format!("reader of worker {} failed: {reason}", self.args.id.slot);
            self.lose(message.clone()).await;
            self.end(EndCause::Protocol(message), &me).await;
        }
        Ok(match self.finished {
            true => std::ops::ControlFlow::Break(ActorStopReason::Normal),
            false => std::ops::ControlFlow::Continue(()),
        })
    }
}

impl WorkerProcess {
    /// Begins the end. The rest follows when everything that it had sent is read and the process is
    /// reaped.
    async fn end(&mut self, cause: EndCause, me: &ActorRef<Self>) {
        self.cause.get_or_insert(cause);
        self.end_process(me);
        self.finish_if_over().await;
    }

    /// Lets the process end, if there is one: its socket is closed, which ends a sound worker; what
    /// is there after a while is killed; what is there for long after that is reported.
    fn end_process(&mut self, me: &ActorRef<Self>) {
        self.args.dispatch.send(DispatchEvent::WorkerLeaving(self.args.id));
        let Some(process) = self.process.as_ref().filter(|_| !self.reaped) else { return };
        // The reader still gets what has arrived, and the end of the socket after it.
        rustix::net::shutdown(process.socket.as_fd(), Shutdown::Both).ok();
        if std::mem::replace(&mut self.ending, true) {
            return;
        }
        let (me, kill) = (me.clone(), process.kill.clone());
        let (grace, reap_deadline) = (self.args.kill_grace, self.args.reap_deadline);
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            kill.try_send(()).ok();
            tokio::time::sleep(reap_deadline).await;
            me.tell(EndLate).send().await.ok();
        });
    }

    /// No more answers can come: what the worker had runs elsewhere, before its process is gone.
    async fn lose(&mut self, reason: String) {
        self.read_to_end = true;
        let id = self.args.id;
        if !self.draining {
            let batches = self.lane.as_ref().map(|lane| lane.abandon()).unwrap_or_default();
            let blameless = self.cause.as_ref().is_some_and(EndCause::is_blameless);
            self.args.dispatch.send(DispatchEvent::WorkerLost { id, batches, blameless });
        }
        self.args.supervisor.tell(WorkerLost { id, reason }).send().await.ok();
    }

    async fn finish_if_over(&mut self) {
        if self.process.is_none() || (self.reaped && self.read_to_end) {
            self.finish().await;
        }
    }

    /// The process cannot answer any more: hands its batches back and reports the end, once. The
    /// caller stops the actor then.
    async fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let batches = self.lane.as_ref().map(|lane| lane.abandon()).unwrap_or_default();
        let cause = self.cause.take().or(self.exit.take()).unwrap_or(EndCause::Requested);
        self.args.dispatch.send(DispatchEvent::WorkerEnded(EndedWorker {
            id: self.args.id,
            batches,
            requested: cause == EndCause::Requested,
        }));
        let mut log = String::new();
        if let Some(process) = &mut self.process
            && let Some(ended) = process.log_ended.take()
            && let Ok(Ok(lines)) = tokio::time::timeout(LOG_DEADLINE, ended).await
        {
            log = lines;
        }
        let pid = self.process.as_ref().map(|process| process.pid);
        let report = WorkerEnded { id: self.args.id, pid, cause, log };
        self.args.supervisor.tell(report).send().await.ok();
    }

    pub(super) fn device(&self) -> Device {
        self.args.launch.device
    }

    /// The process, if it has not been reaped: its number is not another's.
    pub(super) fn living_pid(&self) -> Option<u32> {
        self.process.as_ref().filter(|_| !self.reaped).map(|process| process.pid)
    }

    /// The lane of a worker that has greeted and is not gone.
    pub(super) fn serving_lane(&self) -> Option<&WorkerLane> {
        self.lane.as_deref().filter(|_| !self.finished)
    }

    fn stop_if_finished(&self, context: &mut Context<Self, ()>) {
        if self.finished {
            context.stop();
        }
    }
}

impl Message<Launch> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, _: Launch, context: &mut Context<Self, ()>) {
        let me = context.actor_ref().clone();
        let Spawned { mut child, socket, arena } = match spawn(&self.args.launch) {
            Ok(spawned) => spawned,
            Err(cause) => {
                self.end(cause, &me).await;
                self.stop_if_finished(context);
                return;
            }
        };
        let own_socket = match socket.try_clone() {
            Ok(own) => own,
            Err(error) => {
                let message = format!("cannot share socket: {error}");
                self.end(EndCause::StartLost(message), &me).await;
                self.stop_if_finished(context);
                return;
            }
        };
        let (log_done, log_ended) = oneshot::channel();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(child::forward_log(stderr, self.args.id, log_done));
        }
        let (kill, kills) = mpsc::channel(1);
        let pid = child.id().unwrap_or_default();
        let (reaped, supervisor) = (me.clone(), self.args.supervisor.clone());
        let (id, process_exists) = (self.args.id, Arc::clone(&self.args.process_exists));
        process_exists.store(true, Ordering::Release);
        tokio::spawn(async move {
            let status = child::reap(child, kills).await;
            process_exists.store(false, Ordering::Release);
            if reaped.tell(Reaped(status)).send().await.is_err() {
                supervisor.tell(Orphaned(id)).send().await.ok();
            }
        });
        self.process = Some(Process { pid, kill, socket: own_socket, log_ended: Some(log_ended) });
        let conversation = Conversation { args: self.args.clone(), socket, arena, me: me.clone() };
        Stage::spawn_link(&me, reader::NAME, move |_| conversation.run()).await;
    }
}

impl Message<Greeted> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, Greeted(ready, lane): Greeted, _: &mut Context<Self, ()>) {
        if self.cause.is_some() || self.draining || self.finished {
            return;
        }
        let took = self.started_at.elapsed();
        self.lane = Some(Arc::clone(&lane));
        self.args.rung.started(took);
        self.args.dispatch.send(DispatchEvent::WorkerUp(lane));
        let report = WorkerReady {
            id: self.args.id,
            pid: self.process.as_ref().map_or(0, |process| process.pid),
            ready,
            took,
        };
        self.args.supervisor.tell(report).send().await.ok();
    }
}

impl Message<SocketEnded> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, SocketEnded(end): SocketEnded, context: &mut Context<Self, ()>) {
        let me = context.actor_ref().clone();
        let reason = match (&end, &self.cause) {
            (_, Some(cause)) | (Err(cause), None) => cause.to_string(),
            (Ok(()), None) => "its socket has ended".to_owned(),
        };
        self.lose(reason).await;
        match end {
            Err(cause) => self.end(cause, &me).await,
            Ok(()) => {
                // A worker that has drained exits by itself. Any other has died, or is made to:
                // the exit status says which.
                if !self.draining {
                    self.end_process(&me);
                }
                self.finish_if_over().await;
            }
        }
        self.stop_if_finished(context);
    }
}

impl Message<Reaped> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, Reaped(status): Reaped, context: &mut Context<Self, ()>) {
        self.reaped = true;
        self.exit = Some(match status {
            Err(error) => EndCause::Protocol(format!("exit status cannot be read: {error}")),
            Ok(status) => match (status.code(), status.signal()) {
                (Some(0), _) if self.draining => EndCause::Requested,
                (Some(code), _) => {
                    WorkerExit::from_code(code).map_or(EndCause::UnknownExit(code), EndCause::Exit)
                }
                (None, signal) => EndCause::Signal(signal.unwrap_or_default()),
            },
        });
        self.args.dispatch.send(DispatchEvent::WorkerLeaving(self.args.id));
        if let (Some(process), false) = (&self.process, self.read_to_end) {
            // Its end has closed it, unless somebody else holds it open.
            rustix::net::shutdown(process.socket.as_fd(), Shutdown::Both).ok();
        }
        self.finish_if_over().await;
        self.stop_if_finished(context);
    }
}

impl Message<EndLate> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, _: EndLate, context: &mut Context<Self, ()>) {
        if !self.finished && !self.reaped {
            // Whatever becomes of it, nothing else may use its device until it is gone.
            let pid = self.process.as_ref().map_or(0, |process| process.pid);
            let stuck = WorkerStuck { id: self.args.id, pid };
            self.args.supervisor.tell(stuck).send().await.ok();
        }
        self.stop_if_finished(context);
    }
}

impl Message<Drain> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, Drain { within }: Drain, context: &mut Context<Self, ()>) {
        self.draining = true;
        self.args.dispatch.send(DispatchEvent::WorkerLeaving(self.args.id));
        let asked = self.lane.as_ref().is_some_and(|lane| lane.drain().is_ok());
        let within = if asked { within } else { Duration::ZERO };
        let me = context.actor_ref().clone();
        tokio::spawn(async move {
            tokio::time::sleep(within).await;
            me.tell(End(EndCause::Requested)).send().await.ok();
        });
    }
}

impl Message<End> for WorkerProcess {
    type Reply = ();

    async fn handle(&mut self, End(cause): End, context: &mut Context<Self, ()>) {
        if !self.finished {
            let me = context.actor_ref().clone();
            self.end(cause, &me).await;
        }
        self.stop_if_finished(context);
    }
}
