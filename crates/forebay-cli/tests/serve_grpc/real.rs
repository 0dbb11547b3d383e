//! The real model on the CPU: what gRPC gives is what HTTP gives, bit for bit.

use std::process::Stdio;

use serde_json::json;
use tonic::Code;

use crate::channel::{code, connect, run, text};
use crate::client::{Connection, vector};
use crate::support::{eventually, exit_code, forebay, kill, real_library, real_model};
use forebay_server::grpc::tei::EmbedRequest;
use forebay_server::grpc::tei::embed_client::EmbedClient;

const TEXTS: [&str; 6] = [
    "brake pressure low on axle two",
    "a",
    "Der Geber am linken Vorderrad antwortet nicht.",
    "温度センサーの値が範囲外です",
    "the quick brown fox jumps over the lazy dog, twice, and is not seen again until the evening",
    "0x1F 42 -7.5e3 \u{1F680}",
];

#[test]
fn vectors_are_those_of_http_to_the_bit() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let socket = folder.path().join("forebay.sock");
    let (path, model) = (socket.display().to_string(), real_model().display().to_string());
    let mut command = forebay(&["serve", "--socket", &path, "--model", &model]);
    let command = command.env("FOREBAY_ONNXRUNTIME", real_library());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let mut http = eventually("the daemon", || Connection::unix(&socket).ok());
    eventually("a rung", || (http.get("/readyz").expect("answers").status == 200).then_some(()));
    run(async {
        let mut client = EmbedClient::new(connect(&socket).await);
        let bits = |row: Vec<f32>| row.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        // Texts alone: what they share a batch with is not for this test.
        for words in TEXTS {
            for normalize in [true, false] {
                let body = json!({"inputs": words, "normalize": normalize});
                let expected = vector(&http.post("/embed", &body).expect("answers"));
                assert_eq!(expected.len(), 384);
                let request = EmbedRequest { normalize, ..text(words) };
                let answer = client.embed(request.clone()).await.expect("answers").into_inner();
                assert_eq!(bits(answer.vector()), bits(expected.clone()), "{words}");
                let requests = tokio_stream::once(request);
                let answers = client.embed_stream(requests).await.expect("begins");
                let answer = answers.into_inner().message().await.expect("answers");
                let row = answer.expect("an answer").vector();
                assert_eq!(bits(row), bits(expected), "{words}");
            }
        }
        let long = EmbedRequest { truncate: false, ..text(&"word ".repeat(600)) };
        assert_eq!(code(client.embed(long).await), Code::InvalidArgument);
    });
    kill(child.id(), rustix::process::Signal::TERM);
    assert_eq!(exit_code(&mut child), Some(0));
}
