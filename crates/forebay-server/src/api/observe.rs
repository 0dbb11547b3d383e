//! What every answer has: an id of its request, the service level, a place in the metrics, and, if
//! it is a problem, the words of its dialect. Logs name the request by its id; neither they nor the
//! metrics ever hold what was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Body;
use tracing::Instrument;

use super::error::{Dialect, Kind, Problem};
use super::state::Api;
use crate::metrics::HttpMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LEVEL: HeaderName = HeaderName::from_static("x-embed-level");

/// Characters of an id that a client brings, at most.
const ID_CHARACTERS_MAX: usize = 128;

/// The outermost layer of the router.
pub(super) async fn observed(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let dialect = Dialect::of(request.uri().path());
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = HttpMetrics::route(path);
    let id = request_id(request.headers());
    let span = tracing::debug_span!(
        "http",
        id = id.to_str().unwrap_or_default(),
        route = path.unwrap_or("other"),
    );
    let under_way = api.metrics().began(route, dialect);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = written(&api, &problem, dialect, &response);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Ok(level) = HeaderValue::try_from(api.runtime().level().to_string()) {
        headers.insert(LEVEL, level);
    }
    let (elapsed, bytes) = (started.elapsed(), response.body().size_hint().exact());
    under_way.answered(response.status(), elapsed, bytes);
    tracing::debug!(parent: &span, status = response.status().as_u16(), ?elapsed, "answered");
    response
}

/// A problem in the words of its dialect, with the headers that came with it.
fn written(api: &Api, problem: &Problem, dialect: Dialect, left: &Response) -> Response {
    api.metrics().problem(problem.kind, dialect);
    let mut response = problem.respond(dialect);
    if let Some(allow) = left.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(code = problem.code, "a request has failed: {}", problem.message);
    }
    response
}

/// The id that the client gave, if it is one that can stand in a log; a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|value| is_sane(value.as_bytes()));
    given.cloned().unwrap_or_else(made_id)
}

fn is_sane(id: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=ID_CHARACTERS_MAX).contains(&id.len()) && id.iter().all(is_word)
}

/// Ids of this process: where it counts from is random, so that those of two runs do not meet.
fn made_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let start = START.get_or_init(rand::random);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:08x}-{number:08x}", *start as u32);
    // Hexadecimal digits and a dash are a header's value.
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
}

/// There is no such path.
pub(super) async fn no_route() -> Problem {
    Problem::new(Kind::NotFound, "there is no such route; /docs lists those that there are")
}

/// The path has no such method.
pub(super) async fn no_method() -> Problem {
    Problem::new(Kind::Method, "this route has other methods; the header allow lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_that_can_stand_in_a_log_are_taken() {
        let given = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).expect("a value"));
            request_id(&headers)
        };
        for id in ["a", "9f1c-2.B:7/_+=", &"x".repeat(ID_CHARACTERS_MAX)] {
            assert_eq!(given(id), id);
        }
        for id in ["", "a b", "a\tb", "ä", "\"", "{}", &"x".repeat(ID_CHARACTERS_MAX + 1)] {
            assert_ne!(given(id), id);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
