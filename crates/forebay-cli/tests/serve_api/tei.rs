//! The routes of text-embeddings-inference: what they give.

use serde_json::{Value, json};

use crate::client::{Daemon, assert_near, cut, vector};
use crate::support::tiny::{TOKENS_MAX, expected, ids};

fn rows(answer: &Value) -> Vec<Vec<f32>> {
    answer.as_array().expect("a list").iter().map(vector).collect()
}

#[test]
fn embed_gives_a_list_of_vectors_whatever_came() {
    let daemon = Daemon::start();
    let cases = [
        (json!("w1"), vec!["w1"]),
        (json!(["w1", "w2 w3"]), vec!["w1", "w2 w3"]),
        (json!(ids("w4")), vec!["w4"]),
        (json!([ids("w4"), ids("w5")]), vec!["w4", "w5"]),
    ];
    for (inputs, texts) in cases {
        for path in ["/embed", "/", "/invocations"] {
            let answer = daemon.posted(path, &json!({"inputs": inputs}));
            assert_eq!(rows(&answer), texts.iter().map(|text| expected(text)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_took_how_long_stands_in_the_headers() {
    let daemon = Daemon::start();
    let answer = daemon.post("/embed", &json!({"inputs": ["w1 w2", "w3"]}));
    assert_eq!(answer.header("x-compute-type"), "cpu+optimized");
    assert_eq!(answer.number("x-compute-characters"), 7);
    assert_eq!(answer.number("x-compute-tokens"), (ids("w1 w2").len() + ids("w3").len()) as u64);
    assert_eq!(answer.number("x-compute-time"), answer.number("x-total-time"));
    let parts = ["x-tokenization-time", "x-queue-time", "x-inference-time"];
    for name in parts {
        assert!(answer.number(name) <= answer.number("x-total-time"), "{name}: {answer}");
    }
    answer.assert_marked("cpu");
}

#[test]
fn every_route_that_embeds_says_what_it_took() {
    let daemon = Daemon::start();
    for (path, request) in [
        ("/embed", json!({"inputs": "w1"})),
        ("/", json!({"inputs": "w1"})),
        ("/invocations", json!({"inputs": "w1"})),
        ("/similarity", json!({"inputs": {"source_sentence": "w1", "sentences": ["w2"]}})),
        ("/vertex", json!({"instances": [{"inputs": "w1"}]})),
        ("/v1/embeddings", json!({"input": "w1"})),
        ("/embeddings", json!({"input": "w1"})),
    ] {
        let answer = daemon.post(path, &request);
        assert_eq!(answer.status, 200, "{path}: {answer}");
        assert_eq!(answer.header("x-compute-type"), "cpu+optimized", "{path}");
        assert!(answer.number("x-compute-tokens") >= 3, "{path}: {answer}");
        assert!(answer.number("x-compute-characters") >= 2, "{path}: {answer}");
        for time in ["compute", "total", "tokenization", "queue", "inference"] {
            // Whole milliseconds: a number, and no more than the whole.
            let time = answer.number(&format!("x-{time}-time"));
            assert!(time <= answer.number("x-total-time"), "{path}: {answer}");
        }
    }
}

#[test]
fn a_slow_worker_shows_as_inference_time() {
    use crate::support::script::Script;
    use crate::support::tiny::TinyModel;
    let slow = Script { delay_us: 60_000, ..Script::default() };
    let daemon = Daemon::with(TinyModel::scripted(&slow), |_| {});
    let answer = daemon.post("/embed", &json!({"inputs": "w1"}));
    assert!(answer.number("x-inference-time") >= 60, "{answer}");
    assert!(answer.number("x-total-time") >= answer.number("x-inference-time"), "{answer}");
}

#[test]
fn options_of_embed_do_what_they_say() {
    let daemon = Daemon::start();
    let one = |more: Value| {
        let mut request = json!({"inputs": "w1 w2"});
        request
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        vector(&daemon.posted("/embed", &request)[0])
    };
    assert_near(&one(json!({"dimensions": 5})), &cut(&expected("w1 w2"), 5));
    let plain = one(json!({"normalize": false}));
    let length = plain.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.01, "it had a length of its own: {length}");
    let unit: Vec<f32> = plain.iter().map(|value| value / length).collect();
    assert_near(&unit, &expected("w1 w2"));
    // As that server does, fields that it does not know are ignored.
    assert_eq!(one(json!({"prompt_name": null, "novel": 1})), expected("w1 w2"));
}

#[test]
fn texts_are_cut_from_the_end_that_is_asked_for() {
    let daemon = Daemon::start();
    let words: Vec<String> = (0..TOKENS_MAX + 8).map(|word| format!("w{word}")).collect();
    let kept = TOKENS_MAX - 2;
    let (first, last) = (words[..kept].join(" "), words[words.len() - kept..].join(" "));
    let of = |direction: Value| {
        let request = json!({"inputs": words.join(" "), "truncate": true,
                             "truncation_direction": direction});
        vector(&daemon.posted("/embed", &request)[0])
    };
    for right in ["Right", "right"] {
        assert_eq!(of(json!(right)), expected(&first));
    }
    for left in ["Left", "left"] {
        assert_eq!(of(json!(left)), expected(&last));
    }
}

#[test]
fn similarity_is_the_cosine() {
    let daemon = Daemon::start();
    let inputs = json!({"source_sentence": "w1 w2", "sentences": ["w1 w2", "w3", "w9 w8"]});
    let answer = daemon.post("/similarity", &json!({"inputs": inputs, "parameters": null}));
    let source = expected("w1 w2");
    let cosine = |text: &str| source.iter().zip(expected(text)).map(|(a, b)| a * b).sum::<f32>();
    assert_near(&vector(&answer.json()), &[1.0, cosine("w3"), cosine("w9 w8")]);
    assert!(answer.number("x-compute-tokens") > 0);
    let parameters = json!({"truncate": true, "truncation_direction": "left"});
    daemon.posted("/similarity", &json!({"inputs": inputs, "parameters": parameters}));
}

#[test]
fn vertex_keeps_each_request_apart() {
    let daemon = Daemon::start();
    let instances = json!([{"inputs": "w1"}, {"inputs": ["w2", "w3"], "dimensions": 3}]);
    let answer = daemon.posted("/vertex", &json!({"instances": instances}));
    let predictions = answer["predictions"].as_array().expect("a list");
    assert_eq!(rows(&predictions[0]), [expected("w1")]);
    for (row, text) in rows(&predictions[1]).iter().zip(["w2", "w3"]) {
        assert_near(row, &cut(&expected(text), 3));
    }
    assert_eq!((predictions.len(), rows(&predictions[1]).len()), (2, 2));
}

#[test]
fn vertex_takes_more_requests_than_have_room_at_once() {
    use crate::support::tiny::TinyModel;
    let daemon = Daemon::with(TinyModel::new(), |config| {
        config.admission.interactive_requests_max = 8;
    });
    let instances: Vec<Value> = (0..50).map(|n| json!({"inputs": format!("w{n}")})).collect();
    let answer = daemon.posted("/vertex", &json!({"instances": instances}));
    let predictions = answer["predictions"].as_array().expect("a list");
    assert_eq!(predictions.len(), 50);
    assert_eq!(rows(&predictions[49]), [expected("w49")]);
    let wrong = json!({"instances": [{"inputs": "w1"}, {"inputs": "w1", "dimensions": 99_999}]});
    let answer = daemon.post("/vertex", &wrong);
    assert!(answer.to_string().contains("instance number 1"), "{answer}");
}

#[test]
fn tokens_have_their_places_and_lead_back() {
    let daemon = Daemon::start();
    let answer = daemon.posted("/tokenize", &json!({"inputs": "w7 w12"}));
    let tokens = answer[0].as_array().expect("a list");
    let found: Vec<u64> = tokens.iter().map(|token| token["id"].as_u64().expect("an id")).collect();
    assert_eq!(found, ids("w7 w12").into_iter().map(u64::from).collect::<Vec<_>>());
    let second =
        json!({"id": ids("w12")[1], "text": "w12", "special": false, "start": 3, "stop": 6});
    assert_eq!(tokens[2], second);
    assert_eq!((&tokens[0]["special"], &tokens[0]["start"]), (&json!(true), &Value::Null));
    let plain = json!({"inputs": ["w7", "w12 w1"], "add_special_tokens": false});
    let plain = daemon.posted("/tokenize", &plain);
    let lengths: Vec<usize> = plain
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| l.as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(lengths, [1, 2]);
    let own = json!({"ids": &ids("w7 w12")[1..3]});
    assert_eq!(daemon.posted("/decode", &own), json!(["w7 w12"]));
    // What frames a text is left out, though this tokenizer.json lists no special tokens.
    let framed = json!({"ids": [ids("w7"), ids("w1 w2"), [2, 3]]});
    assert_eq!(daemon.posted("/decode", &framed), json!(["w7", "w1 w2", ""]));
    let several = json!({"ids": [ids("w7"), ids("w1")], "skip_special_tokens": false});
    let texts = daemon.posted("/decode", &several);
    assert_eq!(texts, json!(["[CLS] w7 [SEP]", "[CLS] w1 [SEP]"]));
}

#[test]
fn info_says_what_is_served() {
    let daemon = Daemon::start();
    let info = daemon.get("/info").json();
    assert_eq!(info["model_id"], daemon.model_name());
    assert_eq!(info["served_model_name"], daemon.model_name());
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "mean"}}));
    assert_eq!(info["model_dtype"], "float32");
    assert_eq!(info["max_input_length"], TOKENS_MAX);
    assert_eq!(info["max_client_batch_size"], 2048);
    assert_eq!((&info["auto_truncate"], &info["tokenization_workers"]), (&json!(true), &json!(1)));
    for key in ["max_concurrent_requests", "max_batch_tokens", "max_batch_requests"] {
        assert!(info[key].as_u64().is_some_and(|number| number > 0), "{key}: {info}");
    }
    for key in ["model_sha", "version", "sha", "docker_label"] {
        assert!(info.get(key).is_some(), "{key}: {info}");
    }
}

#[test]
fn health_is_well_while_a_worker_serves() {
    let daemon = Daemon::start();
    for path in ["/health", "/ping", "/"] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json()["level"], "cpu");
    }
}
