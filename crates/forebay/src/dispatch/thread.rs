//! The dispatcher's thread: waits for texts, for news of workers and for the next deadline, and
//! lets the core decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::select;
use forebay_stage::{LaneReceiver, StageClock, StageFailure, WaitMode};

use super::core::{Core, FailedRows};
use super::lane::WorkerLane;
use super::port::{EndedBatch, WorkerId};
use crate::admission::Admission;
use crate::error::EmbedError;
use crate::request::Pending;

pub(crate) const NAME: &str = "fb-dispatch";
/// Events that may wait. Each worker has at most a few per slot under way.
const EVENTS_MAX: usize = 1024;
/// The thread looks around at least this often; no deadline hangs on it.
const IDLE: Duration = Duration::from_secs(1);

/// News for the dispatcher.
pub(crate) enum DispatchEvent {
    /// A worker serves from now on.
    WorkerUp(Arc<WorkerLane>),
    /// A worker takes no more batches.
    WorkerLeaving(WorkerId),
    /// A worker is gone, with what it had in flight.
    WorkerEnded(WorkerId, Vec<EndedBatch>),
    /// A slot is free again after a batch of this many tokens and this service time.
    Completed { tokens: usize, service: Duration },
    /// A batch failed while its worker lives on.
    Failed(FailedRows),
    /// Nothing will serve for a while, and why.
    NoHope(String),
    /// A worker is on its way.
    Hope,
    /// Accept what is under way, then say so on this channel once nothing is left.
    Drain(Sender<()>),
    /// Answer what has not been sent to a worker with this error.
    AnswerAll(EmbedError),
}

/// Where news for the dispatcher goes.
#[derive(Clone)]
pub(crate) struct DispatchSender {
    events: Sender<DispatchEvent>,
    cancellations: Sender<()>,
}

/// The dispatcher's end of it.
pub(crate) struct DispatchInbox {
    events: Receiver<DispatchEvent>,
    cancellations: Receiver<()>,
}

pub(crate) fn channel() -> (DispatchSender, DispatchInbox) {
    let (events, events_in) = bounded(EVENTS_MAX);
    let (cancellations, cancellations_in) = bounded(1);
    (
        DispatchSender { events, cancellations },
        DispatchInbox { events: events_in, cancellations: cancellations_in },
    )
}

impl DispatchSender {
    /// Sends an event; a dispatcher that has ended has nobody left to tell.
    pub(crate) fn send(&self, event: DispatchEvent) {
        if let Err(refused) = self.events.send(event) {
            drop(refused);
        }
    }

    /// Says that something was cancelled. One notice covers any number of cancellations.
    pub(crate) fn cancelled(&self) {
        match self.cancellations.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// The body of the dispatcher's thread. It ends when `stop` is set and an event wakes it.
pub(crate) fn run(
    mut core: Core<Arc<WorkerLane>>,
    inbox: &DispatchInbox,
    texts: &LaneReceiver<Vec<Pending>>,
    admission: &Admission,
    stop: &AtomicBool,
    publish: &dyn Fn(),
    clock: &StageClock,
) -> Result<(), StageFailure> {
    let mut drained: Option<Sender<()>> = None;
    let mut texts_open = true;
    loop {
        let now = Instant::now();
        core.pump(now);
        admission.set_backlog(core.backlog());
        publish();
        if stop.load(Ordering::Acquire) {
            while let Some(pending) = texts.try_recv() {
                core.accept(pending, now);
            }
            core.answer_all(&EmbedError::ShuttingDown);
            return Ok(());
        }
        if core.is_quiet() && texts.depth() == 0 {
            // The receiver may have given up waiting; then nobody needs to know.
            if let Some(Err(_)) = drained.take_if(|_| !texts_open).map(|done| done.send(())) {}
        }
        let wake = core.next_wakeup(now).unwrap_or(now + IDLE).min(now + IDLE);
        let Some(news) = next(inbox, texts, texts_open, wake) else { continue };
        let start = Instant::now();
        match news {
            News::Texts(pending) => core.accept(pending, start),
            News::TextsClosed => texts_open = false,
            News::Cancelled => core.sweep_cancelled(),
            News::Event(event) => match event {
                DispatchEvent::WorkerUp(worker) => core.worker_up(worker),
                DispatchEvent::WorkerLeaving(id) => core.worker_leaving(id, start),
                DispatchEvent::WorkerEnded(id, batches) => core.worker_ended(id, batches, start),
                DispatchEvent::Completed { tokens, service } => core.observe(tokens, service),
                DispatchEvent::Failed(failed) => core.rows_failed(failed),
                DispatchEvent::NoHope(reason) => core.no_hope(reason),
                DispatchEvent::Hope => core.hope(start),
                DispatchEvent::AnswerAll(error) => core.answer_all(&error),
                DispatchEvent::Drain(done) => {
                    core.set_draining();
                    drained = Some(done);
                }
            },
        }
        // Whatever else has arrived joins before the next batch is sealed.
        while let Some(pending) = texts.try_recv() {
            core.accept(pending, start);
        }
        clock.add(start.elapsed());
    }
}

enum News {
    Texts(Vec<Pending>),
    TextsClosed,
    Event(DispatchEvent),
    Cancelled,
}

/// Waits for news until `wake`.
fn next(
    inbox: &DispatchInbox,
    texts: &LaneReceiver<Vec<Pending>>,
    texts_open: bool,
    wake: Instant,
) -> Option<News> {
    if let WaitMode::SpinThenPark(spin) = texts.wait_mode() {
        let until = (Instant::now() + spin).min(wake);
        while Instant::now() < until {
            if let Ok(event) = inbox.events.try_recv() {
                return Some(News::Event(event));
            }
            if let Some(pending) = texts.try_recv() {
                return Some(News::Texts(pending));
            }
            std::hint::spin_loop();
        }
    }
    let never = crossbeam::channel::never();
    let texts = if texts_open { texts.channel() } else { &never };
    let left = wake.saturating_duration_since(Instant::now());
    select! {
        recv(inbox.events) -> event => event.ok().map(News::Event),
        recv(texts) -> pending => Some(pending.map_or(News::TextsClosed, News::Texts)),
        recv(inbox.cancellations) -> _ => Some(News::Cancelled),
        default(left) => None,
    }
}
