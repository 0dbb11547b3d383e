//! What anybody may ask, or is refused, does not fill the queue; and one kind of problem has one
//! word, whoever is told of it.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::channel::{call_raw, code, connect, embed_client, run, text};
use crate::collector::{Collector, Manner, attribute};
use crate::daemon::Daemon;
use crate::spans::{PARENT, TRACE, hex};
use crate::support::tiny::TOKENS_MAX;

#[test]
fn only_what_the_guards_let_in_for_somebody_known_is_sent() {
    let collector = Collector::start(Manner::Takes);
    let settings = collector.settings("http/protobuf", "sample_ratio = 1.0");
    let sum = hex(&Sha256::digest("two"));
    let daemon = Daemon::start(&format!("{settings}[auth]\nkey_hashes = ['{sum}']"));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let body = json!({"inputs": "w1"}).to_string();
    let mut client = daemon.connect();
    for (method, path, key, status) in [
        ("POST", "/embed", "Bearer three", 401),
        ("GET", "/livez", "Bearer three", 200),
        ("POST", "/nothing", "Bearer three", 401),
        ("POST", "/embed", "Bearer two", 200),
    ] {
        let headers = [
            ("traceparent", parent.as_str()),
            ("content-type", "application/json"),
            ("authorization", key),
        ];
        let body = if method == "POST" { &body } else { "" };
        let answer = client.send(method, path, &headers, body).expect("answers");
        assert_eq!(answer.status, status, "{path}");
    }
    drop(client);
    run(async {
        let channel = connect(&daemon.socket()).await;
        // With a key, too: nobody looks for these in a trace that nobody asked for.
        for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
            call_raw(&channel, path, b"", Some("two")).await.expect("answers");
        }
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        // The seventh field: which services there are.
        call_raw(&channel, reflection, b"\x3a\x00", Some("two")).await.expect("answers");
    });
    daemon.stop();
    let spans = collector.rest();
    let is_server = |span: &&Span| span.kind == i32::from(SpanKind::Server);
    let servers: Vec<_> = spans.iter().filter(is_server).collect();
    let [only] = servers[..] else { panic!("one: {servers:?}") };
    assert_eq!((only.name.as_str(), hex(&only.trace_id).as_str()), ("POST /embed", TRACE));
}

#[test]
fn a_problem_has_the_word_that_its_client_was_told() {
    let collector = Collector::start(Manner::Takes);
    let settings = collector.settings("http/protobuf", "sample_ratio = 1.0");
    let daemon = Daemon::start(&format!("{settings}[limits]\nbody_bytes_max = 4096"));
    let long = "w1 ".repeat(TOKENS_MAX + 8);
    let mut told = Vec::new();
    for input in ["", &"w".repeat(10_000)] {
        let mut client = daemon.connect();
        let answer = client.post("/v1/embeddings", &json!({"input": input})).expect("answers");
        told.push(answer.json()["error"]["code"].as_str().expect("a word").to_owned());
    }
    assert_eq!(told, ["empty_input", "body_too_large"]);
    run(async {
        let mut client = embed_client(&daemon).await;
        assert_eq!(code(client.embed(text(&long)).await), Code::InvalidArgument);
    });
    let long = json!({"inputs": long, "truncate": false});
    assert_eq!(daemon.connect().post("/embed", &long).expect("answers").status, 422);
    told.extend(["too_many_tokens", "too_many_tokens"].map(str::to_owned));
    let spans = collector.spans(told.len());
    let words: Vec<_> = spans.iter().filter_map(|span| attribute(span, "error.type")).collect();
    assert_eq!(words, told);
    daemon.stop();
}
