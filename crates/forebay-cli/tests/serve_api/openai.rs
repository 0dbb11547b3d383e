//! OpenAI's routes.

use serde_json::{Value, json};

use crate::client::{Daemon, assert_near, cut, decoded, vector};
use crate::support::tiny::{TOKENS_MAX, WIDTH, expected, ids};

#[test]
fn every_shape_of_input_gives_its_vectors_in_order() {
    let daemon = Daemon::start();
    let cases = [
        (json!("w1"), vec!["w1"]),
        (json!(["w1", "w2 w3", "w1"]), vec!["w1", "w2 w3", "w1"]),
        (json!(ids("w4 w5")), vec!["w4 w5"]),
        (json!([ids("w4"), ids("w6 w7")]), vec!["w4", "w6 w7"]),
    ];
    for (input, texts) in cases {
        let request = json!({"input": input, "model": daemon.model_name()});
        let answer = daemon.posted("/v1/embeddings", &request);
        assert_eq!(answer["object"], "list");
        assert_eq!(answer["model"], daemon.model_name());
        let data = answer["data"].as_array().expect("a list");
        assert_eq!(data.len(), texts.len());
        for (place, (item, text)) in data.iter().zip(&texts).enumerate() {
            assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(place)));
            assert_eq!(vector(&item["embedding"]), expected(text), "{text}");
        }
        let tokens: usize = texts.iter().map(|text| ids(text).len()).sum();
        assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    }
}

#[test]
fn base64_and_numbers_are_the_same_values() {
    let daemon = Daemon::start();
    let request = |format: Value| json!({"input": ["w8", "w9 w1"], "encoding_format": format});
    let base64 = daemon.posted("/v1/embeddings", &request(json!("base64")));
    for format in [json!("float"), Value::Null] {
        let float = daemon.posted("/v1/embeddings", &request(format));
        for place in 0..2 {
            let (one, other) = (&base64["data"][place], &float["data"][place]);
            assert_eq!(decoded(&one["embedding"]), vector(&other["embedding"]));
            assert_eq!(one["index"], other["index"]);
        }
        assert_eq!(base64["usage"], float["usage"]);
    }
}

#[test]
fn dimensions_cut_and_scale_again() {
    let daemon = Daemon::start();
    for dimensions in [1, 7, WIDTH] {
        let request = json!({"input": "w1 w2", "dimensions": dimensions});
        let answer = daemon.posted("/v1/embeddings", &request);
        let found = vector(&answer["data"][0]["embedding"]);
        assert_near(&found, &cut(&expected("w1 w2"), dimensions));
    }
}

#[test]
fn optional_fields_and_the_alias_are_taken() {
    let daemon = Daemon::start();
    let name = daemon.model_name();
    for model in [json!(name), json!(format!("organisation/{name}")), Value::Null, json!("")] {
        let request = json!({"input": "w1", "model": model, "user": "u-1", "dimensions": null});
        for path in ["/v1/embeddings", "/embeddings"] {
            let answer = daemon.posted(path, &request);
            assert_eq!(vector(&answer["data"][0]["embedding"]), expected("w1"));
        }
    }
}

#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let daemon = Daemon::start();
    let many = vec!["w1"; 2049];
    let long = vec!["w1"; TOKENS_MAX + 1].join(" ");
    let too_many_ids = vec![5; TOKENS_MAX + 1];
    let cases = [
        (json!({"input": ""}), 400, "empty_input", json!("input")),
        (json!({"input": []}), 400, "empty_input", json!("input")),
        (json!({"input": ["w1", ""]}), 400, "empty_input", json!("input")),
        (json!({"input": [[]]}), 400, "empty_input", json!("input")),
        (json!({"input": many}), 400, "invalid_request", json!("input")),
        (json!({"input": "w1", "dimensions": 0}), 400, "invalid_option", json!("dimensions")),
        (json!({"input": "w1", "dimensions": 33}), 400, "invalid_option", json!("dimensions")),
        (json!({"input": "w1", "dimensions": -1}), 400, "invalid_request", Value::Null),
        (json!({"input": "w1", "model": "other"}), 404, "model_not_found", json!("model")),
        (json!({"input": [1_000_000]}), 400, "token_id", json!("input")),
        (json!({"input": [too_many_ids]}), 400, "too_many_tokens", json!("input")),
        (json!({"input": "w1", "encoding_format": "hex"}), 400, "invalid_request", Value::Null),
        (json!({"input": "w1", "truncate": "END"}), 400, "invalid_request", Value::Null),
        (json!({"input": {"text": "w1"}}), 400, "invalid_request", Value::Null),
        (json!({"input": [1, "w1"]}), 400, "invalid_request", Value::Null),
        (json!({"model": "x"}), 400, "invalid_request", Value::Null),
        (json!(["w1"]), 400, "invalid_request", Value::Null),
    ];
    for (request, status, code, param) in cases {
        let answer = daemon.post("/v1/embeddings", &request);
        assert_eq!(answer.status, status, "{answer}");
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &param), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{error}");
        answer.assert_marked("cpu");
    }
    // What is too long is cut, as configured by default.
    let answer = daemon.posted("/v1/embeddings", &json!({"input": long}));
    assert_eq!(answer["usage"]["prompt_tokens"], TOKENS_MAX);
}

#[test]
fn the_model_is_listed() {
    let daemon = Daemon::start();
    let name = daemon.model_name();
    let list = daemon.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let one = &list["data"][0];
    assert_eq!((&one["id"], &one["object"]), (&json!(name), &json!("model")));
    assert!(one["created"].as_u64().is_some() && one["owned_by"].is_string());
    for path in [format!("/v1/models/{name}"), format!("/v1/models/organisation%2F{name}")] {
        assert_eq!(&daemon.get(&path).json(), one);
    }
    let answer = daemon.get("/v1/models/other");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
}
