//! What an operator or a program wants to know: the model, the state of everything, what happened.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use forebay::events::Event;
use forebay::{HealthReason, QueueStatus, Rates, ReadyReason, StageStatus, WorkerStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{Kind, NativeError, Problem};
use crate::api::openai::json;
use crate::api::state::Api;

/// Events of one answer, if the caller does not say.
const EVENTS_DEFAULT: usize = 100;

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    name: String,
    /// Values of an embedding.
    width: usize,
    /// Tokens of a text, special tokens included, beyond which it is cut or refused.
    tokens_max: usize,
    /// Token ids are below this.
    vocab: usize,
    /// How the tokens' vectors become one.
    pooling: &'static str,
    /// Whether embeddings are scaled to length 1 unless a request says otherwise.
    normalize: bool,
    /// Identity of the model's files.
    fingerprint: String,
}

/// The models that are served.
#[derive(Serialize, ToSchema)]
pub(crate) struct Models {
    models: Vec<Model>,
}

fn model(api: &Api) -> Model {
    let runtime = api.runtime();
    let model = runtime.model();
    Model {
        name: model.name.clone(),
        width: model.width,
        tokens_max: model.tokens_max,
        vocab: model.vocab,
        pooling: model.pooling,
        normalize: model.normalize,
        fingerprint: model.fingerprint.clone(),
    }
}

/// The models that are served: one.
#[utoipa::path(get, path = "/api/v1/models", tag = "Forebay",
    responses((status = 200, description = "The models", body = Models)))]
pub(crate) async fn models(State(api): State<Api>) -> Response {
    json(&Models { models: vec![model(&api)] })
}

/// The state of everything.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    /// Version of this program.
    version: &'static str,
    /// Seconds since the service began.
    uptime_s: f64,
    model: Model,
    /// `down`, `cpu` or `gpu(n)`.
    level: String,
    /// Why not better.
    #[schema(value_type = String)]
    reason: HealthReason,
    ready: bool,
    /// Why it is ready or not.
    #[schema(value_type = String)]
    ready_reason: ReadyReason,
    /// The daemon is about to end.
    draining: bool,
    /// Since the dispatcher last went round its loop.
    beat_age_ms: u64,
    /// Age of the oldest text without an answer.
    worst_age_ms: u64,
    /// What the workers are measured to compute, and how many texts are under way and may be, for
    /// classes control, interactive and bulk.
    #[schema(value_type = Object)]
    rates: Rates,
    /// Each rung, best first.
    #[schema(value_type = Vec<Object>)]
    workers: Vec<WorkerStatus>,
    /// Each class.
    #[schema(value_type = Vec<Object>)]
    queues: Vec<QueueStatus>,
    /// Each thread of the host's pipeline.
    #[schema(value_type = Vec<Object>)]
    stages: Vec<StageStatus>,
}

/// The state of everything, at one moment.
#[utoipa::path(get, path = "/api/v1/status", tag = "Forebay",
    responses((status = 200, description = "The state", body = StatusAnswer)))]
pub(crate) async fn status(State(api): State<Api>) -> Response {
    let runtime = api.runtime();
    let (status, health) = (runtime.status(), runtime.health());
    let readiness = api.readiness(&runtime);
    json(&StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: api.service().uptime().as_secs_f64(),
        model: model(&api),
        level: status.level.to_string(),
        reason: health.reason,
        ready: readiness.ready,
        ready_reason: readiness.reason,
        draining: api.service().is_draining(),
        beat_age_ms: u64::try_from(health.beat_age.as_millis()).unwrap_or(u64::MAX),
        worst_age_ms: u64::try_from(health.worst_age.as_millis()).unwrap_or(u64::MAX),
        rates: runtime.rates(),
        workers: status.workers,
        queues: status.queues,
        stages: status.stages,
    })
}

/// Which events are wanted.
#[derive(Debug, PartialEq, Eq)]
struct EventsQuery {
    /// Newest events at most.
    limit: usize,
    /// Only events with a greater number.
    after: u64,
}

/// What happened, by rising number.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventsAnswer {
    /// The boot of the system that `mono_ns` counts from.
    boot: String,
    /// Number, cause, times and what happened; `docs/event-log.md` has every kind.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Event>,
}

/// The newest events of this run, as far as they are kept in memory.
#[utoipa::path(get, path = "/api/v1/events", tag = "Forebay",
    params(
        ("limit" = Option<usize>, Query, minimum = 1,
            description = "Newest events at most; 100 if it is left out"),
        ("after" = Option<u64>, Query, format = "uint64",
            description = "Only events with a greater number: the last one seen"),
    ),
    responses(
        (status = 200, description = "The events", body = EventsAnswer),
        (status = 422, description = "No such parameter or value", body = NativeError),
    ))]
pub(crate) async fn events(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let EventsQuery { limit, after } = EventsQuery::parse(query.as_deref().unwrap_or_default())?;
    let runtime = api.runtime();
    let log = runtime.events();
    let mut events = log.recent(limit);
    events.retain(|event| event.id.0 > after);
    Ok(json(&EventsAnswer { boot: log.boot().to_owned(), events }))
}

impl EventsQuery {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut parsed = Self { limit: EVENTS_DEFAULT, after: 0 };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = match name {
                "limit" => value.parse().map(|limit: usize| parsed.limit = limit).is_ok(),
                "after" => value.parse().map(|after| parsed.after = after).is_ok(),
                _ => false,
            };
            if !read || parsed.limit == 0 {
                let message = "the query may have `limit` (a number from 1) and `after` (the \
                               number of an event)";
                return Err(Problem::new(Kind::Validation, message));
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_numbers_under_known_names() {
        assert_eq!(EventsQuery::parse(""), Ok(EventsQuery { limit: EVENTS_DEFAULT, after: 0 }));
        let both = EventsQuery::parse("limit=5&after=18446744073709551615");
        assert_eq!(both, Ok(EventsQuery { limit: 5, after: u64::MAX }));
        for query in ["limit=0", "limit=-1", "limit", "limit=x", "after=", "afters=1", "=1"] {
            assert!(EventsQuery::parse(query).is_err(), "{query}");
        }
    }
}
