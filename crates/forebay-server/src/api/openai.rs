//! OpenAI's dialect: `/v1/embeddings` and `/v1/models`.
//!
//! Fields that OpenAI does not know are refused, as its contract says: a client that asks for
//! something that would be ignored, such as another way of truncation, should hear of it.

use std::time::UNIX_EPOCH;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use forebay::EmbedOptions;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Encoding};
use super::body::Json;
use super::embed::{Embedded, embed};
use super::error::{Kind, OpenAiError, Problem};
use super::input::Inputs;
use super::state::Api;

/// What is to be embedded, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    input: Inputs,
    /// Name of the model that is served, also as `organisation/model`; any other is a 404. Without
    /// it, the one there is.
    model: Option<String>,
    /// How vectors are written; `float` if it is left out. Official clients ask for `base64`.
    encoding_format: Option<Encoding>,
    /// Keep so many leading values, scaled to length 1 again; from 1 to the model's width.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Taken and not used.
    #[allow(dead_code, reason = "a field that clients may send")]
    user: Option<String>,
}

/// A list of embeddings, in the order of the inputs.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsResponse {
    /// `list`
    object: &'static str,
    data: Vec<EmbeddingObject>,
    /// The model that is served.
    model: String,
    usage: Usage,
}

/// One embedding.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingObject {
    /// `embedding`
    object: &'static str,
    /// Place of its input in the request.
    index: usize,
    embedding: Vector,
}

/// A vector as a list of numbers, or as base64 of its little-endian F32 values.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes the answer, which is written without it")]
pub(crate) enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Base64.
    Base64(String),
}

/// Tokens that were embedded, special tokens included.
#[derive(Serialize, ToSchema)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Embeds texts or token ids; always of length 1, cut from the right if the service truncates.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "OpenAI", request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The embeddings", body = EmbeddingsResponse),
        (status = 400, description = "The request cannot be served", body = OpenAiError),
        (status = 401, description = "No known key", body = OpenAiError),
        (status = 404, description = "No such model", body = OpenAiError),
        (status = 408, description = "The request came too slowly", body = OpenAiError),
        (status = 413, description = "The body is too large", body = OpenAiError),
        (status = 415, description = "The body is not said to be JSON", body = OpenAiError),
        (status = 422, description = "The text ended its worker", body = OpenAiError),
        (status = 429, description = "Too much is under way", body = OpenAiError),
        (status = 500, description = "The engine or this program failed", body = OpenAiError),
        (status = 503, description = "Nothing serves now", body = OpenAiError),
        (status = 504, description = "Not done in time", body = OpenAiError),
    ),
)]
pub(crate) async fn embeddings(
    State(api): State<Api>,
    Json(request, arrived): Json<EmbeddingsRequest>,
) -> Result<Response, Problem> {
    let runtime = api.runtime();
    let EmbeddingsRequest { input, model, encoding_format, dimensions, .. } = request;
    api.check_model(&runtime, model.as_deref())?;
    let inputs = input.take(api.texts_max(), "input")?;
    let options = EmbedOptions { normalize: Some(true), dimensions, ..api.options(arrived) };
    let embedded = embed(&runtime, inputs, options, arrived).await.map_err(named)?;
    let name = &runtime.model().name;
    Ok(respond(&embedded, encoding_format.unwrap_or_default(), name))
}

/// The same at the path where text-embeddings-inference has it too.
#[utoipa::path(
    post, path = "/embeddings", tag = "OpenAI", request_body = EmbeddingsRequest,
    responses((status = 200, description = "As /v1/embeddings", body = EmbeddingsResponse),
        (status = "default", description = "As /v1/embeddings", body = OpenAiError)),
)]
pub(crate) async fn embeddings_alias(
    state: State<Api>,
    request: Json<EmbeddingsRequest>,
) -> Result<Response, Problem> {
    embeddings(state, request).await
}

/// The option of the library is the field of the request.
fn named(problem: Problem) -> Problem {
    match problem.code {
        "invalid_option" => problem.about("dimensions"),
        "text_too_long" | "too_many_tokens" | "tokenize" | "token_id" => problem.about("input"),
        _ => problem,
    }
}

fn respond(embedded: &Embedded, encoding: Encoding, model: &str) -> Response {
    let mut answer = Answer::for_rows(&embedded.rows, encoding, 64);
    answer.raw(r#"{"object":"list","data":"#);
    let mut index = 0;
    answer.list(&embedded.rows, |answer, row| {
        answer.raw(r#"{"object":"embedding","index":"#);
        answer.number(index);
        answer.raw(r#","embedding":"#);
        answer.row(&row.vector, encoding);
        answer.raw("}");
        index += 1;
    });
    answer.raw(r#","model":"#);
    answer.text(model);
    let tokens = embedded.tokens();
    answer.raw(r#","usage":"#);
    answer.json(&Usage { prompt_tokens: tokens, total_tokens: tokens });
    answer.raw("}");
    let mut headers = embedded.headers();
    json_type(&mut headers);
    (headers, answer.finish()).into_response()
}

pub(crate) fn json_type(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelObject {
    id: String,
    /// `model`
    object: &'static str,
    /// When the service began, in Unix time.
    created: u64,
    /// `forebay`
    owned_by: &'static str,
}

/// The models that are served.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`
    object: &'static str,
    data: Vec<ModelObject>,
}

fn model(api: &Api) -> ModelObject {
    let since = api.service().started_at().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = api.runtime().model().name.clone();
    ModelObject { id, object: "model", created: since.as_secs(), owned_by: "forebay" }
}

/// The models that are served: one.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI",
    responses((status = 200, description = "The models", body = ModelList)))]
pub(crate) async fn models(State(api): State<Api>) -> Response {
    json(&ModelList { object: "list", data: vec![model(&api)] })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "OpenAI",
    params(("id" = String, Path, description = "Name of the model")),
    responses(
        (status = 200, description = "The model", body = ModelObject),
        (status = 404, description = "No such model", body = OpenAiError),
    ))]
pub(crate) async fn model_of_id(
    State(api): State<Api>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Problem> {
    let Ok(Path(id)) = id else {
        return Err(Problem::new(Kind::NoModel, "the name of the model is no text"));
    };
    let runtime = api.runtime();
    // An empty name is no way to ask for the default here.
    let id = if id.is_empty() { "/" } else { &id };
    api.check_model(&runtime, Some(id))?;
    Ok(json(&model(&api)))
}

/// A JSON answer of a plain value.
pub(crate) fn json<T: Serialize>(value: &T) -> Response {
    let mut headers = HeaderMap::new();
    json_type(&mut headers);
    match serde_json::to_vec(value) {
        Ok(body) => (headers, body).into_response(),
        Err(error) => {
            tracing::error!("an answer cannot be written: {error}");
            Problem::new(Kind::Internal, "the answer cannot be written").into_response()
        }
    }
}
