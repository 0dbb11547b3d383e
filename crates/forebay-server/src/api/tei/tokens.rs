//! Texts to tokens and back, as the model's tokenizer has it. It goes beside the pipeline, on
//! threads where it may take its time, no more calls at once than there were tokenizer threads at the start.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use forebay::{EmbedError, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::body::Json;
use crate::api::error::{Kind, Problem, TeiError};
use crate::api::input::Inputs;
use crate::api::openai::json;
use crate::api::state::Api;

/// One text or several.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes a field, which is read as any inputs are")]
pub(crate) enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Texts to be made into tokens.
#[derive(Deserialize, ToSchema)]
pub(crate) struct TokenizeRequest {
    #[schema(value_type = Texts)]
    inputs: Inputs,
    /// Whether the tokens that the model wants around every text are wanted.
    #[serde(default = "super::yes")]
    add_special_tokens: bool,
    /// Refused: the model has no prompts.
    prompt_name: Option<String>,
}

/// A token of a text.
#[derive(Serialize, ToSchema)]
pub(crate) struct SimpleToken {
    id: u32,
    /// The part of the text that it stands for.
    text: String,
    /// Whether it was put around the text.
    special: bool,
    /// Where it begins, in characters; null if it has no place.
    start: Option<usize>,
    /// The character before which it ends; null if it has no place.
    stop: Option<usize>,
}

/// Token ids of one text or of several.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes a field, which is read as any inputs are")]
pub(crate) enum InputIds {
    /// Of one.
    One(Vec<u32>),
    /// Of several.
    Many(Vec<Vec<u32>>),
}

/// Token ids to be made into texts.
#[derive(Deserialize, ToSchema)]
pub(crate) struct DecodeRequest {
    #[schema(value_type = InputIds)]
    ids: Inputs,
    /// Whether the tokens that are put around texts are left out.
    #[serde(default = "super::yes")]
    skip_special_tokens: bool,
}

/// The tokens of each text, whole: nothing is cut.
#[utoipa::path(
    post, path = "/tokenize", tag = "Text Embeddings Inference", request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens of each", body = Vec<Vec<SimpleToken>>),
        (status = "default", description = "As /embed", body = TeiError)),
)]
pub(crate) async fn tokenize(
    State(api): State<Api>,
    Json(request, arrived): Json<TokenizeRequest>,
) -> Result<Response, Problem> {
    super::no_prompts(request.prompt_name.as_deref())?;
    let texts = request.inputs.take_texts(api.texts_max(), "inputs")?;
    check_bytes(&api, texts.iter().map(String::len).sum())?;
    let special = request.add_special_tokens;
    let tokens = apart(&api, api.time_left(arrived), move |runtime| {
        let of = |text: &String| {
            let tokens = runtime.tokenizer().tokenize(text, special)?;
            Ok(tokens.into_iter().map(simple).collect())
        };
        texts.iter().map(of).collect::<Result<Vec<Vec<SimpleToken>>, EmbedError>>()
    });
    Ok(json(&tokens.await?))
}

fn simple(token: forebay::Token) -> SimpleToken {
    let forebay::Token { id, text, special, start, stop } = token;
    SimpleToken { id, text, special, start, stop }
}

/// The texts that token ids stand for, as far as the tokenizer keeps them.
#[utoipa::path(
    post, path = "/decode", tag = "Text Embeddings Inference", request_body = DecodeRequest,
    responses((status = 200, description = "A text for each list of ids", body = Vec<String>),
        (status = "default", description = "As /embed", body = TeiError)),
)]
pub(crate) async fn decode(
    State(api): State<Api>,
    Json(request, arrived): Json<DecodeRequest>,
) -> Result<Response, Problem> {
    let lists = request.ids.take_ids(api.texts_max(), "ids")?;
    let skip = request.skip_special_tokens;
    let texts = apart(&api, api.time_left(arrived), move |runtime| {
        let decoded = lists.iter().map(|ids| runtime.tokenizer().decode(ids, skip));
        decoded.collect::<Result<Vec<String>, EmbedError>>()
    });
    Ok(json(&texts.await?))
}

/// Refuses more text than one request may have made into tokens.
pub(crate) fn check_bytes(api: &Api, bytes: usize) -> Result<(), Problem> {
    let bytes_max = api.service().config().limits.tokenize_bytes_max as usize;
    if bytes <= bytes_max {
        return Ok(());
    }
    let message =
        format!("{bytes} bytes of text, at most {bytes_max} are tokenized at once; send fewer");
    Err(Problem::new(Kind::Validation, message).about("inputs"))
}

/// Runs work on a thread of its own, when there is one left for it within `time`.
pub(crate) async fn apart<T: Send + 'static>(
    api: &Api,
    time: Duration,
    work: impl FnOnce(&Runtime) -> Result<T, EmbedError> + Send + 'static,
) -> Result<T, Problem> {
    let ended = |_| Problem::new(Kind::Internal, "the tokenizer has failed");
    let wait = tokio::time::timeout(time, api.tokenizer_calls().acquire_owned());
    let permit = wait
        .await
        .map_err(|_| EmbedError::DeadlineExceeded { waiting: "waiting for the tokenizer" })?;
    let permit = permit.map_err(|_| EmbedError::ShuttingDown)?;
    let runtime = api.runtime();
    let worked = tokio::task::spawn_blocking(move || {
        let result = work(&runtime);
        drop(permit);
        result
    });
    Ok(worked.await.map_err(ended)??)
}
