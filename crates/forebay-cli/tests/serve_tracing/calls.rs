//! Calls of gRPC in the trace of their client, over a real socket.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tonic::{Code, Request};

use crate::channel::{code, embed_client, run, text};
use crate::collector::{Collector, Manner, attribute};
use crate::daemon::Daemon;
use crate::spans::{PARENT, TRACE, family, hex};

/// The request as one of a traced client.
fn traced<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    let parent = format!("00-{TRACE}-{PARENT}-01").parse().expect("ASCII");
    request.metadata_mut().insert("traceparent", parent);
    request
}

fn says(span: &Span, keys: [&str; 3]) -> [String; 3] {
    keys.map(|key| attribute(span, key).unwrap_or_default())
}

const KEYS: [&str; 3] = ["rpc.grpc.status_code", "error.type", "forebay.texts"];

#[test]
fn calls_and_streams_are_found_in_the_trace_of_their_client() {
    let collector = Collector::start(Manner::Takes);
    let daemon = Daemon::start(&collector.settings("grpc", "sample_ratio = 0.0"));
    run(async {
        let mut client = embed_client(&daemon).await;
        client.embed(traced(text("w1"))).await.expect("an answer");
        let texts = tokio_stream::iter((0..100).map(|nth| text(&format!("w{nth}"))));
        let answers = client.embed_stream(traced(texts)).await.expect("begins");
        let mut answers = answers.into_inner();
        while answers.message().await.expect("an answer").is_some() {}
        assert_eq!(code(client.embed(traced(text(""))).await), Code::InvalidArgument);
        let texts = tokio_stream::iter([text("w1"), text(""), text("w2")]);
        let answers = client.embed_stream(traced(texts)).await.expect("begins");
        let mut answers = answers.into_inner();
        answers.message().await.expect("an answer").expect("of the first");
        assert_eq!(code(answers.message().await), Code::InvalidArgument);
    });
    daemon.stop();
    let spans = collector.rest();
    let mut families: Vec<Vec<Span>> = Vec::new();
    for span in spans {
        if hex(&span.parent_span_id) == PARENT {
            families.push(vec![span]);
        } else {
            families.last_mut().expect("its parent came first").push(span);
        }
    }
    let expected = [
        ("tei.v1.Embed/Embed", ["0", "", "1"]),
        ("tei.v1.Embed/EmbedStream", ["0", "", "100"]),
        ("tei.v1.Embed/Embed", ["3", "empty_input", "0"]),
        ("tei.v1.Embed/EmbedStream", ["3", "empty_input", "1"]),
    ];
    assert_eq!(families.len(), expected.len(), "{families:?}");
    for (spans, (name, said)) in families.iter().zip(expected) {
        let (server, children) = family(spans);
        assert_eq!((hex(&server.trace_id).as_str(), server.name.as_str()), (TRACE, name));
        assert_eq!(says(server, KEYS), said.map(str::to_owned), "{server:?}");
        assert_eq!(attribute(server, "rpc.system").as_deref(), Some("grpc"));
        let failed = server.status.as_ref().is_some_and(|s| s.code() == StatusCode::Error);
        assert!(!failed, "what a client did wrong is no error of the server");
        assert_eq!(children.is_empty(), said[2] == "0");
        let class = attribute(server, "forebay.priority");
        assert_eq!(class.as_deref(), (said[2] != "0").then_some("interactive"), "{server:?}");
    }
}
