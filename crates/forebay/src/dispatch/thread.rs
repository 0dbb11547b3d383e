//! The dispatcher's thread: waits for texts, for news of workers and for the next deadline, and
//! lets the core decide.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::select;
use forebay_stage::{LaneReceiver, StageClock, StageFailure, WaitMode};

use super::core::{Core, FailedRows, IDLE, VitalSigns};
use super::lane::WorkerLane;
use super::port::{BatchDone, CanaryDone, EndedBatch, EndedWorker, Standing, WorkerId, WorkerNews};
use crate::admission::Admission;
use crate::error::EmbedError;
use crate::request::Pending;

pub(crate) const NAME: &str = "fb-dispatch";
/// Events that may wait. Each worker has at most a few per slot under way.
const EVENTS_MAX: usize = 1024;
/// Good news that may wait for room in the supervisor's mailbox; bad news is bounded by its cause.
const NEWS_MAX: usize = 256;
/// When news that the supervisor had no room for is offered again.
const NEWS_AGAIN: Duration = Duration::from_millis(2);
/// How long an ending dispatcher waits for the tokenizers to end.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// News for the dispatcher.
pub(crate) enum DispatchEvent {
    /// A worker has greeted and warms up.
    WorkerUp(Arc<WorkerLane>),
    /// What a worker may be given from now on.
    Standing(WorkerId, Standing),
    /// Run one canary batch on this worker as soon as it has a free slot, before ordinary work.
    Canary(WorkerId),
    /// A canary batch came back; its slot is free again.
    CanaryDone(CanaryDone),
    /// A canary batch was not computed, or its rows were spoilt on the way: nothing is known.
    CanaryFailed { worker: WorkerId, message: String },
    /// A worker takes no more batches.
    WorkerLeaving(WorkerId),
    /// No more answers can come from a worker; this is what it had in flight. `blameless`: the host
    /// ended it for a reason that has nothing to do with these texts.
    WorkerLost { id: WorkerId, batches: Vec<EndedBatch>, blameless: bool },
    /// A worker's process is gone, with what it had in flight unless that was handed back before.
    WorkerEnded(EndedWorker),
    /// A worker has computed a batch; its slot is free again.
    Completed(BatchDone),
    /// A batch failed, or some of its rows, while its worker lives on; its slot is free again.
    Failed(FailedRows),
    /// Nothing will serve for a while, and why.
    NoHope(String),
    /// Accept what is under way, then say so on this channel once nothing is left.
    Drain(Sender<()>),
    /// Answer what has not been sent to a worker with this error.
    AnswerAll(EmbedError),
}

/// Where news for the dispatcher goes.
#[derive(Clone)]
pub(crate) struct DispatchSender {
    events: Sender<DispatchEvent>,
    cancellations: CancelNotice,
}

/// Tells the dispatcher that something was cancelled. A caller's ticket holds this and not the whole
/// sender: an event with its text in it, unread by a dispatcher that has ended, must not be kept
/// alive by the very caller that waits for the text.
#[derive(Clone)]
pub(crate) struct CancelNotice(Sender<()>);

/// The dispatcher's end of it.
pub(crate) struct DispatchInbox {
    events: Receiver<DispatchEvent>,
    cancellations: Receiver<()>,
}

pub(crate) fn channel() -> (DispatchSender, DispatchInbox) {
    let (events, events_in) = bounded(EVENTS_MAX);
    let (cancellations, cancellations_in) = bounded(1);
    (
        DispatchSender { events, cancellations: CancelNotice(cancellations) },
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

    /// What a ticket holds.
    pub(crate) fn cancel_notice(&self) -> CancelNotice {
        self.cancellations.clone()
    }

    /// Wakes the dispatcher.
    pub(crate) fn wake(&self) {
        self.cancellations.send();
    }
}

impl CancelNotice {
    /// Says that something was cancelled. One notice covers any number of cancellations.
    pub(crate) fn send(&self) {
        match self.0.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

#[cfg(test)]
impl DispatchInbox {
    /// The next event, if there is one.
    pub(crate) fn try_next(&self) -> Option<DispatchEvent> {
        self.events.try_recv().ok()
    }
}

impl Drop for DispatchInbox {
    /// A bounded channel keeps what nobody has read for as long as it has senders; what is dropped
    /// here is answered.
    fn drop(&mut self) {
        self.events.try_iter().for_each(drop);
    }
}

/// Answers what is left in the lane of texts when the dispatcher ends.
struct AnswerLeft<'l>(&'l LaneReceiver<Vec<Pending>>);

impl Drop for AnswerLeft<'_> {
    fn drop(&mut self) {
        while let Some(texts) = self.0.try_recv() {
            texts.into_iter().for_each(|text| text.refuse(EmbedError::ShuttingDown));
        }
    }
}

/// The body of the dispatcher's thread. It ends when `stop` is set and an event wakes it. `news`
/// passes something on to the supervisor; what it refuses is offered again at the next turn.
#[expect(clippy::too_many_arguments, reason = "one caller, which puts the runtime together")]
pub(crate) fn run(
    mut core: Core<Arc<WorkerLane>>,
    inbox: &DispatchInbox,
    texts: &LaneReceiver<Vec<Pending>>,
    admission: &Admission,
    stop: &AtomicBool,
    publish: &dyn Fn(&VitalSigns, Instant),
    news: &dyn Fn(&WorkerNews) -> bool,
    clock: &StageClock,
) -> Result<(), StageFailure> {
    // Holds also if a decision panics: a channel keeps what nobody has read while it has senders.
    let _left = AnswerLeft(texts);
    let mut drained: Option<Sender<()>> = None;
    let mut untold = VecDeque::new();
    let mut texts_open = true;
    loop {
        let now = Instant::now();
        core.pump(now);
        let signs = core.vital_signs(now);
        admission.set_backlog(signs.backlog);
        admission.set_limits(core.texts_allowed(admission.all_under_way(), now));
        publish(&signs, now);
        for news in core.take_news() {
            // Good news is worth little: with less of it a probation only lasts longer.
            if untold.len() < NEWS_MAX || !matches!(news, WorkerNews::Good { .. }) {
                untold.push_back(news);
            }
        }
        while untold.front().is_some_and(news) {
            untold.pop_front();
        }
        if stop.load(Ordering::Acquire) {
            // Read to the end first: what a worker had last comes back in an event, and the
            // tokenizers may be at work on what was let in.
            inbox.events.try_iter().for_each(|event| take_in(&mut core, event, now, &mut drained));
            core.answer_all(&EmbedError::ShuttingDown);
            while let Ok(pending) = texts.recv_deadline(now + STOP_DEADLINE) {
                pending.into_iter().for_each(|text| text.refuse(EmbedError::ShuttingDown));
            }
            return Ok(());
        }
        if drained.is_some() && core.is_quiet() && admission.is_empty() {
            // The receiver may have given up waiting; then nobody needs to know.
            if let Some(Err(_)) = drained.take_if(|_| !texts_open).map(|done| done.send(())) {}
        }
        let idle = if untold.is_empty() { IDLE } else { NEWS_AGAIN };
        let wake = core.next_wakeup(now).unwrap_or(now + idle).min(now + idle);
        let Some(news) = next(inbox, texts, texts_open, wake) else { continue };
        let start = Instant::now();
        match news {
            News::Texts(pending) => core.accept(pending),
            News::TextsClosed => texts_open = false,
            News::Cancelled => core.sweep_cancelled(),
            News::Event(event) => take_in(&mut core, event, start, &mut drained),
        }
        // Whatever else has arrived joins before the next batch is sealed.
        while let Some(pending) = texts.try_recv() {
            core.accept(pending);
        }
        clock.add(start.elapsed());
    }
}

/// Lets the core know; `drained` is where to say that nothing is left.
fn take_in(
    core: &mut Core<Arc<WorkerLane>>,
    event: DispatchEvent,
    now: Instant,
    drained: &mut Option<Sender<()>>,
) {
    match event {
        DispatchEvent::WorkerUp(worker) => core.worker_up(worker),
        DispatchEvent::Standing(id, standing) => core.set_standing(id, standing, now),
        DispatchEvent::Canary(id) => core.run_canary(id),
        DispatchEvent::CanaryDone(done) => core.canary_done(done, now),
        DispatchEvent::CanaryFailed { worker, message } => {
            core.canary_failed(worker, &message, now);
        }
        DispatchEvent::WorkerLost { id, batches, blameless } => {
            core.worker_lost(id, batches, blameless, now);
        }
        DispatchEvent::WorkerLeaving(id) => core.worker_leaving(id, now),
        DispatchEvent::WorkerEnded(ended) => core.worker_ended(ended, now),
        DispatchEvent::Completed(done) => core.completed(&done, now),
        DispatchEvent::Failed(failed) => core.rows_failed(failed, now),
        DispatchEvent::NoHope(reason) => core.no_hope(reason),
        DispatchEvent::AnswerAll(error) => core.answer_all(&error),
        DispatchEvent::Drain(done) => {
            core.set_draining();
            *drained = Some(done);
        }
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
