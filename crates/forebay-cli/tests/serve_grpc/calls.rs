//! Calls of one message.

use forebay_server::grpc::tei;
use forebay_server::grpc::tei::info_client::InfoClient;
use forebay_server::grpc::tei::tokenize_client::TokenizeClient;
use serde_json::json;
use tonic::Code;

use crate::channel::{call_raw, code, connect, embed_client, run, text};
use crate::client::vector;
use crate::daemon::Daemon;
use crate::support::script::Script;
use crate::support::tiny::{BAD_ID, BAD_WORD, TOKENS_MAX, WIDTH, expected, ids};

#[test]
fn an_embedding_is_that_of_http_with_what_it_took() {
    let daemon = Daemon::start("");
    let over_http = vector(&daemon.connect().embed("w1 w2").expect("answers"));
    run(async {
        let mut client = embed_client(&daemon).await;
        let mut request = tonic::Request::new(text("w1 w2"));
        request.metadata_mut().insert("x-request-id", "mine-7".parse().expect("a header"));
        let answer = client.embed(request).await.expect("answers");
        let number = |name: &str| {
            let value = answer.metadata().get(name).unwrap_or_else(|| panic!("no {name}"));
            value.to_str().expect("text").parse::<u64>().expect("a number")
        };
        assert_eq!(answer.metadata().get("x-request-id").expect("an id"), "mine-7");
        assert_eq!(answer.metadata().get("x-embed-level").expect("a level"), "cpu");
        assert_eq!(answer.metadata().get("x-compute-type").expect("a type"), "cpu+optimized");
        assert_eq!(number("x-compute-characters"), 5);
        assert_eq!(number("x-compute-tokens"), ids("w1 w2").len() as u64);
        let total_ms = number("x-total-time");
        let answer = answer.into_inner();
        assert_eq!(answer.vector(), over_http);
        assert_eq!(answer.vector(), expected("w1 w2"));
        let took = answer.metadata.expect("metadata");
        assert_eq!((took.compute_chars, took.compute_tokens as usize), (5, ids("w1 w2").len()));
        let parts = took.tokenization_time_ns + took.queue_time_ns + took.inference_time_ns;
        assert!(took.inference_time_ns >= 500_000, "the worker takes half a millisecond: {took:?}");
        assert!(parts <= took.total_time_ns, "{took:?}");
        assert!(total_ms <= took.total_time_ns / 1_000_000 + 1, "{total_ms} {took:?}");
    });
    daemon.stop();
}

#[test]
fn options_do_what_they_say() {
    let daemon = Daemon::start("");
    let words: Vec<String> = (0..TOKENS_MAX + 8).map(|word| format!("w{word}")).collect();
    let long = words.join(" ");
    let kept = TOKENS_MAX - 2;
    let (first, last) = (words[..kept].join(" "), words[words.len() - kept..].join(" "));
    run(async {
        let mut client = embed_client(&daemon).await;
        let cut = tei::EmbedRequest { truncate: true, ..text(&long) };
        let answer = client.embed(cut.clone()).await.expect("answers").into_inner();
        assert_eq!(answer.vector(), expected(&first));
        let left = tei::TruncationDirection::Left.into();
        let cut = tei::EmbedRequest { truncation_direction: left, ..cut };
        let answer = client.embed(cut).await.expect("answers").into_inner();
        assert_eq!(answer.vector(), expected(&last));
        let whole = client.embed(text(&long)).await;
        assert_eq!(code(whole), Code::InvalidArgument, "`truncate` is false if it is left out");

        let length = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
        let plain = tei::EmbedRequest { normalize: false, ..text("w1 w2") };
        let plain = client.embed(plain).await.expect("answers").into_inner().vector();
        assert!((length(&plain) - 1.0).abs() > 0.01, "`normalize` is false if it is left out");
        let few = tei::EmbedRequest { dimensions: Some(5), ..text("w1 w2") };
        let few = client.embed(few).await.expect("answers").into_inner().vector();
        assert_eq!(few.len(), 5);
        assert!((length(&few) - 1.0).abs() < 1e-6);
        for wrong in [
            tei::EmbedRequest { dimensions: Some(0), ..text("w1") },
            tei::EmbedRequest { dimensions: Some(WIDTH as u32 + 1), ..text("w1") },
            tei::EmbedRequest { prompt_name: Some("query".to_owned()), ..text("w1") },
            tei::EmbedRequest { truncation_direction: 2, ..text("w1") },
            text(""),
        ] {
            assert_eq!(code(client.embed(wrong).await), Code::InvalidArgument);
        }
    });
    daemon.stop();
}

#[test]
fn info_tokens_and_texts_are_those_of_http() {
    let daemon = Daemon::start("");
    let info = daemon.connect().get("/info").expect("answers").json();
    run(async {
        let channel = connect(&daemon.socket()).await;
        let found = InfoClient::new(channel.clone()).info(tei::InfoRequest {}).await;
        let found = found.expect("answers").into_inner();
        assert_eq!(found.model_type(), tei::ModelType::Embedding);
        assert_eq!(json!(found.model_id), info["model_id"]);
        assert_eq!(json!(found.model_sha), info["model_sha"]);
        assert_eq!(json!(found.version), info["version"]);
        assert_eq!(json!(found.model_dtype), info["model_dtype"]);
        assert_eq!(json!(found.max_input_length), info["max_input_length"]);
        assert_eq!(json!(found.max_batch_tokens), info["max_batch_tokens"]);
        assert_eq!(json!(found.max_batch_requests), info["max_batch_requests"]);
        assert_eq!(json!(found.max_concurrent_requests), info["max_concurrent_requests"]);
        assert_eq!(json!(found.max_client_batch_size), info["max_client_batch_size"]);
        assert_eq!(json!(found.tokenization_workers), info["tokenization_workers"]);

        let mut client = TokenizeClient::new(channel);
        let encode = |text: &str, special| tei::EncodeRequest {
            inputs: text.to_owned(),
            add_special_tokens: special,
            prompt_name: None,
        };
        let tokens = client.tokenize(encode("w7 w12", true)).await.expect("answers").into_inner();
        let found: Vec<u32> = tokens.tokens.iter().map(|token| token.id).collect();
        assert_eq!(found, ids("w7 w12"));
        let second = &tokens.tokens[2];
        assert_eq!((second.text.as_str(), second.start, second.stop), ("w12", Some(3), Some(6)));
        assert!(tokens.tokens[0].special && tokens.tokens[0].start.is_none());
        let plain = client.tokenize(encode("w7 w12", false)).await.expect("answers").into_inner();
        assert_eq!(plain.tokens.len(), 2);
        assert_eq!(code(client.tokenize(encode("", true)).await), Code::InvalidArgument);

        let many: Vec<tei::EncodeRequest> =
            (0..50).map(|number| encode(&format!("w{number}"), false)).collect();
        let answers = client.tokenize_stream(tokio_stream::iter(many)).await.expect("answers");
        let mut answers = answers.into_inner();
        for number in 0..50 {
            let answer = answers.message().await.expect("answers").expect("one each");
            assert_eq!(answer.tokens[0].text, format!("w{number}"));
        }
        assert!(answers.message().await.expect("ends").is_none());

        let decode = |ids: Vec<u32>| tei::DecodeRequest { ids, skip_special_tokens: true };
        let text = client.decode(decode(found.clone())).await.expect("answers").into_inner().text;
        assert!(text.contains("w7") && text.contains("w12"), "{text}");
        assert_eq!(code(client.decode(decode(vec![1 << 30])).await), Code::InvalidArgument);
        assert_eq!(code(client.decode(decode(Vec::new())).await), Code::InvalidArgument);
        let lists = [decode(found), decode(vec![1 << 30]), decode(ids("w1"))];
        let answers = client.decode_stream(tokio_stream::iter(lists)).await.expect("answers");
        let mut answers = answers.into_inner();
        assert_eq!(answers.message().await.expect("answers").expect("the first").text, text);
        assert_eq!(code(answers.message().await), Code::InvalidArgument);
        assert!(answers.message().await.expect("ends").is_none(), "nothing comes behind an error");
    });
    daemon.stop();
}

#[test]
fn what_the_model_has_not_and_what_nobody_has_is_refused_with_the_reason() {
    let daemon = Daemon::start("");
    run(async {
        let channel = connect(&daemon.socket()).await;
        for (path, reason) in [
            ("/tei.v1.Embed/EmbedSparse", "SPLADE"),
            ("/tei.v1.Embed/EmbedSparseStream", "SPLADE"),
            ("/tei.v1.Embed/EmbedAll", "single tokens"),
            ("/tei.v1.Embed/EmbedAllStream", "single tokens"),
            ("/tei.v1.Predict/Predict", "classifier"),
            ("/tei.v1.Predict/PredictPair", "classifier"),
            ("/tei.v1.Predict/PredictStream", "classifier"),
            ("/tei.v1.Predict/PredictPairStream", "classifier"),
            ("/tei.v1.Rerank/Rerank", "re-ranker"),
            ("/tei.v1.Rerank/RerankStream", "re-ranker"),
        ] {
            let status = call_raw(&channel, path, b"", None).await.expect_err("refused");
            assert_eq!(status.code(), Code::FailedPrecondition, "{path}: {status}");
            assert!(status.message().contains(reason), "{path}: {status}");
        }
        for path in ["/tei.v1.Embed/EmbedRaw", "/tei.v2.Embed/Embed", "/embed", "/a.B/C"] {
            let status = call_raw(&channel, path, b"", None).await.expect_err("refused");
            assert_eq!(status.code(), Code::Unimplemented, "{path}: {status}");
        }
        // No message of protobuf.
        let status = call_raw(&channel, "/tei.v1.Embed/Embed", b"\xff\xff", None).await;
        assert_eq!(code(status), Code::Internal);
    });
    assert_eq!(daemon.metric("forebay_grpc_statuses_total", "FAILED_PRECONDITION"), 10.0);
    assert_eq!(daemon.metric("forebay_grpc_statuses_total", "UNIMPLEMENTED"), 4.0);
    let predict = daemon.metric("forebay_http_requests_total", "tei.v1.Predict/PredictPair\"");
    assert_eq!(predict, 1.0);
    daemon.stop();
}

#[test]
fn each_failure_has_its_code() {
    // What comes first belongs to the last group that every daemon has, [admission].
    let daemon = Daemon::start(
        "interactive_requests_max = 1\n[limits]\nbody_bytes_max = 1024\nrequest_ms = 4000",
    );
    run(async {
        let mut client = embed_client(&daemon).await;
        // Too large for a message.
        let large = client.embed(text(&"w1 ".repeat(600))).await;
        assert_eq!(code(large), Code::OutOfRange);
        // Nobody computes: the one place is taken until the deadline.
        let hold = daemon.model.hold();
        let mut other = client.clone();
        let waiting = tokio::spawn(async move { other.embed(text("w1")).await });
        while daemon.status()["runtime"]["queues"][1]["under_way"] != 1 {
            tokio::task::yield_now().await;
        }
        let status = client.embed(text("w2")).await.expect_err("no room");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let wait: u64 = {
            let value = status.metadata().get("retry-after").expect("a hint");
            value.to_str().expect("text").parse().expect("seconds")
        };
        assert!(wait >= 1 && !status.details().is_empty());
        assert_eq!(code(waiting.await.expect("no panic")), Code::DeadlineExceeded);
        drop(hold);
        let mut request = tonic::Request::new(text("w1"));
        request.metadata_mut().insert("grpc-timeout", "soon".parse().expect("a header"));
        assert_eq!(code(client.embed(request).await), Code::InvalidArgument);
    });
    daemon.stop();
}

#[test]
fn a_text_that_the_engine_refuses_is_a_failed_precondition() {
    let daemon = Daemon::start("");
    daemon.model.script(&Script { refuse_on: vec![BAD_ID], ..Script::default() });
    let pid = daemon.model.pids()[0];
    crate::support::kill(pid, rustix::process::Signal::KILL);
    run(async {
        let mut client = embed_client(&daemon).await;
        let answered = client.embed(text(BAD_WORD)).await;
        assert_eq!(code(answered), Code::FailedPrecondition);
        let answer = client.embed(text("w5")).await.expect("answers").into_inner();
        assert_eq!(answer.vector(), expected("w5"));
    });
    daemon.stop();
}
