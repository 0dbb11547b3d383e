//! Bodies of requests: their limits, what is said when one is met, and what is counted then.

use super::client::Connection;
use super::daemon::Daemon;
use crate::support::eventually;

const HEAD: &str = "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

/// A request whose body does not come.
pub(crate) fn unfinished(daemon: &Daemon) -> Connection {
    let mut connection = daemon.connect();
    let head = format!("{HEAD}content-length: 20\r\n\r\n");
    connection.write(head.as_bytes()).expect("writes");
    connection
}

#[test]
fn a_request_without_an_answer_in_time_is_no_client_that_left() {
    let daemon = Daemon::start("[limits]\nrequest_ms = 50");
    let answer = unfinished(&daemon).read().expect("answers");
    assert_eq!((answer.status, &answer.json()["error_type"]), (504, &"Timeout".into()));
    let count = |label: &str| daemon.metric("forebay_http_requests_total", label);
    assert_eq!((count(r#"class="504""#), count(r#"class="gone""#)), (1.0, 0.0));
    let problems = daemon.metric("forebay_http_problems_total", "deadline_exceeded");
    assert_eq!(problems, 1.0);
    daemon.stop();
}

#[test]
fn a_body_that_is_too_long_is_one_problem_of_that_kind() {
    let daemon = Daemon::start("[limits]\nbody_bytes_max = 1024");
    let answer = daemon.connect().embed(&"w1 ".repeat(1_000)).expect("answers");
    assert_eq!(answer.status, 413, "{}", answer.text());
    let problems = |kind: &str| {
        let label = format!("problem=\"{kind}\"");
        daemon.metric("forebay_http_problems_total", &label)
    };
    assert_eq!((problems("body_too_large"), problems("request_timeout")), (1.0, 0.0));
    assert_eq!(daemon.metric("forebay_http_refused_total", r#"reason="body_size""#), 1.0);
    daemon.stop();
}

#[test]
fn bodies_of_all_requests_together_have_a_bound() {
    const MIB: usize = 1_048_576;
    let limits = format!("body_bytes_max = {MIB}\nbody_bytes_under_way_max = {MIB}");
    let daemon = Daemon::start(&format!("[limits]\n{limits}"));
    let held = || daemon.metric("forebay_http_bodies_under_way_bytes", "");
    let mut first = daemon.connect();
    first.write(format!("{HEAD}content-length: {MIB}\r\n\r\n").as_bytes()).expect("writes");
    first.write(" ".repeat(MIB * 3 / 4).as_bytes()).expect("writes");
    eventually("most of a body", || (held() > 700_000.0).then_some(()));
    let large = format!("{{\"inputs\": \"w1\"}}{}", " ".repeat(MIB / 2));
    let ask = || {
        let mut connection = daemon.connect();
        let length = large.len();
        // The rest may find the connection closed.
        connection.write(format!("{HEAD}content-length: {length}\r\n\r\n{large}").as_bytes()).ok();
        connection.read().expect("answers")
    };
    let refused = ask();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(daemon.metric("forebay_http_refused_total", r#"reason="no_room""#), 1.0);
    // One that fits goes on, and so does the large one once there is room.
    assert_eq!(daemon.connect().embed("w1").expect("answers").status, 200);
    drop(first);
    eventually("room", || (held() < 500_000.0).then_some(()));
    let answer = ask();
    assert_eq!(answer.status, 200, "{}", answer.text());
    daemon.stop();
}
