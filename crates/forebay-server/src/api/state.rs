//! What every handler shares: the service, the counts, and the limits in effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::config::Config;
use forebay::{EmbedOptions, Ready, ReadyReason, Runtime};
use tokio::sync::Semaphore;

use super::error::{Kind, Problem};
use super::observe::Arrived;
use crate::metrics::HttpMetrics;
use crate::service::Service;

/// What every handler shares. Clones are the same.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

struct Shared {
    service: Arc<Service>,
    metrics: Arc<HttpMetrics>,
    tokenizer_calls: Arc<Semaphore>,
    document: Bytes,
}

impl Api {
    pub(crate) fn new(service: Arc<Service>, document: Bytes) -> Self {
        let calls = Self::tokenizer_threads(&service.config());
        let tokenizer_calls = Arc::new(Semaphore::new(calls));
        let metrics = Arc::new(HttpMetrics::new());
        Self(Arc::new(Shared { service, metrics, tokenizer_calls, document }))
    }

    /// Tokenizer threads that a runtime of this configuration has.
    pub(crate) fn tokenizer_threads(config: &Config) -> usize {
        config.tokenize.thread_count()
    }

    /// What a call of the tokenizer beside the pipeline takes one of: so many of them run at once.
    pub(crate) fn tokenizer_calls(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.tokenizer_calls)
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.0.service
    }

    pub(crate) fn metrics(&self) -> &Arc<HttpMetrics> {
        &self.0.metrics
    }

    /// The OpenAPI document.
    pub(crate) fn document(&self) -> Bytes {
        self.0.document.clone()
    }

    /// Whether requests should be sent here: what the runtime says, and no while the daemon is
    /// about to end.
    pub(crate) fn readiness(&self, runtime: &Runtime) -> Ready {
        if self.0.service.is_draining() {
            return Ready { ready: false, reason: ReadyReason::Stopping };
        }
        runtime.is_ready()
    }

    /// The runtime that answers now.
    pub(crate) fn runtime(&self) -> Arc<Runtime> {
        self.0.service.runtime()
    }

    /// Bytes of a body at most.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.0.service.config().limits.body_bytes_max as usize
    }

    /// Texts of a request at most.
    pub(crate) fn texts_max(&self) -> usize {
        self.0.service.config().limits.texts_per_request_max as usize
    }

    /// Texts of a stream that are under way at most.
    pub(crate) fn stream_texts_max(&self) -> usize {
        self.0.service.config().limits.grpc_stream_texts_max as usize
    }

    /// How long a request that names no deadline may take: so much less than the listener waits for
    /// the beginning of an answer that the reply of the runtime comes first.
    pub(crate) fn time_max(&self) -> Duration {
        let config = self.0.service.config();
        let (limit_ms, slack_ms) = (config.limits.request_ms, config.reply.deadline_slack_ms);
        let reserved_ms = slack_ms.saturating_mul(2).min(limit_ms / 2);
        Duration::from_millis(u64::from(limit_ms - reserved_ms))
    }

    /// What is left of that for a request that came at this time.
    pub(crate) fn time_left(&self, arrived: Arrived) -> Duration {
        self.time_max().saturating_sub(arrived.0.elapsed())
    }

    /// The options of a request that asks for nothing special: interactive, with all the time that is
    /// left.
    pub(crate) fn options(&self, arrived: Arrived) -> EmbedOptions {
        EmbedOptions::default().within(self.time_left(arrived))
    }

    /// Whether this is a name of the model that is served: its own, also behind the name of an
    /// organisation, as `organisation/model`.
    pub(crate) fn is_served(&self, runtime: &Runtime, name: &str) -> bool {
        name.rsplit('/').next() == Some(runtime.model().name.as_str())
    }

    /// Refuses requests for a model that is not served. A request that names none is for the one
    /// there is.
    pub(crate) fn check_model(&self, runtime: &Runtime, name: Option<&str>) -> Result<(), Problem> {
        match name {
            Some(name) if !name.is_empty() && !self.is_served(runtime, name) => {
                let served = &runtime.model().name;
                let message = format!("there is no such model; the one served is `{served}`");
                Err(Problem::new(Kind::NoModel, message).about("model"))
            }
            _ => Ok(()),
        }
    }
}
