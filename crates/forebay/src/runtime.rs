//! The runtime as an application holds it: start, submit, look, shut down.
//!
//! `launch` says how each rung is started, `assemble` puts the stages together, `submit` takes
//! texts in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel;
use forebay_model::ModelFolder;
use forebay_stage::{LaneSender, Stage};
use kameo::actor::ActorRef;

use crate::admission::Admission;
use crate::config::Config;
use crate::dispatch::{DispatchEvent, DispatchSender};
use crate::error::{EmbedError, StartError};
use crate::metrics::{Metrics, Stage as MetricStage};
use crate::options::{EmbedOptions, Embedding};
use crate::priority::Priority;
use crate::reply::EmbedResult;
use crate::request::TokenizeJob;
use crate::status::{QueueStatus, Status};
use crate::supervisor::{Board, Level, LevelWatch, Shutdown, Supervisor};
use crate::ticket::{BatchTicket, Ticket};

mod assemble;
mod launch;
mod submit;

use submit::InContext;

/// Texts that go through the tokenizer lane together at most: small enough to keep every
/// tokenizer thread busy, large enough that the lane costs nothing per text.
const JOB_TEXTS_MAX: usize = 64;

/// What the model gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name of the model folder.
    pub name: String,
    /// Length of one embedding.
    pub width: usize,
    /// Tokens of one text, special tokens included, beyond which it is cut or refused.
    pub tokens_max: usize,
    /// Whether the model folder asks for embeddings of length 1.
    pub normalize: bool,
    /// Identity of the model's files.
    pub fingerprint: String,
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
    /// `None` once no more texts are accepted.
    texts: Option<LaneSender<TokenizeJob>>,
    metrics: Arc<Metrics>,
    model: ModelInfo,
    config: Config,
    board: Arc<Board>,
    supervisor: ActorRef<Supervisor>,
    stop: Arc<AtomicBool>,
    dispatcher: Stage,
    /// `None` only while the runtime is dropped.
    control: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// Starts the workers and returns when the first of them serves.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let folder = if config.model.verify_manifest {
            ModelFolder::open(&config.model.path)?
        } else {
            ModelFolder::open_unverified(&config.model.path)?
        };
        let plan = launch::plan(&config, &folder)?;
        let model = ModelInfo {
            name: folder.name().to_owned(),
            width: folder.width(),
            tokens_max: folder.tokens_max(),
            normalize: folder.pooling().normalize,
            fingerprint: folder.fingerprint().to_owned(),
        };
        let tokenizer = folder.tokenizer()?;
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fb-control")
            .enable_all()
            .build()
            .map_err(|source| StartError::Os { what: "start the control thread", source })?;
        let handle = control.handle().clone();
        let runtime = handle
            .spawn(Self::assemble(config, plan, model, tokenizer, control))
            .await
            .map_err(|error| StartError::Worker { reason: error.to_string() })?;
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
        text: impl Into<String>,
        options: &EmbedOptions,
    ) -> Result<Embedding, EmbedError> {
        self.submit(text, options).await?.await
    }

    /// Embeds many texts; results come in their order. Texts are let in as room appears, so the
    /// number of texts is not limited.
    ///
    /// # Errors
    /// [`EmbedError`] if the options are wrong or the runtime no longer accepts texts; each text
    /// has its own result otherwise.
    pub async fn embed_batch(
        &self,
        texts: Vec<String>,
        options: &EmbedOptions,
    ) -> Result<Vec<EmbedResult>, EmbedError> {
        let total = texts.len();
        let step = self.chunk_texts_max(options.priority);
        let mut texts = texts.into_iter();
        let mut tickets = Vec::new();
        loop {
            let chunk: Vec<String> = texts.by_ref().take(step).collect();
            if chunk.is_empty() {
                break;
            }
            tickets.push(self.submit_batch(chunk, options).await?);
        }
        let mut results = Vec::with_capacity(total);
        for ticket in tickets {
            results.extend(ticket.await);
        }
        Ok(results)
    }

    /// Submits one text, waiting for room if there is none, until the deadline at most.
    ///
    /// # Errors
    /// [`EmbedError`] if the text is not accepted.
    pub async fn submit(
        &self,
        text: impl Into<String>,
        options: &EmbedOptions,
    ) -> Result<Ticket, EmbedError> {
        self.submit_batch(vec![text.into()], options).await.map(Ticket)
    }

    /// Submits one text if there is room now, and refuses it at once otherwise.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`] with a hint when to try again, or another [`EmbedError`] if the
    /// text is not accepted.
    pub fn try_submit(
        &self,
        text: impl Into<String>,
        options: &EmbedOptions,
    ) -> Result<Ticket, EmbedError> {
        let texts = vec![text.into()];
        let (spec, sizes) = self.check(&texts, options)?;
        let permits = self.admission.try_acquire(spec.priority, &sizes).inspect_err(|error| {
            self.refused(spec.priority, error, 1);
        })?;
        self.enqueue(spec, texts, permits).map(Ticket)
    }

    /// Submits texts together, waiting for room for all of them, until the deadline at most.
    /// No more than [`Runtime::chunk_texts_max`] at a time.
    ///
    /// # Errors
    /// [`EmbedError`] if they are not accepted; none of them is then.
    pub async fn submit_batch(
        &self,
        texts: Vec<String>,
        options: &EmbedOptions,
    ) -> Result<BatchTicket, EmbedError> {
        let (spec, sizes) = self.check(&texts, options)?;
        let count = texts.len();
        let permits = match self.admission.try_acquire(spec.priority, &sizes) {
            Ok(permits) => permits,
            Err(EmbedError::Overloaded { .. }) => {
                let start = Instant::now();
                let waited = {
                    let handle = self.control.as_ref().map(tokio::runtime::Runtime::handle);
                    // The timer of the wait belongs to our own runtime, whoever polls it.
                    let acquire = self.admission.acquire(spec.priority, &sizes, spec.deadline);
                    InContext { handle: handle.cloned(), future: Box::pin(acquire) }.await
                };
                self.metrics.stage_blocked(MetricStage::Submit, start.elapsed());
                waited.inspect_err(|error| self.refused(spec.priority, error, count))?
            }
            Err(error) => {
                self.refused(spec.priority, &error, count);
                return Err(error);
            }
        };
        self.enqueue(spec, texts, permits)
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
            requests_max: self.admission.requests_max(priority),
        };
        Status {
            level: self.board.level(),
            workers: self.board.workers(),
            queues: Priority::ALL.into_iter().map(queue).collect(),
            uptime: self.board.uptime(),
        }
    }

    /// The service level now; one cheap read.
    #[must_use]
    pub fn level(&self) -> Level {
        self.board.level()
    }

    /// Tells of changes of the service level.
    #[must_use]
    pub fn watch_level(&self) -> LevelWatch {
        self.board.watch()
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
        let (dispatch, dispatcher) = (self.dispatch.clone(), self.dispatcher.clone());
        let grace = self.config.worker.drain_deadline();
        let reap = self.config.supervisor.reap_deadline();
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
            stop.store(true, Ordering::Release);
            dispatch.cancelled();
            dispatcher.ended_within(limit).await;
            control.shutdown_background();
            drained
        }))
    }
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
