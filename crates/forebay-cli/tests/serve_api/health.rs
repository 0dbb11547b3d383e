//! Health that does not lie: while nothing serves, while the gate is full, while the daemon is about
//! to end.

use serde_json::json;

use crate::client::{Answer, Daemon};
use crate::support::script::{Script, Start};
use crate::support::tiny::TinyModel;
use crate::support::{eventually, kill};

fn status_of(answer: &Answer) -> (u16, String) {
    let status = answer.json()["status"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), status)
}

#[test]
fn a_service_that_serves_is_alive_and_ready() {
    let daemon = Daemon::start();
    for path in ["/livez", "/readyz", "/health"] {
        let answer = daemon.get(path);
        assert_eq!(status_of(&answer), (200, "ok".to_owned()), "{path}");
        assert_eq!(answer.json()["level"], "cpu");
        assert_eq!(answer.header("x-embed-level"), "cpu");
    }
}

#[test]
fn without_a_worker_it_is_alive_and_not_ready() {
    let script = Script { from_incarnation: 2, start: Start::Fail, ..Script::default() };
    let daemon = Daemon::with(TinyModel::scripted(&script), |config| {
        config.admission.down_grace_ms = 0;
    });
    let pid = daemon.service.runtime().status().workers[0].pid.expect("a worker");
    kill(pid, rustix::process::Signal::KILL);
    let answer = eventually("the level", || {
        let answer = daemon.get("/readyz");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(status_of(&answer), (503, "nothing_serves".to_owned()));
    assert_eq!(answer.header("x-embed-level"), "down");
    for path in ["/health", "/ping", "/"] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.json()["error_type"], "Unhealthy");
    }
    assert_eq!(status_of(&daemon.get("/livez")).0, 200, "a restart would not help");
    for (path, body) in [
        ("/embed", json!({"inputs": "w1"})),
        ("/v1/embeddings", json!({"input": "w1"})),
        ("/api/v1/embed", json!({"text": "w1"})),
    ] {
        let answer = daemon.post(path, &body);
        assert_eq!(answer.status, 503, "{path}: {answer}");
        assert!(answer.number("retry-after") >= 1);
        answer.assert_marked("down");
        let body = answer.json();
        assert!(path != "/embed" || body["error_type"] == "Unhealthy", "{body}");
    }
}

#[test]
fn a_full_gate_is_busy_and_not_ill() {
    let daemon = Daemon::with(TinyModel::new(), |config| {
        config.admission.interactive_requests_max = 1;
    });
    let hold = daemon.model.hold();
    let first = daemon.begin("/embed", &json!({"inputs": "w1"}));
    eventually("it waits", || (daemon.under_way() == 1).then_some(()));
    assert_eq!(status_of(&daemon.get("/readyz")), (503, "full".to_owned()));
    assert_eq!(daemon.get("/health").status, 200);
    drop(hold);
    assert_eq!(daemon.executor.block_on(first).expect("it ends").status, 200);
    assert_eq!(status_of(&daemon.get("/readyz")), (200, "ok".to_owned()));
}

#[test]
fn a_daemon_that_drains_is_not_ready_and_still_answers() {
    let daemon = Daemon::start();
    daemon.service.begin_drain();
    assert_eq!(status_of(&daemon.get("/readyz")), (503, "draining".to_owned()));
    assert_eq!(status_of(&daemon.get("/livez")).0, 200);
    daemon.posted("/embed", &json!({"inputs": "w1"}));
    assert_eq!(daemon.get("/api/v1/status").json()["draining"], true);
}
