//! The routes of text-embeddings-inference: what they refuse, with which status and words.

use serde_json::{Value, json};

use crate::client::{Answer, Daemon};
use crate::support::eventually;
use crate::support::tiny::{TOKENS_MAX, TinyModel};

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
            json!({"inputs": {"source_sentence": "w1", "sentences": ["w1"]},
                   "parameters": {"prompt_name": "query"}}),
            422,
            "Validation",
        ),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "w1", "sentences": "w1"}}),
            422,
            "Validation",
        ),
        ("/decode", json!({"ids": [7, "w1"]}), 422, "Validation"),
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
    use crate::support::tiny::BAD_ID;
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
    use crate::support::tiny::BAD_ID;
    let script = Script { die_on: vec![BAD_ID], ..Script::default() };
    let daemon = Daemon::with(TinyModel::scripted(&script), |_| {});
    let answer = daemon.post("/v1/embeddings", &json!({"input": "bad"}));
    assert_eq!(answer.status, 422, "clients send requests again after 5xx: {answer}");
    assert_eq!(answer.json()["error"]["code"], "poison_input");
    let answer = daemon.post("/embed", &json!({"inputs": "bad"}));
    assert_eq!((answer.status.as_u16(), &answer.json()["error_type"]), (424, &json!("Backend")));
}

#[test]
fn empty_input_and_too_many_texts_are_named_as_clients_know_them() {
    let daemon = Daemon::with(TinyModel::new(), |config| config.limits.texts_per_request_max = 3);
    let too_many = "batch size 4 > maximum allowed batch size 3";
    let four = json!(["w1", "w2", "w3", "w4"]);
    for (path, request) in [
        ("/embed", json!({"inputs": four})),
        ("/", json!({"inputs": four})),
        ("/invocations", json!({"inputs": four})),
        ("/tokenize", json!({"inputs": four})),
        ("/decode", json!({"ids": [[5], [5], [5], [5]]})),
        ("/vertex", json!({"instances": vec![json!({"inputs": "w1"}); 4]})),
        ("/vertex", json!({"instances": [{"inputs": four}]})),
    ] {
        assert_error(&daemon.post(path, &request), 422, "Validation", too_many);
    }
    for (path, request, words) in [
        ("/", json!({"inputs": ""}), "`inputs` cannot be empty"),
        ("/invocations", json!({"inputs": []}), "`inputs` cannot be empty"),
        ("/tokenize", json!({"inputs": ""}), "`inputs` cannot be empty"),
        ("/decode", json!({"ids": []}), "`ids` cannot be empty"),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "w1", "sentences": []}}),
            "`inputs.sentences` cannot be empty",
        ),
    ] {
        assert_error(&daemon.post(path, &request), 400, "Empty", words);
    }
    assert_eq!(daemon.get("/info").json()["max_client_batch_size"], 3);
}

#[test]
fn a_full_gate_is_an_overloaded_model() {
    let daemon = Daemon::with(TinyModel::new(), |config| {
        config.admission.interactive_requests_max = 1;
    });
    let hold = daemon.model.hold();
    let first = daemon.begin("/embed", &json!({"inputs": "w1"}));
    eventually("it waits", || (daemon.under_way() == 1).then_some(()));
    for (path, request) in [
        ("/embed", json!({"inputs": "w2"})),
        ("/", json!({"inputs": ["w2", "w3"]})),
        ("/vertex", json!({"instances": [{"inputs": "w2"}]})),
        ("/similarity", json!({"inputs": {"source_sentence": "w1", "sentences": ["w1"]}})),
    ] {
        let answer = daemon.post(path, &request);
        assert_error(&answer, 429, "Overloaded", "Model is overloaded");
        assert!(answer.number("retry-after") >= 1);
    }
    drop(hold);
    assert_eq!(daemon.executor.block_on(first).expect("it ends").status, 200);
}

#[test]
fn whether_texts_are_cut_is_as_configured_unless_a_request_says_so() {
    let daemon = Daemon::with(TinyModel::new(), |config| config.tokenize.truncate = false);
    let long = vec!["w1"; TOKENS_MAX].join(" ");
    let words = "`inputs` must have less than";
    assert_error(&daemon.post("/embed", &json!({"inputs": long})), 422, "Validation", words);
    let null = json!({"inputs": long, "truncate": null});
    assert_error(&daemon.post("/embed", &null), 422, "Validation", words);
    daemon.posted("/embed", &json!({"inputs": long, "truncate": true}));
    let inputs = json!({"source_sentence": "w1", "sentences": [long]});
    assert_error(&daemon.post("/similarity", &json!({"inputs": inputs})), 422, "Validation", words);
    daemon.posted("/similarity", &json!({"inputs": inputs, "parameters": {"truncate": true}}));
    assert_eq!(daemon.get("/info").json()["auto_truncate"], false);
}

#[test]
fn texts_that_cannot_be_made_into_tokens_are_refused() {
    let model = TinyModel::new();
    // Everything is w1 but a z, which is unknown, and nothing stands for what is unknown. The
    // texts that the service computes to check its workers have no z.
    let file = model.file("tokenizer.json");
    let text = std::fs::read_to_string(&file).expect("its tokenizer");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
    let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    vocab.remove("[UNK]");
    tokenizer["normalizer"] =
        json!({"type": "Replace", "pattern": {"Regex": "[^z]+"}, "content": "w1"});
    model.json("tokenizer.json", &tokenizer);
    let daemon = Daemon::with(model, |config| config.tokenize.text_bytes_max = 1_000);
    let unknown = json!({"inputs": "z"});
    for path in ["/embed", "/tokenize"] {
        assert_error(&daemon.post(path, &unknown), 422, "Tokenizer", "cannot be tokenized");
    }
    let large = json!({"inputs": "w1 ".repeat(500)});
    assert_error(&daemon.post("/embed", &large), 422, "Validation", "1000");
    daemon.posted("/embed", &json!({"inputs": "w1"}));
}
