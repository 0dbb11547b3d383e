//! Our own routes.

use http::Request;
use serde_json::{Value, json};

use axum::body::Body;

use crate::client::{Daemon, assert_near, cut, decoded, vector};
use crate::support::tiny::{TOKENS_MAX, WIDTH, expected, ids};

#[test]
fn embed_gives_vectors_and_what_happened() {
    let daemon = Daemon::start();
    let answer = daemon.posted("/api/v1/embed", &json!({"text": "w1"}));
    assert_eq!(vector(&answer["embeddings"][0]), expected("w1"));
    assert_eq!((&answer["model"], &answer["level"]), (&json!(daemon.model_name()), &json!("cpu")));
    assert_eq!(answer["fingerprint"], daemon.service.runtime().model().fingerprint);
    let long = vec!["w1"; TOKENS_MAX].join(" ");
    let request = json!({
        "texts": ["w1 w2", long], "model": daemon.model_name(), "priority": "bulk",
        "deadline_ms": 60_000, "normalize": true, "dimensions": 6, "encoding": "base64",
    });
    let answer = daemon.posted("/api/v1/embed", &request);
    assert_near(&decoded(&answer["embeddings"][0]), &cut(&expected("w1 w2"), 6));
    assert_eq!(answer["tokens"], json!([ids("w1 w2").len(), TOKENS_MAX]));
    assert_eq!((&answer["truncated"], &answer["dimensions"]), (&json!([false, true]), &json!(6)));
    let times = &answer["times_us"];
    let time = |name: &str| times[name].as_u64().expect("a time");
    assert!(time("total") >= time("infer") && time("infer") > 0, "{times}");
    for priority in ["control", "interactive"] {
        daemon.posted("/api/v1/embed", &json!({"texts": [ids("w1")], "priority": priority}));
    }
}

#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let daemon = Daemon::start();
    for (request, status, code) in [
        (json!({"text": ""}), 400, "empty_input"),
        (json!({"texts": []}), 400, "empty_input"),
        (json!({}), 422, "invalid_request"),
        (json!({"text": "w1", "texts": ["w2"]}), 422, "invalid_request"),
        (json!({"text": "w1", "deadline_ms": 0}), 422, "invalid_request"),
        (json!({"text": "w1", "deadline_ms": 1_000_000_000}), 422, "invalid_request"),
        (json!({"text": "w1", "priority": "urgent"}), 422, "invalid_request"),
        (json!({"text": "w1", "dimensions": 33}), 422, "invalid_option"),
        (json!({"text": "w1", "model": "other"}), 404, "model_not_found"),
        (json!({"text": "w1", "unknown": 1}), 422, "invalid_request"),
    ] {
        let answer = daemon.post("/api/v1/embed", &request);
        assert_eq!(answer.status, status, "{request}: {answer}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].is_string(), "{error}");
    }
}

#[test]
fn status_models_and_events_say_what_there_is() {
    let daemon = Daemon::start();
    let models = daemon.get("/api/v1/models").json();
    let model = &models["models"][0];
    assert_eq!((&model["name"], &model["width"]), (&json!(daemon.model_name()), &json!(WIDTH)));
    assert_eq!((&model["tokens_max"], &model["pooling"]), (&json!(TOKENS_MAX), &json!("mean")));
    let status = daemon.get("/api/v1/status").json();
    assert_eq!((&status["level"], &status["ready"]), (&json!("cpu"), &json!(true)));
    assert_eq!(&status["model"], model);
    assert_eq!(status["workers"][0]["device"], "cpu");
    assert_eq!(status["queues"].as_array().map(Vec::len), Some(3));
    assert_eq!(status["draining"], false);
    assert!(status["version"].is_string() && status["rates"]["limits"].is_array());
    let events = daemon.get("/api/v1/events").json();
    let events = events["events"].as_array().expect("a list").clone();
    assert!(!events.is_empty());
    let last = events.last().and_then(|event| event["id"].as_u64()).expect("a number");
    let one = daemon.get("/api/v1/events?limit=1").json();
    assert_eq!(one["events"].as_array().map(Vec::len), Some(1));
    let none = daemon.get(&format!("/api/v1/events?after={last}&limit=5")).json();
    assert_eq!(none["events"], json!([]));
    let wrong = daemon.get("/api/v1/events?since=1");
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["error"]["code"]),
        (422, &json!("invalid_request"))
    );
}

#[test]
fn cost_comes_of_price_and_measurement() {
    let daemon = Daemon::with(crate::support::tiny::TinyModel::new(), |config| {
        config.cost.price_per_hour = 3.6;
        config.cost.currency = "CHF".to_owned();
    });
    let texts: Vec<String> = (0..64).map(crate::support::tiny::text).collect();
    daemon.posted("/embed", &json!({"inputs": texts}));
    let cost = crate::support::eventually("a measured rate", || {
        let cost = daemon.get("/api/v1/cost-per-request").json();
        (!cost["texts_per_s"].is_null()).then_some(cost)
    });
    assert_eq!((&cost["currency"], &cost["basis"]), (&json!("CHF"), &json!("capacity")));
    let number = |name: &str| cost[name].as_f64().expect(name);
    let product = number("cost_per_text") * number("texts_per_s");
    assert!((product - 0.001).abs() < 1e-9, "{cost}");
    assert_eq!((&cost["power_w"], &cost["includes_energy"]), (&Value::Null, &json!(false)));
}

#[test]
fn the_description_and_its_page_need_nothing_else() {
    let daemon = Daemon::start();
    let document = daemon.get("/api-doc/openapi.json").json();
    for path in ["/v1/embeddings", "/embed", "/api/v1/embed", "/readyz"] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    let page = daemon.get("/docs");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let text = String::from_utf8(page.body).expect("text");
    assert!(!text.contains("http://") && !text.contains("https://"), "it refers elsewhere");
}

#[test]
fn metrics_count_requests_by_route_and_class() {
    use forebay::metrics::prometheus;
    // The tests of one process share its recorder.
    prometheus::install_with(&forebay_server::all_metrics()).ok();
    let daemon = Daemon::start();
    daemon.posted("/embed", &json!({"inputs": "w1"}));
    daemon.post("/v1/embeddings", &json!({"input": ""}));
    let answer = daemon.get("/metrics");
    assert!(answer.header("content-type").starts_with("text/plain"));
    let text = String::from_utf8(answer.body).expect("text");
    let requests = "forebay_http_requests_total";
    for series in [
        format!(r#"{requests}{{route="/embed",dialect="tei",class="2xx"}}"#),
        format!(r#"{requests}{{route="/v1/embeddings",dialect="openai",class="4xx"}}"#),
        r#"forebay_http_problems_total{problem="empty_input",dialect="openai"}"#.to_owned(),
        r#"forebay_http_request_seconds_bucket{route="/embed",dialect="tei",le="0.001"}"#
            .to_owned(),
        "forebay_requests_total".to_owned(),
    ] {
        assert!(text.contains(&series), "no {series} in\n{text}");
    }
}

#[test]
fn ids_of_requests_come_back() {
    let daemon = Daemon::start();
    let request = Request::get("/info").header("x-request-id", "robot-7/42");
    let answer = daemon.call(request.body(Body::empty()).expect("a request"));
    assert_eq!(answer.header("x-request-id"), "robot-7/42");
    assert!(!daemon.get("/nothing").header("x-request-id").is_empty());
}
