//! The guards are those of HTTP; what they say is a status.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::channel::{call_raw, code, connect, run};
use crate::daemon::Daemon;

const METHODS: [&str; 25] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/tei.v1.Embed/Embed",
    "/tei.v1.Embed/EmbedAll",
    "/tei.v1.Embed/EmbedAllStream",
    "/tei.v1.Embed/EmbedSparse",
    "/tei.v1.Embed/EmbedSparseStream",
    "/tei.v1.Embed/EmbedStream",
    "/tei.v1.Info/Info",
    "/tei.v1.Predict/Predict",
    "/tei.v1.Predict/PredictPair",
    "/tei.v1.Predict/PredictPairStream",
    "/tei.v1.Predict/PredictStream",
    "/tei.v1.Rerank/Rerank",
    "/tei.v1.Rerank/RerankStream",
    "/tei.v1.Tokenize/Decode",
    "/tei.v1.Tokenize/DecodeStream",
    "/tei.v1.Tokenize/Tokenize",
    "/tei.v1.Tokenize/TokenizeStream",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Check/",
    "/grpc.health.v1.Health",
    "/tei.v1.Nothing/Nothing",
    "/embed",
    "/livez",
];

const PUBLIC: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];

#[test]
fn without_a_key_nothing_but_the_health_is_told() {
    let sum = Sha256::digest("two").iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    });
    let daemon = Daemon::start(&format!("[auth]\nkey_hashes = ['{sum}']"));
    run(async {
        let channel = connect(&daemon.socket()).await;
        for path in METHODS {
            for key in [None, Some("three")] {
                let status = call_raw(&channel, path, b"", key).await.expect_err("refused");
                assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
                assert!(status.metadata().get("x-request-id").is_some(), "{path}");
                assert_eq!(status.metadata().get("x-embed-level").expect("a level"), "cpu");
            }
            let known = call_raw(&channel, path, b"", Some("two")).await;
            let refused = known.err().is_some_and(|status| status.code() == Code::Unauthenticated);
            assert!(!refused, "{path}");
        }
        for path in PUBLIC {
            let answer = call_raw(&channel, path, b"", None).await.expect("answers");
            // The one field, SERVING.
            assert_eq!(answer.as_deref(), Some(&[8, 1][..]), "{path}");
        }
    });
    // A page that is no gRPC gets what every page gets, also from the health of gRPC.
    for path in PUBLIC {
        let answer = daemon.connect().send("POST", path, &[], "").expect("answers");
        assert_eq!((answer.status, &answer.json()["error_type"]), (401, &"Validation".into()));
    }
    daemon.stop();
}

#[test]
fn what_is_no_grpc_is_not_taken_for_it() {
    let daemon = Daemon::start("");
    let send = |method: &str, kind: &str| {
        let headers = [("content-type", kind)];
        let mut connection = daemon.connect();
        connection.send(method, "/tei.v1.Embed/Embed", &headers, "").expect("answers")
    };
    for kind in ["application/json", "text/plain", "application/grpc-web+proto"] {
        let answer = send("POST", kind);
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.text().contains("application/grpc"), "{}", answer.text());
    }
    assert_eq!(send("GET", "text/plain").status, 405);
    // HTTP/1 has no place for the status behind an answer.
    let answer = send("POST", "application/grpc");
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("12")));
    assert!(answer.header("grpc-message").expect("a message").contains("HTTP/2"));
    daemon.stop();
}

#[test]
fn a_name_of_others_is_refused_with_a_status() {
    let daemon = Daemon::start_tcp("");
    let address = daemon.tcp_address();
    run(async {
        let channel = |origin: &'static str| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
            let endpoint = endpoint.origin(origin.parse().expect("an origin"));
            async move { endpoint.connect().await.expect("connects") }
        };
        let (path, localhost) = ("/tei.v1.Info/Info", channel("http://localhost").await);
        call_raw(&localhost, path, b"", None).await.expect("answers");
        let rebound = channel("http://rebound.example").await;
        assert_eq!(code(call_raw(&rebound, path, b"", None).await), Code::PermissionDenied);
    });
    daemon.stop();
}
