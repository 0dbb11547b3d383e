//! What a request hears that is refused before a handler sees it, in the dialect of its route.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::listen::metrics::Refused;

impl Refused {
    fn status(self) -> StatusCode {
        match self {
            Self::Key => StatusCode::UNAUTHORIZED,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::BodySize => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Time => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Key => "no valid key; send `Authorization: Bearer KEY`",
            Self::Host => {
                "not a name of this server; use its address or list the name in \
                           server.hosts_allowed"
            }
            Self::Origin => "pages of other origins may not use this server",
            Self::BodySize => "request body is too long; send less at once",
            Self::Time => "no answer within limits.request_ms",
        }
    }

    /// The answer for a request to `path`.
    pub(crate) fn response(self, path: &str) -> Response {
        let status = self.status();
        let (code, message) = (self.code(), self.message());
        let mut response = answer(path, status, code, message);
        if self == Self::Key {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    fn code(self) -> &'static str {
        match self {
            Self::Key => "invalid_api_key",
            Self::Host => "host_not_allowed",
            Self::Origin => "origin_not_allowed",
            Self::BodySize => "body_too_large",
            Self::Time => "deadline_exceeded",
        }
    }
}

/// A body that did not arrive in time.
pub(crate) fn too_slow(path: &str) -> Response {
    let message = "request body did not arrive in time; send it faster";
    answer(path, StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
}

fn answer(path: &str, status: StatusCode, code: &str, message: &str) -> Response {
    let body = body(path, status, code, message).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn body(path: &str, status: StatusCode, code: &str, message: &str) -> Value {
    if path.starts_with("/v1/") {
        let kind = match status {
            StatusCode::GATEWAY_TIMEOUT => "server_error",
            _ => "invalid_request_error",
        };
        return json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    }
    if path.starts_with("/api/") {
        return json!({"error": {"code": code, "message": message}});
    }
    let kind = if status == StatusCode::GATEWAY_TIMEOUT { "Backend" } else { "Validation" };
    json!({"error": message, "error_type": kind})
}
