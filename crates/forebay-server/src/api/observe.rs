//! What every answer has: an id of its request, the service level, a place in the metrics, and, if
//! it is a problem, the words of its dialect. Neither logs nor metrics ever hold what was sent.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Body;

use super::error::{Dialect, Kind, Problem};
use super::state::Api;
use crate::guard::request_id::{RequestId, X_REQUEST_ID};
use crate::metrics::HttpMetrics;
use crate::service::Service;
use crate::trace::{Route, current};

const LEVEL: HeaderName = HeaderName::from_static("x-embed-level");

/// When the head of a request had come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived(pub(crate) Instant);

impl Arrived {
    /// As the outermost layer noted it.
    pub(crate) fn among(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or_else(|| Self(Instant::now()))
    }
}

/// The outermost layer of the router. It holds every request to `limits.request_ms`.
pub(super) async fn observed(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    request.extensions_mut().insert(Arrived(started));
    let dialect = Dialect::of_request(request.uri().path(), request.headers());
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = HttpMetrics::route(path, dialect);
    let id = request.extensions().get::<RequestId>().cloned();
    let id = id.unwrap_or_else(|| RequestId::of(request.headers()));
    let under_way = api.metrics().began(route, dialect);
    let trace = current();
    if let Some(trace) = &trace {
        trace.route(Route { pattern: route.pattern(), dialect: dialect.as_str() });
    }
    let time = Duration::from_millis(api.service().config().limits.request_ms.into());
    let mut response = match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(Kind::Deadline, "no answer within limits.request_ms").into_response()
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = written(&api, &problem, dialect, &response);
        if let Some(trace) = &trace {
            trace.problem(problem.code);
        }
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.header());
    mark_level(headers, api.service());
    if let Some(trace) = &trace {
        trace.level(api.runtime().level());
    }
    if dialect == Dialect::Grpc {
        return crate::grpc::observed(response, under_way, started, trace);
    }
    let (elapsed, bytes) = (started.elapsed(), response.body().size_hint().exact());
    under_way.answered(response.status(), elapsed, bytes);
    response
}

/// Says how well the service can compute now.
pub(crate) fn mark_level(headers: &mut HeaderMap, service: &Service) {
    if let Ok(level) = HeaderValue::try_from(service.runtime().level().to_string()) {
        headers.insert(LEVEL, level);
    }
}

/// A problem in the words of its dialect, with the headers that came with it.
fn written(api: &Api, problem: &Problem, dialect: Dialect, left: &Response) -> Response {
    api.metrics().problem(problem.kind, dialect);
    let mut response = problem.respond(dialect);
    if let Some(allow) = left.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    if problem.status(Dialect::Native) == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(code = problem.code, "a request has failed: {}", problem.message);
    }
    response
}

/// There is no such path.
pub(super) async fn no_route() -> Problem {
    Problem::new(Kind::NotFound, "there is no such route; /docs lists those that there are")
}

/// The path has no such method.
pub(super) async fn no_method() -> Problem {
    Problem::new(Kind::Method, "this route has other methods; the header allow lists them")
}
