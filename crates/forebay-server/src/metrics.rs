//! What the daemon measures of its requests, beside the connections and the runtime's own metrics:
//! declared in [`REQUEST_METRICS`] as those are, listed in `docs/http-metrics.md`, and recorded
//! through cached handles. No label has anything of a client or of a text in it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use forebay::metrics::LabelValue;
use forebay::metrics::handles::{ByLabel, ByLabels, Handle, describe, plain};
use forebay::metrics::names::{LabelSet, Metric};
use forebay::{Health, metric_label, metric_list};
use metrics::{Counter, Gauge, Histogram, Label};
use tonic::Code;

use crate::api::{Dialect, Kind, ROUTES};
use crate::grpc::{METHODS, StreamTexts};
use crate::listen::metrics::CONNECTION_METRICS;
use crate::trace::metrics::TRACE_METRICS;

/// The values are [`ROUTES`], [`METHODS`], and `other` for paths that are no route.
const ROUTE: LabelSet = LabelSet { name: "route", values: &[] };

metric_label! {
    /// How a request ended.
    enum Class as "class" {
        /// With what was asked for.
        Ok = "2xx",
        /// The client is to change something.
        Client = "4xx",
        /// There was no room.
        Overloaded = "429",
        /// A fault of this side.
        Server = "5xx",
        /// Nothing serves.
        Unavailable = "503",
        /// Its deadline passed.
        Deadline = "504",
        /// The client left before the answer.
        Gone = "gone",
    }
}

metric_label! {
    /// A status of gRPC.
    enum GrpcStatus as "code" {
        /// The call did what it was asked for.
        Ok = "OK",
        /// The client gave it up.
        Cancelled = "CANCELLED",
        /// None of the others.
        Unknown = "UNKNOWN",
        /// The client is to change the request.
        InvalidArgument = "INVALID_ARGUMENT",
        /// Its deadline passed.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// There is no such thing.
        NotFound = "NOT_FOUND",
        /// There is such a thing already.
        AlreadyExists = "ALREADY_EXISTS",
        /// The caller may not do this.
        PermissionDenied = "PERMISSION_DENIED",
        /// There was no room.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        /// The model or this text does not allow it.
        FailedPrecondition = "FAILED_PRECONDITION",
        /// It was given up on this side.
        Aborted = "ABORTED",
        /// A message was too large.
        OutOfRange = "OUT_OF_RANGE",
        /// There is no such method.
        Unimplemented = "UNIMPLEMENTED",
        /// A fault of this side, or a message that is none.
        Internal = "INTERNAL",
        /// Nothing serves.
        Unavailable = "UNAVAILABLE",
        /// Something is lost for good.
        DataLoss = "DATA_LOSS",
        /// No known key came with the call.
        Unauthenticated = "UNAUTHENTICATED",
    }
}

impl LabelValue for Kind {
    const SET: LabelSet = LabelSet {
        name: "problem",
        values: &{
            let mut words = [""; Self::ALL.len()];
            let mut nth = 0;
            while nth < words.len() {
                words[nth] = Self::ALL[nth].code();
                nth += 1;
            }
            words
        },
    };

    fn index(self) -> usize {
        self as usize
    }
}

metric_list! {
    /// Every metric of this module.
    const REQUEST_METRICS;
    REQUESTS = "forebay_http_requests_total", Counter, Count, [ROUTE, Dialect::SET, Class::SET],
        "Requests by how they ended; `gone` if the client left before the answer",
        watch "`5xx` at all; `503` and `504` for long";
    SECONDS = "forebay_http_request_seconds", Histogram, Seconds, [ROUTE, Dialect::SET],
        "From the headers of a request to its answer, the body of the request included; for gRPC to \
         its status, so that a stream counts as long as it was open",
        watch "its tail against the runtime's `forebay_request_seconds`";
    IN_FLIGHT = "forebay_http_requests_in_flight", Gauge, Count, [Dialect::SET],
        "Requests without an answer yet", watch "";
    PROBLEMS = "forebay_http_problems_total", Counter, Count, [Kind::SET, Dialect::SET],
        "Requests that a handler answered with an error, by its kind; what was refused before is in \
         `forebay_http_refused_total`",
        watch "`poison_input` and `backend` at all";
    REQUEST_BYTES = "forebay_http_request_body_bytes_total", Counter, Bytes, [],
        "Bytes of bodies of requests that were read whole", watch "";
    GRPC_STATUSES = "forebay_grpc_statuses_total", Counter, Count, [GrpcStatus::SET],
        "Calls of gRPC that were let in, by the status that they ended with",
        watch "`INTERNAL` and `UNKNOWN` at all; `UNAVAILABLE` for long";
    GRPC_STREAM_TEXTS = "forebay_grpc_stream_texts", Gauge, Count, [],
        "Texts of streams that are under way",
        watch "near `limits.grpc_stream_texts_max` for each stream: clients send faster than is computed";
    RESPONSE_BYTES = "forebay_http_response_body_bytes_total", Counter, Bytes, [],
        "Bytes of bodies of answers", watch "";
    READY = "forebay_ready", Gauge, Count, [],
        "1 if `/readyz` said yes at the last `GET /metrics`", watch "0";
    HEARTBEAT_AGE = "forebay_heartbeat_age_seconds", Gauge, Seconds, [],
        "Since the dispatcher had gone round its loop, at the last `GET /metrics`",
        watch "near `server.watchdog_age_ms_max`: the watchdog is about to end the daemon";
    OLDEST_TEXT_AGE = "forebay_oldest_text_age_seconds", Gauge, Seconds, [],
        "Age of the oldest text without an answer, at the last `GET /metrics`",
        watch "a steady rise: something stands still";
}

/// Every metric of this crate; to be given to
/// [`install_with`](forebay::metrics::prometheus::install_with).
#[must_use]
pub fn all_metrics() -> Vec<Metric> {
    REQUEST_METRICS.iter().chain(CONNECTION_METRICS).chain(TRACE_METRICS).copied().collect()
}

impl Class {
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Overloaded,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Self::Deadline,
            status if status.is_server_error() => Self::Server,
            status if status.is_client_error() => Self::Client,
            _ => Self::Ok,
        }
    }

    fn of_call(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::ResourceExhausted => Self::Overloaded,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::Deadline,
            Code::Internal | Code::Unknown | Code::DataLoss => Self::Server,
            Code::Cancelled => Self::Gone,
            _ => Self::Client,
        }
    }
}

impl GrpcStatus {
    fn of(code: Code) -> Self {
        // The words stand in the order of the codes, which begin with 0.
        Self::ALL.get(code as usize).copied().unwrap_or(Self::Unknown)
    }
}

/// A route's place in the handles; the last two are for paths that are no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteIndex(usize);

impl RouteIndex {
    /// The pattern of the route; `None` for a path that is none.
    pub(crate) fn pattern(self) -> Option<&'static str> {
        ROUTES.iter().chain(&METHODS).nth(self.0).copied()
    }
}

struct PerRoute {
    requests: ByLabel<Class, Counter>,
    seconds: Histogram,
}

impl PerRoute {
    fn new((path, dialect): (&'static str, Dialect)) -> Self {
        let dialect = Label::new(Dialect::SET.name, dialect.as_str());
        let labels = vec![Label::new(ROUTE.name, path), dialect];
        Self {
            requests: ByLabel::beside(&REQUESTS, &labels),
            seconds: Histogram::register(&SECONDS, labels),
        }
    }
}

/// The handles. They bind to the recorder that is installed when this is made.
pub(crate) struct HttpMetrics {
    routes: Vec<PerRoute>,
    in_flight: ByLabel<Dialect, Gauge>,
    problems: ByLabels<Kind, Dialect, Counter>,
    grpc_statuses: ByLabel<GrpcStatus, Counter>,
    grpc_stream_texts: Gauge,
    request_bytes: Counter,
    response_bytes: Counter,
    ready: Gauge,
    heartbeat_age: Gauge,
    oldest_text_age: Gauge,
}

impl HttpMetrics {
    pub(crate) fn new() -> Self {
        describe(REQUEST_METRICS);
        let routes = ROUTES.map(|path| (path, Dialect::of(path)));
        let methods = METHODS.map(|path| (path, Dialect::Grpc));
        let others = [Dialect::of("other"), Dialect::Grpc].map(|dialect| ("other", dialect));
        let paths = routes.into_iter().chain(methods).chain(others);
        Self {
            routes: paths.map(PerRoute::new).collect(),
            in_flight: ByLabel::new(&IN_FLIGHT),
            problems: ByLabels::new(&PROBLEMS),
            grpc_statuses: ByLabel::new(&GRPC_STATUSES),
            grpc_stream_texts: plain(&GRPC_STREAM_TEXTS),
            request_bytes: plain(&REQUEST_BYTES),
            response_bytes: plain(&RESPONSE_BYTES),
            ready: plain(&READY),
            heartbeat_age: plain(&HEARTBEAT_AGE),
            oldest_text_age: plain(&OLDEST_TEXT_AGE),
        }
    }

    /// How things are now.
    pub(crate) fn state(&self, ready: bool, health: &Health) {
        self.ready.set(f64::from(u8::from(ready)));
        self.heartbeat_age.set(health.beat_age);
        self.oldest_text_age.set(health.worst_age);
    }

    /// The place of a route by its pattern; without one it is no route.
    pub(crate) fn route(pattern: Option<&str>, dialect: Dialect) -> RouteIndex {
        let mut known = ROUTES.iter().chain(&METHODS);
        let place = pattern.and_then(|pattern| known.position(|route| *route == pattern));
        let other = ROUTES.len() + METHODS.len() + usize::from(dialect == Dialect::Grpc);
        RouteIndex(place.unwrap_or(other))
    }

    /// A request began. What is returned tells of its end, and of a client that left when dropped.
    pub(crate) fn began(self: &Arc<Self>, route: RouteIndex, dialect: Dialect) -> UnderWay {
        self.in_flight.of(dialect).increment(1);
        UnderWay { metrics: Arc::clone(self), route, dialect, ended: false }
    }

    /// What one stream tells of its texts.
    pub(crate) fn stream_texts(&self) -> StreamTexts {
        StreamTexts::new(self.grpc_stream_texts.clone())
    }

    /// A request was answered with an error.
    pub(crate) fn problem(&self, kind: Kind, dialect: Dialect) {
        self.problems.of(kind, dialect).increment(1);
    }

    /// The body of a request was read.
    pub(crate) fn received(&self, bytes: usize) {
        self.request_bytes.increment(bytes as u64);
    }
}

/// A request that has no answer yet.
pub(crate) struct UnderWay {
    metrics: Arc<HttpMetrics>,
    route: RouteIndex,
    dialect: Dialect,
    ended: bool,
}

impl UnderWay {
    /// It has its answer, of so many bytes if that is known.
    pub(crate) fn answered(self, status: StatusCode, elapsed: Duration, bytes: Option<u64>) {
        self.ended(Class::of(status), elapsed, bytes.unwrap_or(0));
    }

    /// The call of gRPC has its status, after an answer of so many bytes.
    pub(crate) fn called(self, code: Code, elapsed: Duration, bytes: u64) {
        self.metrics.grpc_statuses.of(GrpcStatus::of(code)).increment(1);
        self.ended(Class::of_call(code), elapsed, bytes);
    }

    fn ended(mut self, class: Class, elapsed: Duration, bytes: u64) {
        self.ended = true;
        // `RouteIndex` is a place among the routes.
        let route = &self.metrics.routes[self.route.0];
        route.requests.of(class).increment(1);
        route.seconds.record(elapsed);
        self.metrics.response_bytes.increment(bytes);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.metrics.in_flight.of(self.dialect).decrement(1);
        if !self.ended {
            if self.dialect == Dialect::Grpc {
                self.metrics.grpc_statuses.of(GrpcStatus::Cancelled).increment(1);
            }
            self.metrics.routes[self.route.0].requests.of(Class::Gone).increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
