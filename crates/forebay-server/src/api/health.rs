//! Health that does not lie. Liveness is the supervised loop going round; readiness a rung that
//! serves with room at its gate and a daemon that stays; health what clients of
//! text-embeddings-inference ask for: whether a request would be computed at all.
//!
//! Each answer is read from the runtime's own state at the moment of asking; none waits for a
//! device.

use axum::extract::State;
use axum::response::Response;
use forebay::{HealthReason, ReadyReason, Runtime};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Kind, NativeError, Problem, TeiError};
use super::openai::json;
use super::state::Api;

/// Whether the service is well, and how well it serves.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// `ok`, or why not.
    status: &'static str,
    /// `down`, `cpu` or `gpu(n)`.
    level: String,
    /// Why the level is not better.
    #[schema(value_type = String)]
    reason: HealthReason,
    /// Since the dispatcher last went round its loop.
    beat_age_ms: u64,
}

fn answer(runtime: &Runtime, status: &'static str) -> HealthAnswer {
    let health = runtime.health();
    HealthAnswer {
        status,
        level: health.level.to_string(),
        reason: health.reason,
        beat_age_ms: u64::try_from(health.beat_age.as_millis()).unwrap_or(u64::MAX),
    }
}

fn respond(is_well: bool, answer: &HealthAnswer) -> Response {
    let mut response = json(answer);
    if !is_well {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Whether the program makes progress; a program that does not should be restarted. Nothing else
/// is asked of it: a device that is lost is no reason to end the rest.
#[utoipa::path(get, path = "/livez", tag = "Health",
    responses(
        (status = 200, description = "It makes progress", body = HealthAnswer),
        (status = 503, description = "Its loop stands still", body = HealthAnswer),
    ))]
pub(crate) async fn livez(State(api): State<Api>) -> Response {
    let runtime = api.runtime();
    let health = runtime.health();
    let age_max = api.service().config().server.watchdog_age_max();
    let beats = health.beat_age <= age_max && health.reason != HealthReason::HostFailed;
    respond(beats, &answer(&runtime, if beats { "ok" } else { "stalled" }))
}

/// Whether requests should be sent here: some rung serves, its gate has room for an interactive
/// text, and the daemon is not about to end.
#[utoipa::path(get, path = "/readyz", tag = "Health",
    responses(
        (status = 200, description = "Send requests", body = HealthAnswer),
        (status = 503, description = "Send them elsewhere; `status` says why", body = HealthAnswer),
        (status = 500, description = "This program failed", body = NativeError),
    ))]
pub(crate) async fn readyz(State(api): State<Api>) -> Response {
    let runtime = api.runtime();
    let ready = api.readiness(&runtime);
    let status = match ready.reason {
        _ if ready.ready => "ok",
        _ if api.service().is_draining() => "draining",
        reason => reason.as_str(),
    };
    respond(ready.ready, &answer(&runtime, status))
}

fn health_of(api: &Api) -> Result<Response, Problem> {
    let runtime = api.runtime();
    let ready = api.readiness(&runtime);
    match ready.reason {
        // A gate that is full says 429 to whom it refuses; the service itself is well.
        ReadyReason::Serving | ReadyReason::Full => Ok(json(&answer(&runtime, "ok"))),
        reason => {
            let level = runtime.level();
            let message = format!("the service cannot compute now: {reason}, level {level}");
            Err(Problem::new(Kind::Unavailable, message))
        }
    }
}

/// Whether a request would be computed.
#[utoipa::path(get, path = "/health", tag = "Health",
    responses(
        (status = 200, description = "It would", body = HealthAnswer),
        (status = 503, description = "It would not", body = TeiError),
    ))]
pub(crate) async fn health(State(api): State<Api>) -> Result<Response, Problem> {
    health_of(&api)
}

/// As `/health`: where SageMaker looks.
#[utoipa::path(get, path = "/ping", tag = "Health",
    responses((status = 200, description = "As /health", body = HealthAnswer),
        (status = 503, description = "As /health", body = TeiError)))]
pub(crate) async fn ping(State(api): State<Api>) -> Result<Response, Problem> {
    health_of(&api)
}

/// As `/health`.
#[utoipa::path(get, path = "/", tag = "Health",
    responses((status = 200, description = "As /health", body = HealthAnswer),
        (status = 503, description = "As /health", body = TeiError)))]
pub(crate) async fn root(State(api): State<Api>) -> Result<Response, Problem> {
    health_of(&api)
}
