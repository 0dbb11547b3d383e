//! The dialect of text-embeddings-inference: its routes for embedding models, its headers, and
//! honest refusals for those of other models.
//!
//! Fields that it does not know are ignored, as it does. What it would ignore or lose silently is
//! refused: a prompt that the model does not have. Token ids are taken as they are.

mod info;
pub(crate) mod tokens;
mod vertex;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use forebay::{EmbedOptions, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use info::{__path_info, info, of_now};
pub(crate) use tokens::{__path_decode, __path_tokenize, decode, tokenize};
pub(super) use tokens::{DecodeRequest, TokenizeRequest};
pub(super) use vertex::VertexRequest;
pub(crate) use vertex::{__path_vertex, vertex};

use super::answer::{Answer, Encoding};
use super::body::Json;
use super::embed::{Embedded, Entry, embed as embed_all_of, enter};
use super::error::{Kind, Problem, TeiError};
use super::input::{Inputs, empty};
use super::observe::Arrived;
use super::openai::json_type;
use super::state::Api;

/// From which end a text is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum TruncationDirection {
    /// Its start is lost.
    #[serde(alias = "left")]
    Left,
    /// Its end is lost.
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// What is to be embedded, and how.
#[derive(Deserialize, ToSchema)]
pub(crate) struct TeiEmbedRequest {
    inputs: Inputs,
    /// Cut texts that are too long instead of refusing them; as configured if left out.
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: TruncationDirection,
    /// Refused: the model has no prompts.
    prompt_name: Option<String>,
    /// Scale embeddings to length 1.
    #[serde(default = "yes")]
    normalize: bool,
    /// Keep so many leading values; from 1 to the model's width.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
}

fn yes() -> bool {
    true
}

/// Parameters of a comparison.
#[derive(Default, Deserialize, ToSchema)]
pub(crate) struct SimilarityParameters {
    /// Cut texts that are too long instead of refusing them; as configured if left out.
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: TruncationDirection,
    /// Refused: the model has no prompts.
    prompt_name: Option<String>,
}

/// One sentence and those that it is compared with.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SimilarityInput {
    #[schema(min_length = 1)]
    source_sentence: String,
    #[schema(value_type = Vec<String>, min_items = 1)]
    sentences: Inputs,
}

/// A comparison.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SimilarityRequest {
    inputs: SimilarityInput,
    parameters: Option<SimilarityParameters>,
}

/// Refuses a prompt by its name: the model has none.
pub(crate) fn no_prompts(name: Option<&str>) -> Result<(), Problem> {
    match name {
        None => Ok(()),
        Some(_) => {
            let message = "the model has no prompts; leave `prompt_name` out and put the words of \
                           the prompt before the text";
            Err(Problem::new(Kind::Validation, message).about("prompt_name"))
        }
    }
}

impl TeiEmbedRequest {
    async fn run(
        self,
        api: &Api,
        runtime: &Runtime,
        arrived: Arrived,
        entry: Entry,
    ) -> Result<Embedded, Problem> {
        no_prompts(self.prompt_name.as_deref())?;
        let inputs = self.inputs.take(api.texts_max(), "inputs")?;
        let options = EmbedOptions {
            truncate: self.truncate,
            truncate_left: self.truncation_direction == TruncationDirection::Left,
            normalize: Some(self.normalize),
            dimensions: self.dimensions,
            ..api.options(arrived)
        };
        enter(runtime, inputs, options, arrived, entry).await
    }
}

/// Embeddings, as a list per request whatever came.
#[utoipa::path(
    post, path = "/embed", tag = "Text Embeddings Inference", request_body = TeiEmbedRequest,
    responses(
        (status = 200, description = "The embeddings", body = Vec<Vec<f32>>),
        (status = 400, description = "No JSON, or nothing to embed", body = TeiError),
        (status = 401, description = "No known key", body = TeiError),
        (status = 408, description = "The request came too slowly", body = TeiError),
        (status = 413, description = "The body is too large", body = TeiError),
        (status = 415, description = "The body is not said to be JSON", body = TeiError),
        (status = 422, description = "The request cannot be served", body = TeiError),
        (status = 424, description = "The engine failed", body = TeiError),
        (status = 429, description = "Too much is under way", body = TeiError),
        (status = 500, description = "This program failed", body = TeiError),
        (status = 503, description = "Nothing serves now", body = TeiError),
        (status = 504, description = "Not done in time", body = TeiError),
    ),
)]
pub(crate) async fn embed(
    State(api): State<Api>,
    Json(request, arrived): Json<TeiEmbedRequest>,
) -> Result<Response, Problem> {
    let runtime = api.runtime();
    let embedded = request.run(&api, &runtime, arrived, Entry::AtOnce).await?;
    let mut answer = Answer::for_rows(&embedded.rows, Encoding::Float, 1);
    answer.rows(&embedded.rows, Encoding::Float);
    Ok(respond(&embedded, answer))
}

fn respond(embedded: &Embedded, answer: Answer) -> Response {
    let mut headers = embedded.headers();
    json_type(&mut headers);
    (headers, answer.finish()).into_response()
}

/// As `/embed`: the model's main task.
#[utoipa::path(
    post, path = "/", tag = "Text Embeddings Inference", request_body = TeiEmbedRequest,
    responses((status = 200, description = "As /embed", body = Vec<Vec<f32>>),
        (status = "default", description = "As /embed", body = TeiError)),
)]
pub(crate) async fn main_task(
    state: State<Api>,
    request: Json<TeiEmbedRequest>,
) -> Result<Response, Problem> {
    embed(state, request).await
}

/// As `/embed`: where SageMaker looks for the model's main task.
#[utoipa::path(
    post, path = "/invocations", tag = "Text Embeddings Inference", request_body = TeiEmbedRequest,
    responses((status = 200, description = "As /embed", body = Vec<Vec<f32>>),
        (status = "default", description = "As /embed", body = TeiError)),
)]
pub(crate) async fn invocations(
    state: State<Api>,
    request: Json<TeiEmbedRequest>,
) -> Result<Response, Problem> {
    embed(state, request).await
}

/// How similar sentences are to one: the cosines of their embeddings.
#[utoipa::path(
    post, path = "/similarity", tag = "Text Embeddings Inference",
    request_body = SimilarityRequest,
    responses((status = 200, description = "A cosine per sentence", body = Vec<f32>),
        (status = "default", description = "As /embed", body = TeiError)),
)]
pub(crate) async fn similarity(
    State(api): State<Api>,
    Json(request, arrived): Json<SimilarityRequest>,
) -> Result<Response, Problem> {
    let SimilarityInput { source_sentence, sentences } = request.inputs;
    let parameters = request.parameters.unwrap_or_default();
    no_prompts(parameters.prompt_name.as_deref())?;
    let sentences = sentences.only_list("inputs.sentences")?;
    let sentences = sentences.take_texts(api.texts_max() - 1, "inputs.sentences")?;
    if source_sentence.is_empty() {
        return Err(empty("inputs.source_sentence"));
    }
    let inputs = std::iter::once(source_sentence).chain(sentences).map(Into::into).collect();
    let options = EmbedOptions {
        truncate: parameters.truncate,
        truncate_left: parameters.truncation_direction == TruncationDirection::Left,
        normalize: Some(true),
        ..api.options(arrived)
    };
    let runtime = api.runtime();
    let embedded = embed_all_of(&runtime, inputs, options, arrived).await?;
    let mut answer = Answer::for_rows(&[], Encoding::Float, 0);
    if let Some((source, others)) = embedded.rows.split_first() {
        let dot = |other: &[f32]| -> f64 {
            source.vector.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        // Of vectors of length 1, up to rounding, which must not show as a cosine beyond 1.
        let cosines: Vec<f32> =
            others.iter().map(|row| dot(&row.vector).clamp(-1.0, 1.0) as f32).collect();
        answer.row(&cosines, Encoding::Float);
    }
    Ok(respond(&embedded, answer))
}

/// The refusal of a route that another type of model has.
pub(crate) fn wrong_model(api: &Api, needs: &str) -> Problem {
    let name = api.service().model_name();
    let message = format!("`{name}` gives one dense embedding per text; this route needs {needs}");
    Problem::new(Kind::ModelType, message)
}

macro_rules! refused {
    ($(#[doc = $doc:literal] $name:ident at $path:literal needs $needs:literal;)+) => {
        $(
            #[doc = $doc]
            #[utoipa::path(
                post, path = $path, tag = "Text Embeddings Inference",
                responses((status = 424, description = "The model is no such model",
                    body = TeiError)),
            )]
            pub(crate) async fn $name(State(api): State<Api>) -> Problem {
                wrong_model(&api, $needs)
            }
        )+
    };
}

refused! {
    /// Refused: pooling happens in the workers, and the vectors of single tokens do not leave them.
    embed_all at "/embed_all" needs "the vectors of single tokens, which do not leave the workers";
    /// Refused: the model gives no sparse vectors.
    embed_sparse at "/embed_sparse" needs "a model with SPLADE pooling";
    /// Refused: the model is no classifier.
    predict at "/predict" needs "a classifier";
    /// Refused: the model is no re-ranker.
    rerank at "/rerank" needs "a re-ranker";
}
