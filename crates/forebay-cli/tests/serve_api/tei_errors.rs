//! The routes of text-embeddings-inference: what they refuse, with which status and words.

use serde_json::{Value, json};

use crate::client::{Answer, Daemon};
use crate::support::tiny::TOKENS_MAX;

fn assert_error(answer: &Answer, status: u16, kind: &str, words: &str) {
    assert_eq!(answer.status, status, "{answer}");
    let body = answer.json();
    assert_eq!(body["error_type"], kind, "{body}");
    assert!(body["error"].as_str().is_some_and(|error| error.contains(words)), "{body}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(2), "{body}");
    answer.assert_marked("cpu");
}

#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let daemon = Daemon::start();
    let long = vec!["w1"; TOKENS_MAX + 3].join(" ");
    let tokens = TOKENS_MAX + 5;
    let too_long = format!("`inputs` must have less than {TOKENS_MAX} tokens. Given: {tokens}");
    let empty = "`inputs` cannot be empty";
    let embed = |request: Value| daemon.post("/embed", &request);
    assert_error(&embed(json!({"inputs": ""})), 400, "Empty", empty);
    assert_error(&embed(json!({"inputs": []})), 400, "Empty", empty);
    assert_error(&embed(json!({"inputs": ["w1", ""]})), 400, "Empty", empty);
    let refused = embed(json!({"inputs": long, "truncate": false}));
    assert_error(&refused, 422, "Validation", &too_long);
    let refused = embed(json!({"inputs": ["w1", long], "truncate": false}));
    assert_error(&refused, 422, "Validation", "(input number 1)");
    let refused = embed(json!({"inputs": vec!["w1"; 2049]}));
    assert_error(&refused, 422, "Validation", "batch size 2049 > maximum allowed batch size 2048");
    let refused = embed(json!({"inputs": "w1", "prompt_name": "query"}));
    assert_error(&refused, 422, "Validation", "no prompts");
    assert_error(&embed(json!({"inputs": "w1", "dimensions": 99})), 422, "Validation", "99");
    assert_error(&embed(json!({"inputs": 7})), 422, "Validation", "not understood");
    assert_error(&embed(json!({"input": "w1"})), 422, "Validation", "inputs");
    assert_error(&embed(json!({"inputs": "w1", "normalize": "no"})), 422, "Validation", "");
}

#[test]
fn the_other_routes_refuse_alike() {
    let daemon = Daemon::start();
    for (path, request, status, kind) in [
        ("/tokenize", json!({"inputs": ""}), 400, "Empty"),
        ("/tokenize", json!({"inputs": [""]}), 400, "Empty"),
        ("/tokenize", json!({"inputs": []}), 400, "Empty"),
        ("/tokenize", json!({"inputs": 1}), 422, "Validation"),
        ("/tokenize", json!({"inputs": "w1", "prompt_name": "p"}), 422, "Validation"),
        ("/decode", json!({"ids": []}), 400, "Empty"),
        ("/decode", json!({"ids": [[]]}), 400, "Empty"),
        ("/decode", json!({"ids": [1_000_000]}), 422, "Validation"),
        ("/decode", json!({"ids": "w1"}), 422, "Validation"),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "w1", "sentences": []}}),
            400,
            "Empty",
        ),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "", "sentences": ["w1"]}}),
            400,
            "Empty",
        ),
        ("/similarity", json!({"inputs": {"sentences": ["w1"]}}), 422, "Validation"),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "w1", "sentences": "w1"}}),
            422,
            "Validation",
        ),
        ("/vertex", json!({"instances": []}), 400, "Empty"),
        ("/vertex", json!({"instances": [{"inputs": ""}]}), 400, "Empty"),
        ("/vertex", json!({"instances": [{}]}), 422, "Validation"),
    ] {
        assert_error(&daemon.post(path, &request), status, kind, "");
    }
}

#[test]
fn routes_of_other_models_say_so() {
    let daemon = Daemon::start();
    for path in ["/embed_all", "/embed_sparse", "/predict", "/rerank"] {
        let answer = daemon.post(path, &json!({"inputs": "w1"}));
        assert_error(&answer, 424, "Backend", "one dense embedding per text");
    }
}

#[test]
fn a_text_that_the_engine_fails_is_a_backend_error() {
    use crate::support::script::Script;
    use crate::support::tiny::{BAD_ID, TinyModel};
    let script = Script { refuse_on: vec![BAD_ID], ..Script::default() };
    let daemon = Daemon::with(TinyModel::scripted(&script), |_| {});
    assert_error(&daemon.post("/embed", &json!({"inputs": "bad"})), 424, "Backend", "");
    // A request with such a text in it has no answer; its neighbours elsewhere are not concerned.
    let answer = daemon.post("/embed", &json!({"inputs": ["w1", "bad"]}));
    assert_error(&answer, 424, "Backend", "(input number 1)");
    let openai = daemon.post("/v1/embeddings", &json!({"input": "bad"}));
    assert_eq!(openai.status, 500, "{openai}");
    assert_eq!(openai.json()["error"]["type"], "server_error");
    daemon.posted("/embed", &json!({"inputs": "w1"}));
}

#[test]
fn a_text_that_ends_its_worker_is_not_to_be_sent_again() {
    use crate::support::script::Script;
    use crate::support::tiny::{BAD_ID, TinyModel};
    let script = Script { die_on: vec![BAD_ID], ..Script::default() };
    let daemon = Daemon::with(TinyModel::scripted(&script), |_| {});
    let answer = daemon.post("/v1/embeddings", &json!({"input": "bad"}));
    assert_eq!(answer.status, 422, "clients send requests again after 5xx: {answer}");
    assert_eq!(answer.json()["error"]["code"], "poison_input");
}
