//! What a collector that takes everything gets to see.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;

use crate::client::{Answer, Connection};
use crate::collector::{Collector, Manner, attribute};
use crate::daemon::Daemon;

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const PARENT: &str = "00f067aa0ba902b7";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn embed(connection: &mut Connection, body: &serde_json::Value, more: &[(&str, &str)]) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(more);
    connection.send("POST", "/embed", &headers, &body.to_string()).expect("answers")
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// The server span and its children, which lie within it.
pub(crate) fn family(spans: &[Span]) -> (&Span, Vec<&Span>) {
    let is_server = |span: &&Span| span.kind == i32::from(SpanKind::Server);
    let servers: Vec<&Span> = spans.iter().filter(is_server).collect();
    let [server] = servers[..] else { panic!("one server span: {spans:?}") };
    let children: Vec<&Span> = spans.iter().filter(|span| !is_server(span)).collect();
    assert!(server.start_time_unix_nano < server.end_time_unix_nano);
    for child in &children {
        assert_eq!((&child.trace_id, &child.parent_span_id), (&server.trace_id, &server.span_id));
        assert_eq!((child.span_id.len(), child.kind), (8, SpanKind::Internal.into()));
        assert!(child.start_time_unix_nano >= server.start_time_unix_nano, "{spans:?}");
        assert!(child.start_time_unix_nano <= child.end_time_unix_nano, "{spans:?}");
        assert!(child.end_time_unix_nano <= server.end_time_unix_nano, "{spans:?}");
    }
    (server, children)
}

fn traced_over(protocol: &str) {
    let collector = Collector::start(Manner::Takes);
    let settings = collector.settings(protocol, "service_name = 'kitchen'\nsample_ratio = 0.0");
    let daemon = Daemon::start(&format!("{settings}[log]\nlevel = 'debug'"));
    let mut client = daemon.connect();
    let (sampled, state) = (parent("01"), [("tracestate", "a=1"), ("tracestate", "b=2")]);
    let headers = [("traceparent", sampled.as_str()), state[0], state[1], ("x-request-id", "r1")];
    let answer = embed(&mut client, &json!({"inputs": "one secret text"}), &headers);
    assert_eq!(answer.status, 200, "{}", answer.text());

    let batch = collector.batch();
    assert!(!format!("{batch:?}").contains("secret"), "a text is in a span");
    let resource = batch.resource_spans[0].resource.clone().expect("a resource");
    let name = Span { attributes: resource.attributes, ..Span::default() };
    assert_eq!(attribute(&name, "service.name").as_deref(), Some("kitchen"));
    let spans = &batch.resource_spans[0].scope_spans[0].spans;
    let (server, children) = family(spans);
    assert_eq!((hex(&server.trace_id).as_str(), server.name.as_str()), (TRACE, "POST /embed"));
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(server.trace_state, "a=1,b=2");
    let says = |key: &str| attribute(server, key).unwrap_or_default();
    assert_eq!(says("http.route"), "/embed");
    assert_eq!(says("http.response.status_code"), "200");
    assert_eq!((says("forebay.level"), says("forebay.dialect")), ("cpu".into(), "tei".into()));
    assert_eq!((says("forebay.texts"), says("forebay.request_id")), ("1".into(), "r1".into()));
    assert_eq!(says("forebay.tokens"), answer.header("x-compute-tokens").expect("tokens"));
    // In the order in which they happened, one after the other.
    let names: Vec<&str> = children.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(names, ["tokenize", "queue", "infer"]);
    for pair in children.windows(2) {
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{spans:?}");
    }
    assert_eq!(attribute(children[2], "forebay.batch.texts").as_deref(), Some("1"));
    assert!(daemon.log().contains(TRACE), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_request_is_found_in_the_trace_of_its_client_over_http() {
    traced_over("http/protobuf");
}

#[test]
fn a_request_is_found_in_the_trace_of_its_client_over_grpc() {
    traced_over("grpc");
}

#[test]
fn the_sampled_flag_decides_before_the_ratio_does() {
    for (ratio, traced) in [("0.0", false), ("1.0", true)] {
        let collector = Collector::start(Manner::Takes);
        let settings = collector.settings("http/protobuf", &format!("sample_ratio = {ratio}"));
        let daemon = Daemon::start(&settings);
        let mut client = daemon.connect();
        let text = json!({"inputs": "a"});
        for headers in [
            vec![("traceparent", parent("00"))],
            vec![("traceparent", parent("01"))],
            // None, and none that is valid.
            vec![],
            vec![("traceparent", "00-0-0-01".to_owned())],
        ] {
            let headers: Vec<_> = headers.iter().map(|(name, of)| (*name, of.as_str())).collect();
            assert_eq!(embed(&mut client, &text, &headers).status, 200);
        }
        assert_eq!(client.get("/livez").expect("answers").status, 200);
        // Everything is sent before the daemon has ended.
        daemon.stop();
        let spans = collector.rest();
        let is_root = |span: &&Span| span.parent_span_id.is_empty();
        let of_client: Vec<_> =
            spans.iter().filter(|span| hex(&span.parent_span_id) == PARENT).collect();
        assert_eq!(of_client.len(), 1, "{spans:?}");
        assert_eq!(spans.iter().filter(is_root).count(), if traced { 2 } else { 0 }, "{spans:?}");
    }
}

#[test]
fn many_texts_make_few_spans_and_all_of_them_count() {
    let collector = Collector::start(Manner::Takes);
    let daemon = Daemon::start(&format!(
        "{}[batch]\nrows_max = 2\n",
        collector.settings("http/protobuf", "sample_ratio = 1.0")
    ));
    let texts: Vec<String> = (0..150).map(|nth| format!("text {nth}")).collect();
    let answer = embed(&mut daemon.connect(), &json!({"inputs": texts}), &[]);
    assert_eq!(answer.status, 200);
    let batch = collector.batch();
    let spans = &batch.resource_spans[0].scope_spans[0].spans;
    let (server, children) = family(spans);
    assert!(spans.len() <= 34, "{}", spans.len());
    assert_eq!(attribute(server, "forebay.texts").as_deref(), Some("150"));
    let count = |name: &str| -> usize {
        let of = children.iter().filter(|child| child.name == name);
        of.map(|child| attribute(child, "forebay.texts").expect("texts"))
            .map(|texts| texts.parse::<usize>().expect("a number"))
            .sum()
    };
    assert_eq!(["tokenize", "queue", "infer"].map(count), [150; 3]);
    daemon.stop();
}

#[test]
fn refusals_are_seen_and_only_the_servers_own_are_errors() {
    let collector = Collector::start(Manner::Takes);
    let settings = collector.settings("http/protobuf", "sample_ratio = 1.0");
    let daemon = Daemon::start(&settings);
    let mut client = daemon.connect();
    for (path, status) in [("/embed", 400), ("/nowhere/at/all", 404), ("/rerank", 424)] {
        let json = [("content-type", "application/json")];
        let answer = client.send("POST", path, &json, r#"{"inputs": ""}"#).expect("answers");
        assert_eq!(answer.status, status, "{path}");
    }
    let spans = collector.spans(3);
    let found: Vec<_> = spans
        .iter()
        .map(|span| {
            let failed =
                span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
            let status = attribute(span, "http.response.status_code").unwrap_or_default();
            (span.name.clone(), status, attribute(span, "error.type").unwrap_or_default(), failed)
        })
        .collect();
    let expected = [
        ("POST /embed", "400", "empty_input"),
        // What is no route is not named: anything may stand there.
        ("POST", "404", "not_found"),
        ("POST /rerank", "424", "wrong_model_type"),
    ];
    for (found, (name, status, kind)) in found.iter().zip(expected) {
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), (name, status, kind));
        assert!(!found.3, "{found:?}");
    }
    daemon.stop();
}
