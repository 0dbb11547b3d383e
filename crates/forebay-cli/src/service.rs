//! A runtime as the commands use it: log and metrics first, then the workers; the reverse at the
//! end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::config::Device;
use forebay::metrics::prometheus::{self, FileWriter};
use forebay::{
    Config, EmbedOptions, Embedding, Runtime, ShutdownReport, Status, WorkerState, WorkerStatus,
};

use crate::failure::{Exit, Failure};
use crate::log::{self, Listener};

/// A running runtime with its metrics file.
pub(crate) struct Service {
    runtime: Arc<Runtime>,
    start_time: Duration,
    metrics: Option<FileWriter>,
}

impl Service {
    /// Starts log, metrics and workers; returns when the first worker serves.
    ///
    /// # Errors
    /// Whatever is needed and not there.
    pub(crate) async fn start(config: Config) -> Result<Self, Failure> {
        Self::start_heard(config, None).await
    }

    /// As [`Service::start`], with somebody who listens to the runtime's events from its start.
    async fn start_heard(config: Config, listener: Option<Listener>) -> Result<Self, Failure> {
        log::start_with(&config.log, listener);
        let metrics = metrics_file(&config)?;
        let start = Instant::now();
        let runtime = Arc::new(Runtime::start(config).await?);
        Ok(Self { runtime, start_time: start.elapsed(), metrics })
    }

    /// As [`Service::start`], but waits until every worker serves or has failed to: for figures,
    /// which should be those of one level.
    ///
    /// # Errors
    /// As for [`Service::start`].
    pub(crate) async fn start_all(config: Config) -> Result<Self, Failure> {
        Self::start_all_heard(config, None).await
    }

    /// As [`Service::start_all`], with a listener.
    ///
    /// # Errors
    /// As for [`Service::start`].
    pub(crate) async fn start_all_heard(
        config: Config,
        listener: Option<Listener>,
    ) -> Result<Self, Failure> {
        let start = Instant::now();
        let service = Self::start_heard(config, listener).await?;
        service.runtime.settled().await;
        Ok(Self { start_time: start.elapsed(), ..service })
    }

    /// The runtime.
    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// How long the start took.
    pub(crate) fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Finishes what was accepted, ends the workers, and writes the metrics a last time.
    pub(crate) async fn end(self) -> ShutdownReport {
        let Self { runtime, metrics, .. } = self;
        // Whoever else had it is done by now; a runtime that is still held ends when it is let go.
        let report = match Arc::into_inner(runtime) {
            Some(runtime) => runtime.shutdown().await,
            None => ShutdownReport { drained: false },
        };
        drop(metrics);
        report
    }

    /// Embeds all of these texts in class bulk, in their order.
    ///
    /// # Errors
    /// The first text that has no embedding, by its number from 1.
    pub(crate) async fn embed_all(&self, texts: Vec<String>) -> Result<Vec<Embedding>, Failure> {
        let results = self.runtime.embed_batch(texts, &EmbedOptions::bulk()).await?;
        let numbered = results.into_iter().zip(1_u64..);
        numbered.map(|(result, number)| result.map_err(|e| at("text", number, e.into()))).collect()
    }
}

/// A failure that concerns one text.
pub(crate) fn at(what: &str, number: u64, failure: Failure) -> Failure {
    Failure { message: format!("{what} {number}: {}", failure.message), ..failure }
}

/// Restarts of all workers so far.
pub(crate) fn restarts(status: &Status) -> u64 {
    status.workers.iter().map(|worker| worker.restarts).sum()
}

/// The rungs that ordinary work goes to: the serving ones of the best tier.
pub(crate) fn working(status: &Status) -> Vec<&WorkerStatus> {
    let tier = |worker: &WorkerStatus| worker.device.parse::<Device>().ok().map(Device::tier);
    let serving = status.workers.iter().filter(|worker| worker.state == WorkerState::Serving);
    let best = serving.clone().map(tier).max().flatten();
    serving.filter(|worker| tier(worker) == best).collect()
}

/// Their engines.
pub(crate) fn engines(status: &Status) -> String {
    joined(working(status).into_iter().map(|worker| worker.engine.as_str()))
}

/// Their arithmetic.
pub(crate) fn precision(status: &Status) -> String {
    joined(working(status).into_iter().map(|worker| worker.precision.as_str()))
}

/// Each of these once.
fn joined<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    texts.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

/// The metrics file of the configuration, written from now on. It has to come before the runtime,
/// which reports to the recorder that it finds.
fn metrics_file(config: &Config) -> Result<Option<FileWriter>, Failure> {
    let Some(path) = &config.metrics.prometheus_file else { return Ok(None) };
    let handle = prometheus::install()
        .map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let interval = Duration::from_millis(config.metrics.prometheus_interval_ms.into());
    let writer =
        handle.write_every(path, interval).map_err(|error| Failure::creating(path, &error))?;
    Ok(Some(writer))
}
