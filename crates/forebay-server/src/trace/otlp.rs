//! Notes of requests as spans of OTLP. Names of attributes are those of OpenTelemetry's semantic
//! conventions for HTTP servers where they have one, and begin with `forebay.` otherwise.

use http::StatusCode;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use tonic::Code;

use super::context::SpanId;
use super::request::{BatchRun, Notes, Window};

/// Flags of a span: sampled, and whether it is known that the parent is elsewhere, and whether it is.
const SAMPLED: u32 = 0x001;
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Who made the spans.
pub(super) struct Origin {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Origin {
    pub(super) fn new(service_name: &str) -> Self {
        let name = if service_name.is_empty() { "forebay" } else { service_name };
        let attributes = vec![
            text("service.name", name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            number("process.pid", std::process::id() as usize),
        ];
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        Self { resource: Resource { attributes, ..Resource::default() }, scope }
    }

    /// Every span of these requests.
    pub(super) fn spans_of(&self, requests: &[Notes]) -> ResourceSpans {
        let spans = requests.iter().flat_map(spans_of).collect();
        let scope = Some(self.scope.clone());
        let scope_spans = vec![ScopeSpans { scope, spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
    }
}

fn spans_of(notes: &Notes) -> Vec<Span> {
    let mut spans = Vec::with_capacity(notes.spans());
    spans.push(server_span(notes));
    for (name, window) in [("tokenize", &notes.tokenize), ("queue", &notes.queue)] {
        spans.extend(window.as_ref().map(|window| child(notes, name, window, Vec::new())));
    }
    spans.extend(notes.batches.iter().map(|run| {
        let BatchRun { window, batch_texts, batch_tokens, shared } = run;
        let attributes = match shared {
            false => vec![
                number("forebay.batch.texts", *batch_texts),
                number("forebay.batch.tokens", *batch_tokens),
            ],
            true => vec![flag("forebay.batch.several", true)],
        };
        child(notes, "infer", window, attributes)
    }));
    spans
}

fn server_span(notes: &Notes) -> Span {
    let pattern = notes.route.and_then(|route| route.pattern);
    let is_call = notes.route.is_some_and(|route| route.dialect == "grpc");
    let name = match pattern {
        Some(pattern) if is_call => pattern.trim_start_matches('/').to_owned(),
        Some(pattern) => format!("{} {pattern}", notes.method),
        None => notes.method.to_owned(),
    };
    let mut attributes = vec![
        text("http.request.method", notes.method),
        text("network.protocol.version", notes.version),
        text("forebay.request_id", &notes.request_id),
        number("forebay.texts", notes.texts),
        number("forebay.tokens", notes.tokens),
    ];
    let level = notes.level.map(|level| level.to_string());
    let words = [
        ("rpc.system", is_call.then_some("grpc")),
        ("http.route", pattern),
        ("forebay.dialect", notes.route.map(|route| route.dialect)),
        ("forebay.priority", notes.priority),
        ("forebay.level", level.as_deref()),
        ("error.type", error_type(notes)),
    ];
    attributes.extend(words.iter().filter_map(|(name, word)| word.map(|word| text(name, word))));
    if let Some(status) = notes.status {
        attributes.push(number("http.response.status_code", status.as_u16().into()));
    }
    if let Some(code) = notes.grpc_status {
        attributes.push(number("rpc.grpc.status_code", code as usize));
    }
    let code = if has_failed(notes) { SpanStatus::Error } else { SpanStatus::Unset };
    let (parent, state, remote) = match &notes.parent {
        Some(parent) => (parent.span_id.0.to_vec(), parent.state.clone(), IS_REMOTE),
        None => (Vec::new(), String::new(), 0),
    };
    Span {
        trace_id: notes.trace_id.0.to_vec(),
        span_id: notes.span_id.0.to_vec(),
        trace_state: state,
        parent_span_id: parent,
        flags: SAMPLED | KNOWS_REMOTE | remote,
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: notes.unix_ns(notes.begun.1),
        end_time_unix_nano: notes.unix_ns(notes.ended.unwrap_or(notes.begun.1)),
        attributes,
        status: Some(Status { code: code.into(), ..Status::default() }),
        ..Span::default()
    }
}

/// Why a request has no good answer: the word that its client was told, or that it had left.
fn error_type(notes: &Notes) -> Option<&'static str> {
    let is_call = notes.route.is_some_and(|route| route.dialect == "grpc");
    match (notes.status, notes.grpc_status) {
        (None, _) => Some("gone"),
        // A call is over when its status is told, behind the answer.
        (Some(_), None) if is_call && notes.problem.is_none() => Some("gone"),
        (Some(status), code) => {
            let is_refused = status >= StatusCode::BAD_REQUEST;
            let is_refused = is_refused || code.is_some_and(|code| code != Code::Ok);
            notes.problem.or(is_refused.then_some("refused"))
        }
    }
}

/// Whether the span is one of an error; what a client did wrong is none of the server's.
fn has_failed(notes: &Notes) -> bool {
    let of_server = |code| {
        use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
        let all = [Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss];
        all.contains(&code)
    };
    notes.grpc_status.is_some_and(of_server)
        || notes.status.is_none_or(|status| status.is_server_error())
}

fn child(notes: &Notes, name: &str, window: &Window, mut attributes: Vec<KeyValue>) -> Span {
    attributes.push(number("forebay.texts", window.texts));
    attributes.push(number("forebay.tokens", window.tokens));
    Span {
        trace_id: notes.trace_id.0.to_vec(),
        span_id: SpanId::random().0.to_vec(),
        trace_state: notes.parent.as_ref().map(|parent| parent.state.clone()).unwrap_or_default(),
        parent_span_id: notes.span_id.0.to_vec(),
        flags: SAMPLED | KNOWS_REMOTE,
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: notes.unix_ns(window.from),
        end_time_unix_nano: notes.unix_ns(window.to),
        attributes,
        ..Span::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: usize) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}
