//! What a request hears that is refused before a handler sees it: the problems that handlers have,
//! so that one kind of error has one form in the dialect of its route.

use std::time::Duration;

use axum::response::Response;
use http::request::Parts;

use crate::api::{Dialect, Kind, Problem, mark_level};
use crate::listen::metrics::{Listener, Refused};
use crate::service::Service;

/// How long a client is asked to wait while bodies fill the memory that there is for them.
const NO_ROOM_RETRY: Duration = Duration::from_secs(1);

impl Refused {
    /// What is wrong, and what to do.
    pub(crate) fn problem(self) -> Problem {
        let (kind, message) = match self {
            Self::Key => (Kind::Unauthorized, "no valid key; send `Authorization: Bearer KEY`"),
            Self::Host => (
                Kind::Misdirected,
                "not a name of this server; use its address or list the name in \
                 server.hosts_allowed",
            ),
            Self::Origin => (Kind::Forbidden, "pages of other origins may not use this server"),
            Self::User => {
                let message = "this user may not use this socket any more; see auth.users_allowed";
                let code = "user_not_allowed";
                return Problem { code, ..Problem::new(Kind::Forbidden, message) };
            }
            Self::NoRoom => {
                let message = "the bodies of all requests take limits.body_bytes_under_way_max; send it \
                               a little later";
                return Problem {
                    retry_after: Some(NO_ROOM_RETRY),
                    ..Problem::new(Kind::Overloaded, message)
                };
            }
            Self::BodySize => (Kind::TooLarge, "request body is too long; send less at once"),
        };
        Problem::new(kind, message)
    }
}

/// A body that did not arrive in time.
pub(crate) fn too_slow() -> Problem {
    Problem::new(Kind::TooSlow, "request body did not arrive in time; send it faster")
}

/// The dialect of a request's refusal. The operator's socket has our own whatever its paths are
/// called.
pub(crate) fn dialect(listener: Listener, parts: &Parts) -> Dialect {
    match listener {
        Listener::Admin => Dialect::Native,
        _ => Dialect::of_request(parts.uri.path(), &parts.headers),
    }
}

/// A problem as the answer to a request, with what every answer has but the id.
pub(crate) fn answer(problem: &Problem, dialect: Dialect, service: &Service) -> Response {
    let mut response = problem.respond(dialect);
    mark_level(response.headers_mut(), service);
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    async fn body(problem: &Problem, path: &str) -> serde_json::Value {
        let response = problem.respond(Dialect::of(path));
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[tokio::test]
    async fn each_has_one_status_and_the_body_of_its_dialect() {
        for refused in Refused::ALL {
            let problem = refused.problem();
            let status = match refused {
                Refused::Key => StatusCode::UNAUTHORIZED,
                Refused::Host => StatusCode::MISDIRECTED_REQUEST,
                Refused::Origin | Refused::User => StatusCode::FORBIDDEN,
                Refused::NoRoom => StatusCode::TOO_MANY_REQUESTS,
                Refused::BodySize => StatusCode::PAYLOAD_TOO_LARGE,
            };
            for path in ["/v1/embeddings", "/embeddings", "/v1/nothing"] {
                assert_eq!(problem.respond(Dialect::of(path)).status(), status);
                let error = &body(&problem, path).await["error"];
                assert_eq!(error["code"], problem.code, "{path}");
                assert_eq!(error.as_object().map(serde_json::Map::len), Some(4), "{error}");
            }
            for path in ["/embed", "/", "/nothing"] {
                let body = body(&problem, path).await;
                let kind = if *refused == Refused::NoRoom { "Overloaded" } else { "Validation" };
                assert_eq!(body["error_type"], kind, "{path}");
                assert_eq!(body["error"], problem.message);
            }
            for path in ["/api/v1/embed", "/livez"] {
                let error = &body(&problem, path).await["error"];
                assert_eq!(
                    (&error["code"], &error["message"]),
                    (&problem.code.into(), &problem.message.as_str().into())
                );
            }
        }
    }
}
