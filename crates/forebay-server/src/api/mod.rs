//! The routes of HTTP: which there are, and what every answer has whatever made it.
//!
//! Each handler is bound to its path by its own description, from which the OpenAPI document is
//! made. `observe` is the outermost layer: it knows the route and the dialect, writes problems,
//! counts, and puts the request's id and the service level on every answer.

mod answer;
mod body;
mod docs;
mod embed;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod input;
mod native;
mod observe;
mod openai;
mod state;
mod tei;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use embed::embed as embed_together;
pub(crate) use error::{Dialect, Kind, Problem, whole_seconds};
pub(crate) use input::empty;
pub(crate) use observe::{Arrived, mark_level};
pub(crate) use state::Api;
pub(crate) use tei::{no_prompts, of_now as tei_info, tokens, wrong_model};

use crate::service::Service;

/// Every path, as the router has it.
pub(crate) const ROUTES: [&str; 28] = [
    "/",
    "/api-doc/openapi.json",
    "/api/v1/cost-per-request",
    "/api/v1/embed",
    "/api/v1/events",
    "/api/v1/models",
    "/api/v1/status",
    "/decode",
    "/docs",
    "/embed",
    "/embed_all",
    "/embed_sparse",
    "/embeddings",
    "/health",
    "/info",
    "/invocations",
    "/livez",
    "/metrics",
    "/ping",
    "/predict",
    "/readyz",
    "/rerank",
    "/similarity",
    "/tokenize",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{id}",
    "/vertex",
];

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(docs::head())
        .routes(routes!(openai::embeddings))
        .routes(routes!(openai::embeddings_alias))
        .routes(routes!(openai::models))
        .routes(routes!(openai::model_of_id))
        .routes(routes!(tei::embed))
        .routes(routes!(tei::embed_all))
        .routes(routes!(tei::embed_sparse))
        .routes(routes!(tei::predict))
        .routes(routes!(tei::rerank))
        .routes(routes!(tei::similarity))
        .routes(routes!(tei::tokenize))
        .routes(routes!(tei::decode))
        .routes(routes!(tei::info))
        .routes(routes!(tei::invocations))
        .routes(routes!(tei::vertex))
        .routes(routes!(health::root, tei::main_task))
        .routes(routes!(health::health))
        .routes(routes!(health::ping))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(native::embed))
        .routes(routes!(native::models))
        .routes(routes!(native::status))
        .routes(routes!(native::events))
        .routes(routes!(native::cost_per_request))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
        .routes(routes!(docs::metrics))
}

/// Every route for clients. The guards are put around it where it is served.
pub fn router(service: Arc<Service>) -> Router {
    let (router, document) = described().split_for_parts();
    let api = Api::new(service, docs::finish(document));
    router
        .merge(crate::grpc::router())
        .fallback(observe::no_route)
        .method_not_allowed_fallback(observe::no_method)
        .with_state(api.clone())
        .layer(from_fn_with_state(api, observe::observed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_listed_once_and_described() {
        let (_, document) = described().split_for_parts();
        let mut described: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, ROUTES);
    }

    #[test]
    fn every_operation_says_what_it_is_for() {
        let (_, document) = described().split_for_parts();
        for (path, item) in &document.paths.paths {
            for operation in [&item.get, &item.post].into_iter().flatten() {
                assert!(operation.summary.is_some(), "{path} has no summary");
                assert!(!operation.responses.responses.is_empty(), "{path} has no responses");
                assert!(operation.operation_id.is_some(), "{path} has no id");
            }
        }
        let json = docs::finish(document);
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert!(value["openapi"].as_str().expect("a version").starts_with("3.1"));
        let missing = missing_references(&value, &value);
        assert!(missing.is_empty(), "the document refers to what it has not: {missing:?}");
    }

    fn missing_references(value: &serde_json::Value, root: &serde_json::Value) -> Vec<String> {
        use serde_json::Value;
        match value {
            Value::Object(map) => {
                let own = map
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(|path| path.trim_start_matches('#'));
                let own = own.filter(|path| root.pointer(path).is_none()).map(str::to_owned);
                own.into_iter()
                    .chain(map.values().flat_map(|v| missing_references(v, root)))
                    .collect()
            }
            Value::Array(list) => list.iter().flat_map(|v| missing_references(v, root)).collect(),
            _ => Vec::new(),
        }
    }
}
