//! What the daemon measures of its requests, beside the connections and the runtime's own metrics:
//! declared in [`REQUEST_METRICS`] as those are, listed in `docs/http-metrics.md`, and recorded
//! through cached handles. No label has anything of a client or of a text in it.

use std::time::Duration;

use axum::http::StatusCode;
use forebay::metrics::names::{Kind as MetricKind, LabelSet, Metric, Unit};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, with_recorder};

use crate::api::{Dialect, Kind, ROUTES};
use crate::listen::metrics::CONNECTION_METRICS;
use crate::trace::metrics::TRACE_METRICS;

const ROUTE: LabelSet = LabelSet { name: "route", values: &[] };
const DIALECT: LabelSet = LabelSet { name: "dialect", values: &["openai", "tei", "native"] };
const CLASS: LabelSet = LabelSet { name: "class", values: &Class::WORDS };
const PROBLEM: LabelSet = LabelSet { name: "problem", values: &[] };

const REQUESTS: Metric = Metric {
    name: "forebay_http_requests_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[ROUTE, DIALECT, CLASS],
    help: "Requests by how they ended; `gone` if the client left before the answer",
    watch: "`5xx` at all; `503` and `504` for long",
};
const SECONDS: Metric = Metric {
    name: "forebay_http_request_seconds",
    kind: MetricKind::Histogram,
    unit: Unit::Seconds,
    labels: &[ROUTE, DIALECT],
    help: "From the headers of a request to its answer, the body of the request included",
    watch: "its tail against the runtime's `forebay_request_seconds`",
};
const IN_FLIGHT: Metric = Metric {
    name: "forebay_http_requests_in_flight",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[DIALECT],
    help: "Requests without an answer yet",
    watch: "",
};
const PROBLEMS: Metric = Metric {
    name: "forebay_http_problems_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[PROBLEM, DIALECT],
    help: "Requests that were answered with an error, by its kind",
    watch: "`invalid_api_key` or `forbidden`: somebody tries; `poison_input` and `backend` at all",
};
const REQUEST_BYTES: Metric = Metric {
    name: "forebay_http_request_body_bytes_total",
    kind: MetricKind::Counter,
    unit: Unit::Bytes,
    labels: &[],
    help: "Bytes of bodies of requests that were read whole",
    watch: "",
};
const RESPONSE_BYTES: Metric = Metric {
    name: "forebay_http_response_body_bytes_total",
    kind: MetricKind::Counter,
    unit: Unit::Bytes,
    labels: &[],
    help: "Bytes of bodies of answers",
    watch: "",
};

/// Every metric of this module.
const REQUEST_METRICS: [Metric; 6] =
    [REQUESTS, SECONDS, IN_FLIGHT, PROBLEMS, REQUEST_BYTES, RESPONSE_BYTES];

/// Every metric of this crate; to be given to
/// [`install_with`](forebay::metrics::prometheus::install_with).
#[must_use]
pub fn all_metrics() -> Vec<Metric> {
    REQUEST_METRICS.iter().chain(CONNECTION_METRICS).chain(TRACE_METRICS).copied().collect()
}

/// How a request ended, as the metrics tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ok,
    Client,
    Overloaded,
    Server,
    Unavailable,
    Deadline,
    Gone,
}

impl Class {
    const WORDS: [&'static str; 7] = ["2xx", "4xx", "429", "5xx", "503", "504", "gone"];

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
}

/// A route's place in the handles; the last is for paths that are no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteIndex(usize);

impl RouteIndex {
    /// The pattern of the route; `None` for a path that is none.
    pub(crate) fn pattern(self) -> Option<&'static str> {
        ROUTES.get(self.0).copied()
    }
}

struct PerRoute {
    requests: [Counter; Class::WORDS.len()],
    seconds: Histogram,
}

/// The handles. They bind to the recorder that is installed when this is made.
pub(crate) struct HttpMetrics {
    routes: Vec<PerRoute>,
    in_flight: Vec<Gauge>,
    problems: Vec<Vec<Counter>>,
    request_bytes: Counter,
    response_bytes: Counter,
}

impl HttpMetrics {
    pub(crate) fn new() -> Self {
        describe();
        let dialects = Dialect::ALL.map(|dialect| Label::new(DIALECT.name, dialect.as_str()));
        let paths = ROUTES.iter().copied().chain(std::iter::once("other"));
        let route = |path: &'static str| {
            let dialect = Label::new(DIALECT.name, Dialect::of(path).as_str());
            let labels = vec![Label::new(ROUTE.name, path), dialect];
            let class = |word: &&'static str| {
                let mut labels = labels.clone();
                labels.push(Label::new(CLASS.name, *word));
                counter(&REQUESTS, labels)
            };
            PerRoute {
                requests: Class::WORDS.each_ref().map(class),
                seconds: histogram(&SECONDS, labels.clone()),
            }
        };
        let problem = |kind: &Kind| {
            let of = |dialect: &Label| {
                counter(&PROBLEMS, vec![Label::new(PROBLEM.name, kind.code()), dialect.clone()])
            };
            dialects.iter().map(of).collect()
        };
        Self {
            routes: paths.map(route).collect(),
            in_flight: dialects
                .iter()
                .map(|label| gauge(&IN_FLIGHT, vec![label.clone()]))
                .collect(),
            problems: Kind::ALL.iter().map(problem).collect(),
            request_bytes: counter(&REQUEST_BYTES, Vec::new()),
            response_bytes: counter(&RESPONSE_BYTES, Vec::new()),
        }
    }

    /// The place of a route by its pattern; without one it is no route.
    pub(crate) fn route(pattern: Option<&str>) -> RouteIndex {
        let place = pattern.and_then(|pattern| ROUTES.iter().position(|route| *route == pattern));
        RouteIndex(place.unwrap_or(ROUTES.len()))
    }

    /// A request began. What is returned tells of its end, and of a client that left when dropped.
    pub(crate) fn began(&self, route: RouteIndex, dialect: Dialect) -> UnderWay<'_> {
        // One handle per dialect.
        self.in_flight[dialect as usize].increment(1);
        UnderWay { metrics: self, route, dialect, ended: false }
    }

    /// A request was answered with an error.
    pub(crate) fn problem(&self, kind: Kind, dialect: Dialect) {
        // One row per kind and one handle per dialect in it.
        self.problems[kind as usize][dialect as usize].increment(1);
    }

    /// The body of a request was read.
    pub(crate) fn received(&self, bytes: usize) {
        self.request_bytes.increment(bytes as u64);
    }
}

/// A request that has no answer yet.
pub(crate) struct UnderWay<'a> {
    metrics: &'a HttpMetrics,
    route: RouteIndex,
    dialect: Dialect,
    ended: bool,
}

impl UnderWay<'_> {
    /// It has its answer, of so many bytes if that is known.
    pub(crate) fn answered(mut self, status: StatusCode, elapsed: Duration, bytes: Option<u64>) {
        self.ended = true;
        // One place per route and one beyond; one handle per class.
        let route = &self.metrics.routes[self.route.0];
        route.requests[Class::of(status) as usize].increment(1);
        route.seconds.record(elapsed);
        self.metrics.response_bytes.increment(bytes.unwrap_or(0));
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight[self.dialect as usize].decrement(1);
        if !self.ended {
            self.metrics.routes[self.route.0].requests[Class::Gone as usize].increment(1);
        }
    }
}

fn metadata() -> Metadata<'static> {
    Metadata::new("forebay", Level::INFO, None)
}

fn counter(metric: &Metric, labels: Vec<Label>) -> Counter {
    let key = Key::from_parts(metric.name, labels);
    with_recorder(|recorder| recorder.register_counter(&key, &metadata()))
}

fn gauge(metric: &Metric, labels: Vec<Label>) -> Gauge {
    let key = Key::from_parts(metric.name, labels);
    with_recorder(|recorder| recorder.register_gauge(&key, &metadata()))
}

fn histogram(metric: &Metric, labels: Vec<Label>) -> Histogram {
    let key = Key::from_parts(metric.name, labels);
    with_recorder(|recorder| recorder.register_histogram(&key, &metadata()))
}

fn describe() {
    with_recorder(|recorder| {
        for metric in &REQUEST_METRICS {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                MetricKind::Counter => recorder.describe_counter(name, None, help),
                MetricKind::Gauge => recorder.describe_gauge(name, None, help),
                MetricKind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
    });
}

#[cfg(test)]
mod tests;
