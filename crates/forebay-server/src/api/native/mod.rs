//! Our own dialect: embedding with priority, deadline and what happened to each text; and what an
//! operator or a program wants to know of the service.

mod cost;
mod status;

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use forebay::{EmbedOptions, Priority};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use cost::{__path_cost_per_request, cost_per_request};
pub(crate) use status::{__path_events, __path_models, __path_status, events, models, status};

use super::answer::{Answer, Encoding};
use super::body::Json;
use super::embed::{Embedded, embed as embed_inputs};
use super::error::{Kind, NativeError, Problem};
use super::input::{Inputs, empty};
use super::openai::{Vector, json_type};
use super::state::Api;

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Urgency {
    /// A control loop waits: served first.
    Control,
    /// A person or a service waits.
    #[default]
    Interactive,
    /// Nobody waits: served for throughput, shed first.
    Bulk,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::Control => Self::Control,
            Urgency::Interactive => Self::Interactive,
            Urgency::Bulk => Self::Bulk,
        }
    }
}

/// What is to be embedded, and how. Either `text` or `texts`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedRequest {
    /// One text.
    #[schema(min_length = 1)]
    text: Option<String>,
    /// Texts, or token ids.
    texts: Option<Inputs>,
    /// Name of the model that is served; any other is a 404.
    model: Option<String>,
    /// Class in which the texts wait; `interactive` if it is left out.
    priority: Option<Urgency>,
    /// When the answer, embedding or error, must be there, from now on; at most the longest time
    /// that the service gives a request, which it is if this is left out.
    #[schema(minimum = 1)]
    deadline_ms: Option<u64>,
    /// Whether embeddings are scaled to length 1; as the model says if it is left out.
    normalize: Option<bool>,
    /// Whether a text that is too long is cut or refused; as configured if it is left out.
    truncate: Option<bool>,
    /// Keep so many leading values; from 1 to the model's width.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// How vectors are written; `float` if it is left out.
    encoding: Option<Encoding>,
}

/// The embeddings, in the order of the texts, and what happened on the way.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes the answer, which is written without it")]
pub(crate) struct EmbedResponse {
    /// The model that is served.
    model: String,
    /// Identity of its files: vectors with the same one can be compared.
    fingerprint: String,
    /// How well the service could serve: `down`, `cpu` or `gpu(n)`.
    level: String,
    /// Values of each vector.
    dimensions: usize,
    embeddings: Vec<Vector>,
    /// Tokens of each text that were embedded, special tokens included.
    tokens: Vec<usize>,
    /// Whether each text was cut.
    truncated: Vec<bool>,
    times_us: Times,
}

/// Where the time went, in microseconds; means over the texts, each measured.
#[derive(Serialize, ToSchema)]
pub(crate) struct Times {
    /// In the tokenizer.
    tokenize: u64,
    /// Waiting for a tokenizer, for a batch and for a worker.
    queue: u64,
    /// In the worker, with the texts of its batch.
    infer: u64,
    /// From being accepted to being answered.
    total: u64,
}

/// Embeds one text or several; each ends in exactly one embedding, or the request in one error.
#[utoipa::path(
    post, path = "/api/v1/embed", tag = "Forebay", request_body = EmbedRequest,
    responses(
        (status = 200, description = "The embeddings", body = EmbedResponse),
        (status = 400, description = "No JSON, or nothing to embed", body = NativeError),
        (status = 401, description = "No known key", body = NativeError),
        (status = 404, description = "No such model", body = NativeError),
        (status = 408, description = "The request came too slowly", body = NativeError),
        (status = 413, description = "The body is too large", body = NativeError),
        (status = 415, description = "The body is not said to be JSON", body = NativeError),
        (status = 422, description = "The request cannot be served", body = NativeError),
        (status = 429, description = "Too much is under way", body = NativeError),
        (status = 500, description = "The engine or this program failed", body = NativeError),
        (status = 503, description = "Nothing serves now", body = NativeError),
        (status = 504, description = "Not done in time", body = NativeError),
    ),
)]
pub(crate) async fn embed(
    State(api): State<Api>,
    Json(request, arrived): Json<EmbedRequest>,
) -> Result<Response, Problem> {
    let runtime = api.runtime();
    api.check_model(&runtime, request.model.as_deref())?;
    let deadline = deadline(request.deadline_ms, &api)?;
    let inputs = match (request.text, request.texts) {
        (Some(text), None) if text.is_empty() => return Err(empty("text")),
        (Some(text), None) => vec![text.into()],
        (None, Some(texts)) => texts.take(api.texts_max(), "texts")?,
        _ => {
            let message = "send either `text` or `texts`";
            return Err(Problem::new(Kind::Validation, message).about("texts"));
        }
    };
    let options = EmbedOptions {
        priority: request.priority.unwrap_or_default().into(),
        normalize: request.normalize,
        truncate: request.truncate,
        dimensions: request.dimensions,
        ..EmbedOptions::default()
    }
    .within(deadline.saturating_sub(arrived.0.elapsed()));
    let embedded = embed_inputs(&runtime, inputs, options, arrived).await?;
    let model = runtime.model();
    let level = runtime.level().to_string();
    let encoding = request.encoding.unwrap_or_default();
    Ok(respond(&embedded, encoding, [&model.name, &model.fingerprint, &level]))
}

fn deadline(asked_ms: Option<u64>, api: &Api) -> Result<Duration, Problem> {
    let max = api.time_max();
    match asked_ms.map(Duration::from_millis) {
        None => Ok(max),
        Some(asked) if asked.is_zero() || asked > max => {
            let message = format!("deadline_ms must be from 1 to {}", max.as_millis());
            Err(Problem::new(Kind::Validation, message).about("deadline_ms"))
        }
        Some(asked) => Ok(asked),
    }
}

fn respond(embedded: &Embedded, encoding: Encoding, names: [&str; 3]) -> Response {
    let [model, fingerprint, level] = names;
    let rows = &embedded.rows;
    let mut answer = Answer::for_rows(rows, encoding, 16);
    for (key, value) in
        [(r#"{"model":"#, model), (r#","fingerprint":"#, fingerprint), (r#","level":"#, level)]
    {
        answer.raw(key);
        answer.text(value);
    }
    answer.raw(r#","dimensions":"#);
    answer.number(rows.first().map_or(0, |row| row.vector.len()));
    answer.raw(r#","embeddings":"#);
    answer.rows(rows, encoding);
    answer.raw(r#","tokens":"#);
    answer.list(rows, |answer, row| answer.number(row.tokens));
    answer.raw(r#","truncated":"#);
    answer.list(rows, |answer, row| answer.raw(if row.truncated() { "true" } else { "false" }));
    answer.raw(r#","times_us":"#);
    let micros = |time| u64::try_from(embedded.mean(time).as_micros()).unwrap_or(u64::MAX);
    answer.json(&Times {
        tokenize: micros(|row| row.times.tokenize),
        queue: micros(|row| row.times.queue),
        infer: micros(|row| row.times.infer),
        total: micros(|row| row.times.total),
    });
    answer.raw("}");
    let mut headers = embedded.headers();
    json_type(&mut headers);
    (headers, answer.finish()).into_response()
}
