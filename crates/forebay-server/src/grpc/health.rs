//! `grpc.health.v1`: what `/readyz` says, read at the moment of asking. Nothing is kept that could
//! be out of date.
//!
//! Who watches hears of a change of the level at once, and of a gate that fills within
//! `server.health_watch_ms`. At the end of the daemon it hears no, and the stream ends with the
//! listeners.

use std::future::pending;
use std::pin::Pin;

use forebay::{HealthWatch, Runtime};
use futures::stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::refused::Answers;
use crate::api::{Api, Dialect, Kind};

/// Names that are served while the daemon is ready; the empty one is the daemon.
const READY: [&str; 4] = ["", "tei.v1.Embed", "tei.v1.Info", "tei.v1.Tokenize"];

/// Names of services that the model is of the wrong type for.
const NEVER: [&str; 2] = ["tei.v1.Predict", "tei.v1.Rerank"];

/// The service `grpc.health.v1.Health`.
pub(super) struct Health(pub(super) Api);

/// How it is with a name now; `None` for one that there is not.
fn serving(api: &Api, runtime: &Runtime, name: &str) -> Option<ServingStatus> {
    if NEVER.contains(&name) {
        return Some(ServingStatus::NotServing);
    }
    READY.contains(&name).then(|| match api.readiness(runtime).ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Somebody who watches a name.
struct Watcher {
    api: Api,
    name: String,
    told: Option<ServingStatus>,
    health: HealthWatch,
    replaced: watch::Receiver<u64>,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
}

impl Watcher {
    fn new(api: Api, name: String) -> Self {
        let (health, replaced) = (api.runtime().watch_health(), api.service().watch_runtime());
        let ending = Box::pin(api.service().no_more_taken());
        Self { api, name, told: None, health, replaced, ending, has_ended: false }
    }

    /// Waits until the status is another than the one told last; `None` at the end.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            let runtime = self.api.runtime();
            let now = serving(&self.api, &runtime, &self.name);
            // A runtime that has been replaced ends once nobody holds it.
            drop(runtime);
            let now = now.unwrap_or(ServingStatus::ServiceUnknown);
            if self.told.replace(now) != Some(now) {
                return Some(now);
            }
            if self.has_ended {
                return None;
            }
            let service = self.api.service();
            let interval = service.config().server.health_watch();
            tokio::select! {
                // Once more round: the drain may have begun since readiness was read.
                () = &mut self.ending => self.has_ended = true,
                () = service.draining(), if !service.is_draining() => {}
                () = changed(&mut self.health) => {}
                _ = self.replaced.changed() => self.health = service.runtime().watch_health(),
                () = tokio::time::sleep(interval) => {}
            }
        }
    }
}

/// Waits for a change; one that is told of no more never comes.
async fn changed(health: &mut HealthWatch) {
    if health.changed().await.is_none() {
        pending::<()>().await;
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let runtime = self.0.runtime();
        match serving(&self.0, &runtime, &request.get_ref().service) {
            Some(status) => Ok(Response::new(response(status))),
            None => {
                let message = "there is no such service; reflection lists those that there are";
                self.0.metrics().problem(Kind::NotFound, Dialect::Grpc);
                Err(Status::not_found(message))
            }
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher::new(self.0.clone(), request.into_inner().service);
        let statuses = stream::unfold(watcher, |mut watcher| async {
            let status = watcher.next().await?;
            Some((Ok(response(status)), watcher))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}
