//! The library as target: a runtime in this process.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use forebay::config::Device;
use forebay::metrics::prometheus::PrometheusHandle;
use forebay::{BatchTicket, Config, EmbedError, EmbedOptions, Fault, Runtime};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::dialect::{counted, readings};
use super::{Answer, Call, Look, Reading, Sent, Stray, Target, WorkerLook, within};
use crate::error::SoakError;

/// A look is a few locks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A runtime in this process.
pub struct LibraryTarget {
    runtime: Runtime,
    metrics: Option<PrometheusHandle>,
}

impl LibraryTarget {
    /// Starts a runtime and waits until each of its workers serves or has failed to.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(
        config: Config,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, SoakError> {
        let runtime = Runtime::start(config).await.map_err(|error| SoakError::Unreachable {
            target: "the library".to_owned(),
            reason: error.to_string(),
        })?;
        runtime.settled().await;
        Ok(Self { runtime, metrics })
    }

    /// Answers what is under way and ends the workers.
    pub async fn end(self) {
        self.runtime.shutdown().await;
    }
}

fn code(error: &EmbedError) -> Cow<'static, str> {
    Cow::Borrowed(error.code())
}

/// The vectors of a request, or its first error.
async fn answered(ticket: BatchTicket) -> Answer {
    let rows: Result<Vec<_>, _> =
        ticket.await.into_iter().map(|row| row.map(|row| row.vector)).collect();
    match rows {
        Ok(rows) => Answer::Rows(rows),
        Err(error) => Answer::Error(code(&error)),
    }
}

impl Target for LibraryTarget {
    fn name(&self) -> String {
        "library".to_owned()
    }

    fn send(&self, call: Call) -> BoxFuture<'static, Sent> {
        let options = EmbedOptions {
            priority: call.priority,
            deadline: call.deadline,
            ..EmbedOptions::default()
        };
        let (sent_at, wait) = (Instant::now(), call.wait);
        let submitted = self.runtime.try_submit_batch(call.texts, &options);
        async move {
            let answer = match submitted {
                Err(error) => Answer::Refused(code(&error)),
                Ok(ticket) => within(wait, answered(ticket)).await.unwrap_or_else(|lost| lost),
            };
            Sent { sent_at, over_at: Instant::now(), answer }
        }
        .boxed()
    }

    fn knows_deadlines(&self) -> bool {
        true
    }

    fn tells(&self) -> bool {
        true
    }

    fn look(&self) -> BoxFuture<'_, Option<Look>> {
        let status = self.runtime.status();
        let workers = status.workers.into_iter().map(|worker| WorkerLook {
            device: worker.device,
            state: worker.state.to_string(),
            pid: worker.pid,
            incarnation: worker.incarnation,
        });
        let look = Look {
            level: status.level.to_string(),
            workers: workers.collect(),
            under_way: status.queues.iter().map(|queue| queue.under_way as u64).sum(),
        };
        std::future::ready(Some(look)).boxed()
    }

    fn look_interval(&self) -> Duration {
        LOOK_INTERVAL
    }

    fn readings(&self) -> BoxFuture<'_, Vec<Reading>> {
        let text = self.metrics.as_ref().map(PrometheusHandle::render);
        std::future::ready(text.as_deref().map(readings).unwrap_or_default()).boxed()
    }

    fn counted<'t>(&'t self, name: &'t str) -> BoxFuture<'t, Option<u64>> {
        let text = self.metrics.as_ref().map(PrometheusHandle::render);
        std::future::ready(text.map(|text| counted(&text, name))).boxed()
    }

    fn inject<'t>(
        &'t self,
        device: Option<&'t str>,
        fault: Fault,
    ) -> BoxFuture<'t, Result<(), String>> {
        async move {
            let device = device.map(str::parse::<Device>).transpose()?;
            self.runtime.inject(device, fault).await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn root_pid(&self) -> Option<u32> {
        Some(std::process::id())
    }

    fn stray(&self) -> Option<Stray> {
        None
    }

    fn rest(&self) {}
}
