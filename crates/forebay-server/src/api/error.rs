//! What is said when a request has no answer: one kind of problem, four dialects.
//!
//! A handler returns a [`Problem`]; the outermost layer of the router writes it in the dialect of
//! the request ([`Dialect::of_request`]), so that a refusal by a guard and one by a handler look alike. The
//! text that a caller sent is never repeated here.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use forebay::{EmbedError, metric_label};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

metric_label! {
    /// Whose error body a route has.
    pub(crate) enum Dialect as "dialect" {
        /// OpenAI's: an object under `error` with message, type, param and code.
        OpenAi = "openai",
        /// text-embeddings-inference's: `error` and `error_type`.
        Tei = "tei",
        /// Ours: an object under `error` with code and message.
        Native = "native",
        /// gRPC's: a status among the trailers of an answer that is 200.
        Grpc = "grpc",
    }
}

impl Dialect {
    /// The dialect in which a request is answered: gRPC if it says that it is, else that of its path.
    pub(crate) fn of_request(path: &str, headers: &HeaderMap) -> Self {
        if crate::grpc::is_grpc(headers) { Self::Grpc } else { Self::of(path) }
    }

    /// The dialect of HTTP in which a path is answered, whether or not there is such a route.
    pub(crate) fn of(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") || path == "/embeddings" {
            Self::OpenAi
        } else if path.starts_with("/api/") || matches!(path, "/livez" | "/readyz" | "/metrics") {
            Self::Native
        } else {
            Self::Tei
        }
    }
}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is no JSON.
    Syntax,
    /// The body is JSON of the wrong shape, or asks for what there is not.
    Validation,
    /// There is nothing to embed.
    Empty,
    /// The tokenizer cannot encode the text.
    Tokenizer,
    /// The body is not said to be JSON.
    MediaType,
    /// The body is larger than is taken.
    TooLarge,
    /// The client did not send its request in time.
    TooSlow,
    /// No known key came with the request.
    Unauthorized,
    /// A page of another origin sent the request.
    Forbidden,
    /// The request is for a name that is none of this server's.
    Misdirected,
    /// There is no such route.
    NotFound,
    /// There is no such model.
    NoModel,
    /// The route knows other methods.
    Method,
    /// The model is of another type than the route needs.
    ModelType,
    /// Too much is under way.
    Overloaded,
    /// Nothing serves now.
    Unavailable,
    /// The deadline passed.
    Deadline,
    /// The text ended its worker, twice.
    Poison,
    /// The engine, or a check of its answer, failed.
    Backend,
    /// A fault in this program.
    Internal,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// A stable name, for programs.
    pub(crate) code: &'static str,
    /// What is wrong and what to do, without anything of the text.
    pub(crate) message: String,
    /// The field of the request that it concerns.
    pub(crate) param: Option<&'static str>,
    /// When trying again is likely to succeed.
    pub(crate) retry_after: Option<Duration>,
}

/// How long a caller is asked to wait while nothing serves: about what a restart takes.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

impl Problem {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retry_after = (kind == Kind::Unavailable).then_some(UNAVAILABLE_RETRY);
        Self { kind, code: kind.code(), message: message.into(), param: None, retry_after }
    }

    /// The same, about one field.
    pub(crate) fn about(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    /// The status of the answer.
    pub(crate) fn status(&self, dialect: Dialect) -> StatusCode {
        match self.kind {
            _ if dialect == Dialect::Grpc => StatusCode::OK,
            Kind::Syntax | Kind::Empty => StatusCode::BAD_REQUEST,
            // OpenAI answers whatever a caller should change with 400.
            Kind::Validation | Kind::Tokenizer if dialect == Dialect::OpenAi => {
                StatusCode::BAD_REQUEST
            }
            Kind::Validation | Kind::Tokenizer => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Kind::NotFound | Kind::NoModel => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::ModelType => StatusCode::FAILED_DEPENDENCY,
            Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Kind::Poison | Kind::Backend if dialect == Dialect::Tei => {
                StatusCode::FAILED_DEPENDENCY
            }
            // Clients send a request again after 5xx; this text would end workers each time.
            Kind::Poison => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Backend | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer in this dialect.
    pub(crate) fn respond(&self, dialect: Dialect) -> Response {
        let body = match dialect {
            Dialect::Grpc => return crate::grpc::status(self).into_http(),
            Dialect::OpenAi => json(&OpenAiError { error: self.openai() }),
            Dialect::Tei => {
                json(&TeiError { error: self.message.clone(), error_type: self.kind.tei() })
            }
            Dialect::Native => json(&NativeError {
                error: NativeDetail {
                    code: self.code,
                    message: self.message.clone(),
                    param: self.param,
                    retry_after_ms: self.retry_after.map(millis),
                },
            }),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status(dialect);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    fn openai(&self) -> OpenAiDetail {
        let status = self.status(Dialect::OpenAi);
        let kind = match self.kind {
            Kind::Unauthorized | Kind::Forbidden => "authentication_error",
            Kind::Overloaded => "rate_limit_error",
            _ if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let (message, param, code) = (self.message.clone(), self.param, Some(self.code));
        OpenAiDetail { message, kind, param, code }
    }
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 20] = [
        Self::Syntax,
        Self::Validation,
        Self::Empty,
        Self::Tokenizer,
        Self::MediaType,
        Self::TooLarge,
        Self::TooSlow,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Misdirected,
        Self::NotFound,
        Self::NoModel,
        Self::Method,
        Self::ModelType,
        Self::Overloaded,
        Self::Unavailable,
        Self::Deadline,
        Self::Poison,
        Self::Backend,
        Self::Internal,
    ];

    /// The stable name of the kind.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Syntax => "invalid_json",
            Self::Validation => "invalid_request",
            Self::Empty => "empty_input",
            Self::Tokenizer => "tokenize",
            Self::MediaType => "unsupported_media_type",
            Self::TooLarge => "body_too_large",
            Self::TooSlow => "request_timeout",
            Self::Unauthorized => "invalid_api_key",
            Self::Forbidden => "origin_not_allowed",
            Self::Misdirected => "host_not_allowed",
            Self::NotFound => "not_found",
            Self::NoModel => "model_not_found",
            Self::Method => "method_not_allowed",
            Self::ModelType => "wrong_model_type",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Deadline => "deadline_exceeded",
            Self::Poison => "poison_input",
            Self::Backend => "backend",
            Self::Internal => "internal",
        }
    }

    /// `error_type` of text-embeddings-inference; `Timeout` is ours, for it knows no deadlines.
    fn tei(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Tokenizer => "Tokenizer",
            Self::ModelType | Self::Poison | Self::Backend | Self::Internal => "Backend",
            Self::Overloaded => "Overloaded",
            Self::Unavailable => "Unhealthy",
            Self::Deadline | Self::TooSlow => "Timeout",
            _ => "Validation",
        }
    }
}

impl From<EmbedError> for Problem {
    fn from(error: EmbedError) -> Self {
        let kind = match &error {
            EmbedError::Overloaded { .. } => Kind::Overloaded,
            EmbedError::Tokenize { .. } => Kind::Tokenizer,
            EmbedError::DeadlineExceeded { .. } => Kind::Deadline,
            EmbedError::PoisonInput { .. } => Kind::Poison,
            EmbedError::Inference { .. } | EmbedError::InvalidResult { .. } => Kind::Backend,
            EmbedError::Internal { .. } => Kind::Internal,
            EmbedError::Unavailable { .. }
            | EmbedError::WorkerLost
            | EmbedError::ShuttingDown
            | EmbedError::Cancelled => Kind::Unavailable,
            // Whatever else there is concerns the text or the options.
            _ => Kind::Validation,
        };
        let mut problem = Self::new(kind, String::new());
        problem.code = error.code();
        if let EmbedError::Overloaded { retry_after, .. } = &error {
            problem.retry_after = Some(*retry_after);
        }
        problem.message = match &error {
            // The words that clients of text-embeddings-inference look for.
            EmbedError::Overloaded { .. } => format!("Model is overloaded: {error}"),
            EmbedError::TooManyTokens { tokens, tokens_max } => format!(
                "`inputs` must have less than {tokens_max} tokens. Given: {tokens}; shorten the \
                 text or allow truncation"
            ),
            // The tokenizer's own words may repeat what it could not encode.
            EmbedError::Tokenize { .. } => {
                "the text cannot be tokenized; remove characters that are no text".to_owned()
            }
            _ => error.to_string(),
        };
        problem
    }
}

impl IntoResponse for Problem {
    /// Leaves the problem for the outermost layer, which knows the dialect.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status(Dialect::Native);
        response.extensions_mut().insert(self);
        response
    }
}

/// The error body of OpenAI's routes.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    error: OpenAiDetail,
}

/// What is under `error` there.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiDetail {
    /// What is wrong and what to do.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: &'static str,
    /// The field that it concerns.
    param: Option<&'static str>,
    /// A stable name of the problem.
    code: Option<&'static str>,
}

/// The error body of the routes of text-embeddings-inference.
#[derive(Serialize, ToSchema)]
pub(crate) struct TeiError {
    /// What is wrong and what to do.
    error: String,
    /// `Unhealthy`, `Backend`, `Overloaded`, `Tokenizer`, `Validation`, `Empty` or `Timeout`.
    error_type: &'static str,
}

/// The error body of our own routes.
#[derive(Serialize, ToSchema)]
pub(crate) struct NativeError {
    error: NativeDetail,
}

/// What is under `error` there.
#[derive(Serialize, ToSchema)]
pub(crate) struct NativeDetail {
    /// A stable name of the problem.
    code: &'static str,
    /// What is wrong and what to do.
    message: String,
    /// The field that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'static str>,
    /// When trying again is likely to succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Strings and numbers under fixed names: there is nothing that could fail.
    serde_json::to_vec(value).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds, rounded up and never 0: a client that waits as told finds room.
pub(crate) fn whole_seconds(time: Duration) -> HeaderValue {
    let seconds: u64 = time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
    HeaderValue::from(seconds.max(1))
}
