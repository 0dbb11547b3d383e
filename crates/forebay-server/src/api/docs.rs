//! The description of the routes, made from the handlers themselves, a page that shows it without
//! anything from elsewhere, and the metrics.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forebay::metrics::prometheus;
use http::{HeaderValue, header};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, OpenApi as Document};

use super::error::{Kind, NativeError, Problem};
use super::openai::json_type;
use super::state::Api;

/// Shows the document of this service; takes nothing from another place.
const PAGE: &str = include_str!("docs.html");

/// What the page may do: run the script that is in it, and ask this service.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(info(
    title = "Forebay",
    description = "Texts to embeddings: OpenAI's routes, those of text-embeddings-inference, and \
                   our own. Every answer has `x-embed-level` (`down`, `cpu` or `gpu(n)`) and \
                   `x-request-id`; one with status 429 or 503 has `Retry-After`.",
    license(name = "Apache-2.0")
))]
struct Head;

/// The document before any route is in it.
pub(crate) fn head() -> Document {
    Head::openapi()
}

/// The finished document: with the key that most routes ask for where keys are configured.
pub(crate) fn finish(mut document: Document) -> Bytes {
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.take().unwrap_or_default();
    let components = ComponentsBuilder::from(components).security_scheme(BEARER, scheme).build();
    document.components = Some(components);
    // Either a key or none: whether one is needed is a matter of the configuration.
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new(BEARER, [""; 0])]);
    match serde_json::to_vec(&document) {
        Ok(json) => json.into(),
        Err(error) => {
            tracing::error!("the description of the routes cannot be written: {error}");
            Bytes::from_static(b"{}")
        }
    }
}

/// This document.
#[utoipa::path(get, path = "/api-doc/openapi.json", tag = "Description",
    responses((status = 200, description = "The document", content_type = "application/json")))]
pub(crate) async fn openapi(State(api): State<Api>) -> Response {
    let mut headers = http::HeaderMap::new();
    json_type(&mut headers);
    (headers, api.document()).into_response()
}

/// A page that shows the document and sends requests.
#[utoipa::path(get, path = "/docs", tag = "Description",
    responses((status = 200, description = "The page", content_type = "text/html")))]
pub(crate) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    (headers, PAGE).into_response()
}

/// The metrics of this process, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "Description",
    responses(
        (status = 200, description = "The metrics, in text format 0.0.4",
            content_type = "text/plain"),
        (status = 404, description = "This program collects none", body = NativeError),
    ))]
pub(crate) async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let runtime = api.runtime();
    api.metrics().state(api.readiness(&runtime).ready, &runtime.health());
    let Some(installed) = prometheus::installed() else {
        return Err(Problem::new(Kind::NotFound, "this program collects no metrics"));
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], installed.render()).into_response())
}
