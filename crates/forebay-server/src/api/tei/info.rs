//! What is served, in the words of text-embeddings-inference.

use axum::extract::State;
use axum::response::Response;
use forebay::config::Config;
use forebay::{Runtime, WorkerState};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::openai::json;
use crate::api::state::Api;

/// What is served.
#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    pub(crate) model_id: String,
    /// Identity of the model's files.
    pub(crate) model_sha: Option<String>,
    /// Arithmetic of the best rung that serves.
    pub(crate) model_dtype: String,
    pub(crate) served_model_name: String,
    pub(crate) model_type: ModelType,
    /// Interactive texts that may be under way.
    pub(crate) max_concurrent_requests: usize,
    /// Tokens of a text, special tokens included, beyond which it is cut or refused.
    pub(crate) max_input_length: usize,
    pub(crate) max_batch_tokens: usize,
    pub(crate) max_batch_requests: Option<usize>,
    /// Texts of a request at most.
    pub(crate) max_client_batch_size: usize,
    pub(crate) auto_truncate: bool,
    pub(crate) tokenization_workers: usize,
    /// Version of this program.
    pub(crate) version: &'static str,
    pub(crate) sha: Option<&'static str>,
    pub(crate) docker_label: Option<&'static str>,
}

/// The type of the model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelType {
    embedding: EmbeddingModel,
}

/// How an embedding comes of the tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingModel {
    pooling: &'static str,
}

/// The model and the limits in effect.
#[utoipa::path(get, path = "/info", tag = "Text Embeddings Inference",
    responses((status = 200, description = "What is served", body = Info)))]
pub(crate) async fn info(State(api): State<Api>) -> Response {
    json(&of_now(&api))
}

/// What is served now.
pub(crate) fn of_now(api: &Api) -> Info {
    let runtime = api.runtime();
    of(&runtime, runtime.config(), api.texts_max())
}

fn of(runtime: &Runtime, config: &Config, texts_max: usize) -> Info {
    let model = runtime.model();
    Info {
        model_id: model.name.clone(),
        model_sha: Some(model.fingerprint.clone()),
        model_dtype: dtype(runtime),
        served_model_name: model.name.clone(),
        model_type: ModelType { embedding: EmbeddingModel { pooling: model.pooling } },
        max_concurrent_requests: config.admission.interactive_requests_max as usize,
        max_input_length: model.tokens_max,
        max_batch_tokens: config.batch.tokens_max as usize,
        max_batch_requests: Some(config.batch.rows_max as usize),
        max_client_batch_size: texts_max,
        auto_truncate: config.tokenize.truncate,
        tokenization_workers: Api::tokenizer_threads(config),
        version: env!("CARGO_PKG_VERSION"),
        sha: None,
        docker_label: None,
    }
}

fn dtype(runtime: &Runtime) -> String {
    let workers = runtime.status().workers;
    let serves = |state| matches!(state, WorkerState::Serving | WorkerState::Probation);
    let serving = workers.iter().find(|worker| serves(worker.state));
    let precision = serving.map_or("", |worker| worker.precision.as_str());
    match precision {
        "f32" => "float32".to_owned(),
        "f16" => "float16".to_owned(),
        "bf16" => "bfloat16".to_owned(),
        "" => "unknown".to_owned(),
        other => other.to_owned(),
    }
}
