//! What the operator asks for while settings are read again or the daemon starts: nothing of it is lost.

use rustix::process::Signal;

use super::client::Connection;
use super::daemon::Daemon;
use crate::support::script::{Script, Start};
use crate::support::tiny::TinyModel;
use crate::support::{eventually, exists};

#[test]
fn a_pin_during_a_reload_holds_for_the_new_runtime_and_the_reload_may_take_its_time() {
    // Clients have less time than the reload takes; the operator has not.
    let daemon = Daemon::start("[limits]\nrequest_ms = 20");
    let other = TinyModel::new();
    let hold = other.hold();
    daemon.write_settings(other.path(), "[limits]\nrequest_ms = 20");
    let mut operator = Connection::unix(&daemon.admin_socket()).expect("connects");
    let reloading = std::thread::spawn(move || operator.send("POST", "/reload", &[], ""));
    eventually("a second worker", || (!other.pids().is_empty()).then_some(()));
    let pinned = daemon.admin("POST", "/pin", r#"{"level": "cpu"}"#);
    assert_eq!(pinned.status, 200, "{}", pinned.text());
    assert_eq!(daemon.status()["pinned"], "cpu");
    // Clients that come now run out of time before it is over.
    assert_eq!(super::bodies::unfinished(&daemon).read().expect("answers").status, 504);
    drop(hold);
    let answer = reloading.join().expect("no panic").expect("answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status = daemon.status();
    let name = other.path().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!((&status["model"], &status["pinned"]), (&name.into(), &"cpu".into()));
    daemon.stop();
}

#[test]
fn who_lost_the_right_to_ask_is_refused_on_a_connection_that_is_open() {
    let own = rustix::process::geteuid().as_raw();
    let allow = |user: u32| format!("[auth]\nusers_allowed = ['{user}']");
    let daemon = Daemon::start(&allow(own));
    let mut before = daemon.connect();
    assert_eq!(before.embed("w1").expect("answers").status, 200);
    daemon.write_settings(daemon.model.path(), &allow(own + 1));
    assert_eq!(daemon.admin("POST", "/reload", "").status, 200);
    let answer = before.embed("w1").expect("answers");
    assert_eq!(answer.status, 403, "{}", answer.text());
    let native = before.send("GET", "/api/v1/status", &[], "").expect("answers");
    assert_eq!(native.json()["error"]["code"], "user_not_allowed");
    daemon.stop();
}

#[test]
fn a_daemon_that_is_ended_before_it_serves_ends_in_order() {
    let model = TinyModel::scripted(&Script { start: Start::Hang, ..Script::default() });
    let mut daemon = Daemon::spawn(model, "", "", &[]);
    eventually("a worker", || (!daemon.model.pids().is_empty()).then_some(()));
    daemon.signal(Signal::TERM);
    let status = eventually("the end", || daemon.child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    for pid in daemon.model.pids() {
        eventually("the end of a worker", || (!exists(pid)).then_some(()));
    }
}
