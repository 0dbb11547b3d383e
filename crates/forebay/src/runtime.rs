//! The runtime as an application holds it: start, submit, look, shut down.
//!
//! `launch` says how each rung is started, `assemble` puts the stages together, `submit` takes
//! texts in, `inject` takes requests for faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel;
use forebay_model::ModelFolder;
use forebay_stage::{LaneSender, Stage};
use kameo::actor::ActorRef;

use crate::admission::Admission;
use crate::config::{Config, Device};
use crate::dispatch::{DispatchEvent, DispatchSender};
use crate::error::{EmbedError, StartError};
use crate::events::{EventKind, EventLog};
use crate::metrics::Metrics;
use crate::options::{EmbedInput, EmbedOptions, Embedding};
use crate::priority::Priority;
use crate::reply::EmbedResult;
use crate::request::TokenizeJob;
use crate::status::{QueueStatus, StageStatus, Status};
use crate::supervisor::{
    Board, Health, HealthWatch, Level, LevelWatch, Release, Shutdown, Supervisor,
};
use crate::ticket::{BatchTicket, Ticket};

mod assemble;
mod beside;
mod inject;
mod launch;
mod opening;
mod pin;
mod rates;
mod submit;
mod tokenizer;
mod watch;

use opening::Shared;

pub use launch::cuda_spec;
pub use rates::{Rates, Ready, ReadyReason};
pub use tokenizer::Tokenizer;

/// Texts that go through the tokenizer lane together at most: small enough to keep every
/// tokenizer thread busy, large enough that the lane costs nothing per text.
const JOB_TEXTS_MAX: usize = 64;
/// A job is sent once its texts have this many bytes: some milliseconds of a tokenizer's time.
const JOB_BYTES: usize = 64 * 1024;

/// How long the end waits for the last events to be on disk.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// What the model gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name of the model folder.
    pub name: String,
    /// Length of one embedding.
    pub width: usize,
    /// Tokens of one text, special tokens included, beyond which it is cut or refused.
    pub tokens_max: usize,
    /// Token ids are below this.
    pub vocab: usize,
    /// How the tokens' vectors become one: `mean`, `cls`, `max`, `mean-sqrt-len` or `last-token`.
    pub pooling: &'static str,
    /// Whether the model folder asks for embeddings of length 1.
    pub normalize: bool,
    /// Identity of the model's files.
    pub fingerprint: String,
}

impl ModelInfo {
    fn of(folder: &ModelFolder) -> Self {
        Self {
            name: folder.name().to_owned(),
            width: folder.width(),
            tokens_max: folder.tokens_max(),
            vocab: folder.encoder().vocab,
            pooling: folder.pooling().mode.as_str(),
            normalize: folder.pooling().normalize,
            fingerprint: folder.fingerprint().to_owned(),
        }
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Whether everything accepted was computed within the drain time. Otherwise the rest was
    /// answered with [`EmbedError::ShuttingDown`].
    pub drained: bool,
}

/// A running runtime. Dropping it ends the workers in the background and answers what is under way
/// with an error; [`Runtime::shutdown`] ends in order.
pub struct Runtime {
    admission: Arc<Admission>,
    dispatch: DispatchSender,
    /// One lane per class; `None` once no more texts are accepted.
    texts: Option<[LaneSender<TokenizeJob>; 3]>,
    metrics: Arc<Metrics>,
    model: ModelInfo,
    tokenizer: Tokenizer,
    measured: Arc<rates::Measured>,
    config: Config,
    board: Arc<Board>,
    events: EventLog,
    watcher: watch::Watcher,
    supervisor: ActorRef<Supervisor>,
    stop: Arc<AtomicBool>,
    /// The dispatcher and the tokenizers.
    stages: Vec<Stage>,
    /// Whose timers the waits of callers use.
    timers: tokio::runtime::Handle,
    /// `None` only while the runtime is dropped.
    control: Option<tokio::runtime::Runtime>,
}

/// The control threads of a runtime that is not there yet. If the start fails or is given up nobody
/// waits for their end: in async code that is not allowed.
struct Starting(Option<tokio::runtime::Runtime>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(control) = self.0.take() {
            control.shutdown_background();
        }
    }
}

impl Runtime {
    /// Starts the workers and returns when the first of them serves.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, None).await
    }

    /// Starts, with what a runtime beside it shares if there is one.
    async fn start_with(config: Config, shared: Option<Shared>) -> Result<Self, StartError> {
        config.validate()?;
        // Nothing on it may block in place: that would move its work to another thread, and workers end
        // with the thread that started them.
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fb-control")
            .enable_all()
            .build()
            .map_err(|source| StartError::Os { what: "start the control thread", source })?;
        let handle = control.handle().clone();
        let mut control = Starting(Some(control));
        let lost = |error: tokio::task::JoinError| StartError::Worker { reason: error.to_string() };
        let opening = opening::open(config.clone(), handle.clone(), shared);
        let opened = opening.await?;
        let assembling =
            handle.spawn(Self::assemble(config, opened, handle.clone(), control.0.take()));
        let runtime = assembling.await.map_err(lost)?;
        let board = Arc::clone(&runtime.board);
        match board.wait_for_first_outcome().await {
            Ok(()) => Ok(runtime),
            Err(reason) => {
                runtime.end(Duration::ZERO).await;
                Err(StartError::Worker { reason })
            }
        }
    }

    /// What the model gives.
    #[must_use]
    pub fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// The configuration it runs by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Embeds one text, waiting for room if there is none. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn embed(
        &self,
        input: impl Into<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<Embedding, EmbedError> {
        self.submit(input, options).await?.await
    }

    /// Embeds many texts; results come in their order. Texts are let in as room appears, so the
    /// number of texts is not limited.
    ///
    /// # Errors
    /// [`EmbedError::InvalidOption`] if the options are wrong; each text has its own result
    /// otherwise.
    pub async fn embed_batch(
        &self,
        inputs: Vec<impl Into<EmbedInput>>,
        options: &EmbedOptions,
    ) -> Result<Vec<EmbedResult>, EmbedError> {
        let total = inputs.len();
        let step = self.chunk_texts_max(options.priority);
        let mut inputs = inputs.into_iter().map(Into::into);
        let mut tickets = Vec::new();
        loop {
            let chunk: Vec<EmbedInput> = inputs.by_ref().take(step).collect();
            if chunk.is_empty() {
                break;
            }
            let texts = chunk.len();
            tickets.push(match self.submit_inputs(chunk, options).await {
                Err(error @ EmbedError::InvalidOption { .. }) => return Err(error),
                submitted => (texts, submitted),
            });
        }
        let mut results = Vec::with_capacity(total);
        for (texts, submitted) in tickets {
            match submitted {
                Ok(ticket) => results.extend(ticket.await),
                Err(error) => results.extend(std::iter::repeat_n(Err(error), texts)),
            }
        }
        Ok(results)
    }

    /// Submits one text, waiting for room if there is none, until the deadline at most.
    ///
    /// # Errors
    /// [`EmbedError`] if the text is not accepted.
    pub async fn submit(
        &self,
        input: impl Into<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<Ticket, EmbedError> {
        let input = input.into();
        self.check_one(&input, options)?;
        self.submit_inputs(vec![input], options).await.map(Ticket)
    }

    /// Submits one text if there is room now, and refuses it at once otherwise.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`] with a hint when to try again, or another [`EmbedError`] if the
    /// text is not accepted.
    pub fn try_submit(
        &self,
        input: impl Into<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<Ticket, EmbedError> {
        let input = input.into();
        self.check_one(&input, options)?;
        let spec = self.check(1, options)?;
        let acquired = self.admission.try_acquire(spec.priority, &[input.bytes()]);
        let permits = acquired.inspect_err(|error| self.refused(spec.priority, error, 1))?;
        self.enqueue(spec, vec![input], permits).map(Ticket)
    }

    /// Submits texts together, waiting for room for all of them, until the deadline at most.
    /// No more than [`Runtime::chunk_texts_max`] at a time.
    ///
    /// # Errors
    /// [`EmbedError`] if they are not accepted; none of them is then. A text that is too long is
    /// accepted and answered with its own error.
    pub async fn submit_batch(
        &self,
        inputs: Vec<impl Into<EmbedInput>>,
        options: &EmbedOptions,
    ) -> Result<BatchTicket, EmbedError> {
        self.submit_inputs(inputs.into_iter().map(Into::into).collect(), options).await
    }

    /// Most texts that [`Runtime::submit_batch`] takes at once in this class.
    #[must_use]
    pub fn chunk_texts_max(&self, priority: Priority) -> usize {
        self.admission.requests_max(priority).min(4 * JOB_TEXTS_MAX)
    }

    /// One look at everything.
    #[must_use]
    pub fn status(&self) -> Status {
        let queue = |priority| QueueStatus {
            priority,
            under_way: self.admission.under_way(priority),
            limit: self.admission.limit(priority),
            requests_max: self.admission.requests_max(priority),
        };
        Status {
            level: self.board.level(),
            pinned: self.board.pinned(),
            workers: self.board.workers(),
            queues: Priority::ALL.into_iter().map(queue).collect(),
            stages: self.stages.iter().map(stage_status).collect(),
            uptime: self.board.uptime(),
        }
    }

    /// The service level now; one cheap read.
    #[must_use]
    pub fn level(&self) -> Level {
        self.board.level()
    }

    /// Level, reason, capacity, worst age and the age of all that: two atomic loads, no lock, no
    /// wait; for a control loop.
    #[must_use]
    pub fn health(&self) -> Health {
        self.board.heartbeat().read(Instant::now())
    }

    /// Tells of changes of the level or of the reason for it.
    #[must_use]
    pub fn watch_health(&self) -> HealthWatch {
        self.board.watch_health()
    }

    /// The event log of this runtime: what has happened to its rungs, and why.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Ends the quarantine of a rung, whatever put it there; it is started again at once. `false` if
    /// there is no such rung.
    pub async fn release(&self, device: Device) -> bool {
        self.supervisor.ask(Release(device)).send().await.unwrap_or(false)
    }

    /// Waits until every rung has come to the end of its first start, well or not: from then on a
    /// better level comes only from a rung that recovers. Each rung has `worker.start_deadline_ms`.
    pub async fn settled(&self) {
        self.board.wait_until_settled().await;
    }

    /// Tells of changes of the service level.
    #[must_use]
    pub fn watch_level(&self) -> LevelWatch {
        self.board.watch(self.timers.clone())
    }

    /// Stops accepting, finishes what was accepted within `shutdown.drain_ms`, ends the workers.
    pub async fn shutdown(self) -> ShutdownReport {
        let drain = self.config.shutdown.drain();
        self.end(drain).await
    }

    /// [`Runtime::shutdown`] with its own limit on the time for what was accepted.
    pub async fn shutdown_within(self, drain: Duration) -> ShutdownReport {
        self.end(drain).await
    }

    async fn end(mut self, drain: Duration) -> ShutdownReport {
        // A caller that gives up waiting does not stop the end.
        let drained = match self.begin_end(drain) {
            Some(ending) => ending.await.unwrap_or(false),
            None => false,
        };
        ShutdownReport { drained }
    }

    /// Starts the end on the control thread, which ends itself last; `None` if it began before.
    fn begin_end(&mut self, drain: Duration) -> Option<tokio::task::JoinHandle<bool>> {
        let control = self.control.take()?;
        self.admission.close(EmbedError::ShuttingDown);
        // With its sender gone the tokenizer lane runs empty, and then the batcher's.
        self.texts = None;
        let (done, drained) = channel::bounded(1);
        self.dispatch.send(DispatchEvent::Drain(done));
        let (supervisor, stop) = (self.supervisor.clone(), Arc::clone(&self.stop));
        let (dispatch, stages) = (self.dispatch.clone(), self.stages.clone());
        let (events, watcher) = (self.events.clone(), self.watcher.clone());
        let grace = self.config.worker.drain_deadline();
        let reap = self.config.supervisor.kill_grace() + self.config.supervisor.reap_deadline();
        let handle = control.handle().clone();
        Some(handle.spawn(async move {
            let wait = tokio::task::spawn_blocking(move || drained.recv_timeout(drain).is_ok());
            let drained = wait.await.unwrap_or(false);
            if !drained {
                dispatch.send(DispatchEvent::AnswerAll(EmbedError::ShuttingDown));
            }
            let grace = if drained { grace } else { Duration::ZERO };
            let down = supervisor.ask(Shutdown { drain: grace }).send();
            // Longer than any worker may take to drain, be killed and be reaped.
            let limit = grace + reap + reap;
            if !matches!(tokio::time::timeout(limit, down).await, Ok(Ok(()))) {
                tracing::error!("workers did not end within {limit:?}");
            }
            watcher.stop().await;
            stop.store(true, Ordering::Release);
            dispatch.wake();
            for stage in &stages {
                stage.ended_within(limit).await;
            }
            events.record(None, EventKind::RuntimeStopped { drained });
            let flushing = tokio::task::spawn_blocking(move || events.flush(FLUSH_DEADLINE));
            if !flushing.await.unwrap_or(false) {
                tracing::warn!("the last events are not on disk within {FLUSH_DEADLINE:?}");
            }
            control.shutdown_background();
            drained
        }))
    }
}

fn stage_status(stage: &Stage) -> StageStatus {
    let clock = stage.clock();
    StageStatus { stage: stage.name(), items: clock.items(), busy: clock.busy() }
}

impl Drop for Runtime {
    /// Ends the workers in the background: they are killed and reaped, and what is under way is
    /// answered. If the process ends before that, a worker exits when its socket closes.
    fn drop(&mut self) {
        drop(self.begin_end(Duration::ZERO));
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("level", &self.level()).finish_non_exhaustive()
    }
}
