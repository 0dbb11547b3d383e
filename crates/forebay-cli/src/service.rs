//! A runtime as the commands use it: log and metrics first, then the workers; the reverse at the
//! end.

use std::time::{Duration, Instant};

use forebay::metrics::prometheus::{self, FileWriter};
use forebay::{Config, EmbedOptions, Embedding, Runtime, ShutdownReport, Status};

use crate::failure::{Exit, Failure};
use crate::log;

/// A running runtime with its metrics file.
pub(crate) struct Service {
    runtime: Runtime,
    start_time: Duration,
    metrics: Option<FileWriter>,
}

impl Service {
    /// Starts log, metrics and workers; returns when the first worker serves.
    ///
    /// # Errors
    /// Whatever is needed and not there.
    pub(crate) async fn start(config: Config) -> Result<Self, Failure> {
        log::start(&config.log);
        let metrics = metrics_file(&config)?;
        let start = Instant::now();
        let runtime = Runtime::start(config).await?;
        Ok(Self { runtime, start_time: start.elapsed(), metrics })
    }

    /// The runtime.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// How long the start took.
    pub(crate) fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Finishes what was accepted, ends the workers, and writes the metrics a last time.
    pub(crate) async fn end(self) -> ShutdownReport {
        let Self { runtime, metrics, .. } = self;
        let report = runtime.shutdown().await;
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

/// The engines of the rungs that serve.
pub(crate) fn engines(status: &Status) -> String {
    let engines: Vec<&str> = status
        .workers
        .iter()
        .map(|worker| worker.engine.as_str())
        .filter(|engine| !engine.is_empty())
        .collect();
    engines.join(", ")
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
