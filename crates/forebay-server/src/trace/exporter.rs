//! Takes traced requests from the queue and sends them to the collector, some at a time, each batch
//! within its deadline and once: what does not get there is dropped and counted.

use std::sync::Arc;
use std::time::Instant;

use forebay::config::TracingConfig;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::client::Collector;
use super::metrics::{Dropped, TraceMetrics};
use super::otlp::Origin;
use super::request::Notes;
use super::tracer::Tracer;

/// The exporter as the server has it.
pub(crate) struct Exporting {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Starts exporting if there is an endpoint.
    pub(crate) fn start(config: &TracingConfig) -> Option<(Arc<Tracer>, Self)> {
        let collector = Collector::new(config)?;
        let (tracer, queue) = Tracer::new(config);
        let (stop, stopped) = watch::channel(false);
        let exporter = Exporter {
            origin: Origin::new(&config.service_name),
            config: config.clone(),
            collector,
            queue,
            batch: Vec::new(),
            metrics: TraceMetrics::get(),
            is_failing: false,
        };
        let task = tokio::spawn(exporter.run(stopped));
        Some((Arc::new(tracer), Self { stop, task }))
    }

    /// Sends what waits, for `tracing.export_deadline_ms` at most.
    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the exporter of traces has panicked");
        }
    }
}

struct Exporter {
    config: TracingConfig,
    origin: Origin,
    collector: Collector,
    queue: mpsc::Receiver<Notes>,
    /// Taken from the queue and not yet with the collector.
    batch: Vec<Notes>,
    metrics: &'static TraceMetrics,
    is_failing: bool,
}

impl Exporter {
    async fn run(mut self, stopped: watch::Receiver<bool>) {
        let deadline = self.config.export_deadline();
        let mut stop = stopped.clone();
        let over = async {
            wait_for(&mut stop).await;
            tokio::time::sleep(deadline).await;
        };
        tokio::select! {
            () = self.work(stopped) => {}
            () = over => {}
        }
        self.queue.close();
        while let Ok(notes) = self.queue.try_recv() {
            self.batch.push(notes);
        }
        self.metrics.dropped(Dropped::End, spans(&self.batch));
        self.metrics.waiting.set(0.0);
    }

    /// Exports until the queue is closed and empty.
    async fn work(&mut self, mut stop: watch::Receiver<bool>) {
        let max = self.config.batch_requests_max as usize;
        let mut is_stopping = false;
        loop {
            let mut wait = None;
            while self.batch.len() < max {
                let room = max - self.batch.len();
                tokio::select! {
                    biased;
                    () = wait_for(&mut stop), if !is_stopping => {
                        is_stopping = true;
                        self.queue.close();
                    }
                    taken = self.queue.recv_many(&mut self.batch, room) => {
                        if taken == 0 {
                            break;
                        }
                        self.metrics.waiting.decrement(taken as f64);
                        wait.get_or_insert_with(|| {
                            Box::pin(tokio::time::sleep(self.config.batch_wait()))
                        });
                    }
                    () = async { if let Some(wait) = &mut wait { wait.await } },
                        if wait.is_some() => break,
                }
            }
            if self.batch.is_empty() {
                return;
            }
            self.export().await;
            self.batch.clear();
        }
    }

    /// Sends the batch and counts what becomes of it.
    async fn export(&mut self) {
        let all = spans(&self.batch);
        let resource_spans = vec![self.origin.spans_of(&self.batch)];
        let request = ExportTraceServiceRequest { resource_spans };
        let (deadline, start) = (self.config.export_deadline(), Instant::now());
        let sent = tokio::time::timeout(deadline, self.collector.send(&request)).await;
        self.metrics.export_seconds.record(start.elapsed());
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {deadline:?}")));
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(all);
                self.metrics.exported.increment((all - rejected) as u64);
                self.metrics.dropped(Dropped::Rejected, rejected);
                if std::mem::replace(&mut self.is_failing, false) {
                    tracing::info!("the collector takes traces again");
                }
            }
            Err(reason) => {
                self.metrics.dropped(Dropped::Export, all);
                // Once, not for every batch.
                if !std::mem::replace(&mut self.is_failing, true) {
                    let endpoint = &self.config.otlp_endpoint;
                    tracing::warn!(%endpoint, %reason, "traces do not reach the collector");
                }
            }
        }
    }
}

/// Waits until it is true, or nobody can make it so any more.
async fn wait_for(stop: &mut watch::Receiver<bool>) {
    // An error says that the owner has gone, which is the end as well.
    stop.wait_for(|stop| *stop).await.ok();
}

fn spans(batch: &[Notes]) -> usize {
    batch.iter().map(Notes::spans).sum()
}
