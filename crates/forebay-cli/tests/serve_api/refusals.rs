//! What ends a request early, in each dialect: no room, no time, a client that left, a body that is
//! none, a path that is none.

use serde_json::{Value, json};

use crate::client::{Answer, Daemon};
use crate::support::eventually;
use crate::support::tiny::{TinyModel, expected, text};

/// A request in each dialect, and where its error has its code.
fn dialects() -> [(&'static str, Value, &'static str); 3] {
    [
        ("/v1/embeddings", json!({"input": "w2"}), "/error/code"),
        ("/embed", json!({"inputs": "w2"}), "/error_type"),
        ("/api/v1/embed", json!({"text": "w2"}), "/error/code"),
    ]
}

fn code_of(answer: &Answer, pointer: &str) -> String {
    let body = answer.json();
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_lowercase()
}

#[test]
fn without_room_it_says_when_to_try_again() {
    let daemon = Daemon::with(TinyModel::new(), |config| {
        config.admission.interactive_requests_max = 2;
    });
    let hold = daemon.model.hold();
    let first = daemon.begin("/embed", &json!({"inputs": ["w1", "w3"]}));
    eventually("they wait", || (daemon.under_way() == 2).then_some(()));
    for (path, body, pointer) in dialects() {
        let answer = daemon.post(path, &body);
        assert_eq!(answer.status, 429, "{path}: {answer}");
        assert_eq!(code_of(&answer, pointer), "overloaded");
        assert!(answer.number("retry-after") >= 1);
        answer.assert_marked("cpu");
    }
    // Also with several texts: nothing waits for room unless a part of it is in.
    assert_eq!(daemon.post("/embed", &json!({"inputs": ["w4", "w5"]})).status, 429);
    drop(hold);
    assert_eq!(daemon.executor.block_on(first).expect("it ends").status, 200);
}

#[test]
fn what_is_not_done_in_time_says_so() {
    let daemon = Daemon::with(TinyModel::new(), |config| config.limits.request_ms = 600);
    let hold = daemon.model.hold();
    for (path, body, pointer) in dialects() {
        let answer = daemon.post(path, &body);
        assert_eq!(answer.status, 504, "{path}: {answer}");
        let code = code_of(&answer, pointer);
        assert!(code == "deadline_exceeded" || code == "timeout", "{code}");
    }
    let answer = daemon.post("/api/v1/embed", &json!({"text": "w1", "deadline_ms": 50}));
    assert_eq!(answer.status, 504);
    drop(hold);
}

#[test]
fn texts_of_a_client_that_left_give_their_room_back() {
    let daemon = Daemon::start();
    let hold = daemon.model.hold();
    let inputs: Vec<String> = (0..200).map(text).collect();
    let asked = daemon.begin("/embed", &json!({"inputs": inputs}));
    eventually("they wait", || (daemon.under_way() == 200).then_some(()));
    asked.abort();
    // What is in the worker keeps its room until it is back; the rest goes at once.
    eventually("most have gone", || (daemon.under_way() < 100).then_some(()));
    drop(hold);
    eventually("all have gone", || (daemon.under_way() == 0).then_some(()));
    daemon.posted("/embed", &json!({"inputs": "w1"}));
}

#[test]
fn more_texts_than_the_gate_takes_at_once_are_let_in_by_and_by() {
    let daemon = Daemon::with(TinyModel::new(), |config| {
        config.admission.interactive_requests_max = 8;
    });
    let inputs: Vec<String> = (0..50).map(text).collect();
    let answer = daemon.posted("/embed", &json!({"inputs": inputs}));
    for (row, text) in answer.as_array().expect("a list").iter().zip(&inputs) {
        assert_eq!(crate::client::vector(row), expected(text), "{text}");
    }
    assert_eq!(answer.as_array().map(Vec::len), Some(50));
}

#[test]
fn bodies_that_are_none_are_refused() {
    let daemon = Daemon::with(TinyModel::new(), |config| config.limits.body_bytes_max = 1_024);
    let json = Some("application/json");
    for (path, body, _) in dialects() {
        let body = body.to_string();
        // Half of a character is no text.
        let half = body.replace("w2", "\\ud800");
        let large = format!("{}{body}", " ".repeat(1_024));
        for (kind, body, status) in [
            (json, "{", 400),
            (json, "", 400),
            (json, &half, 400),
            (json, &large, 413),
            (None, &body, 415),
            (Some("text/plain"), &body, 415),
            (Some("application/x-www-form-urlencoded"), &body, 415),
            (Some("application/json; charset=utf-8"), &body, 200),
            (Some("APPLICATION/JSON"), &body, 200),
        ] {
            let answer = daemon.post_raw(path, kind, body);
            assert_eq!(answer.status, status, "{path} {kind:?} {body}: {answer}");
            answer.assert_marked("cpu");
            answer.json();
        }
    }
}

#[test]
fn paths_and_methods_that_are_none_are_refused_in_their_dialect() {
    let daemon = Daemon::start();
    for (path, pointer, code) in [
        ("/v1/nothing", "/error/code", "not_found"),
        ("/nothing", "/error_type", "validation"),
        ("/api/v1/nothing", "/error/code", "not_found"),
    ] {
        let answer = daemon.get(path);
        assert_eq!((answer.status.as_u16(), code_of(&answer, pointer)), (404, code.to_owned()));
    }
    for path in ["/v1/embeddings", "/embed", "/api/v1/embed"] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.header("allow").contains("POST"), "{answer}");
        answer.json();
    }
    assert_eq!(daemon.post("/info", &json!({})).status, 405);
}
