//! How the daemon ends: in order, with every request answered, or at once, with no worker left.

use rustix::process::Signal;

use super::daemon::Daemon;
use super::load::Load;
use crate::support::{eventually, kill};

#[test]
fn a_request_to_end_under_load_loses_nothing() {
    let mut daemon = Daemon::start("");
    let load = Load::start(&daemon);
    daemon.signal(Signal::TERM);
    load.ended();
    daemon.ended();
    daemon.hears("STOPPING=1");
}

#[test]
fn what_is_computed_is_awaited_and_readiness_says_no_before_the_listener_closes() {
    // Long enough for somebody to ask meanwhile.
    let notice = [("FOREBAY_SERVER__DRAIN_NOTICE_MS", "3000")];
    let mut daemon = Daemon::start_with("", "drain_deadline_ms = 600000", &notice);
    let hold = daemon.model.hold();
    let mut waiting = daemon.connect();
    let asking = std::thread::spawn(move || waiting.embed("w1 w2").expect("answers"));
    eventually("the request", || {
        (daemon.status()["runtime"]["queues"][1]["under_way"] == 1).then_some(())
    });
    let mut probe = daemon.connect();
    assert_eq!(probe.get("/readyz").expect("answers").status, 200);
    daemon.signal(Signal::INT);
    daemon.hears("STOPPING=1");
    let answer = eventually("not ready", || {
        let answer = probe.get("/readyz").expect("answers before the connection closes");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(answer.text().contains("draining"), "{}", answer.text());
    daemon.connect().get("/livez").expect("the listener is open still");
    assert!(daemon.child.try_wait().expect("a child").is_none(), "it waits for the request");
    drop(hold);
    let answer = asking.join().expect("no panic");
    assert_eq!(answer.status, 200);
    daemon.ended();
}

/// More than one turn of a task takes in, and fewer than the kernel keeps.
const WAITING: usize = 600;

#[test]
fn everybody_who_had_connected_is_answered_however_many_there_are() {
    let limits = "[limits]\nconnections_max = 2000\nconnections_per_peer_max = 2000";
    let notice = [("FOREBAY_SERVER__DRAIN_NOTICE_MS", "0")];
    let mut daemon = Daemon::start_with(limits, "", &notice);
    // It stands still, so that all of them wait to be accepted.
    daemon.signal(Signal::STOP);
    let ask = |_| {
        let mut connection = daemon.connect();
        connection.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").expect("writes");
        connection
    };
    let waiting: Vec<_> = (0..WAITING).map(ask).collect();
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::CONT);
    for (number, mut connection) in waiting.into_iter().enumerate() {
        let answer = connection.read().unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(answer.status, 200);
    }
    daemon.ended();
}

#[test]
fn requests_that_never_end_are_given_up() {
    let mut daemon = Daemon::start_with("[shutdown]\ndrain_ms = 10", "drain_deadline_ms = 1", &[]);
    let hold = daemon.model.hold();
    let mut waiting = daemon.connect();
    let asking = std::thread::spawn(move || waiting.embed("w1 w2"));
    eventually("the request", || {
        (daemon.status()["runtime"]["queues"][1]["under_way"] == 1).then_some(())
    });
    daemon.signal(Signal::TERM);
    asking.join().expect("no panic").expect_err("it is cut off");
    daemon.ended();
    drop(hold);
}

#[test]
fn no_worker_outlives_a_daemon_that_is_killed() {
    let mut daemon = Daemon::start("");
    let load = Load::start(&daemon);
    daemon.signal(Signal::KILL);
    daemon.child.wait().expect("it ends");
    daemon.workers_gone();
    // The callers find a connection that broke off; that is what a kill means.
    drop(load);
}

#[test]
fn not_even_a_worker_that_is_stopped_does() {
    let mut daemon = Daemon::start("");
    for pid in daemon.model.pids() {
        kill(pid, Signal::STOP);
    }
    daemon.signal(Signal::KILL);
    daemon.child.wait().expect("it ends");
    daemon.workers_gone();
}

#[test]
fn one_starts_where_another_was_killed() {
    let mut daemon = Daemon::start("");
    daemon.signal(Signal::KILL);
    daemon.child.wait().expect("it ends");
    assert!(daemon.socket().exists(), "a kill leaves the socket");
    let config = daemon.folder.path().join("forebay.toml").display().to_string();
    let mut command = crate::support::forebay_with_fake(&["serve", "--config", &config]);
    command.env("NOTIFY_SOCKET", daemon.folder.path().join("notify"));
    daemon.child = command.spawn().expect("starts");
    daemon.hears("READY=1");
    assert_eq!(daemon.connect().embed("w1").expect("answers").status, 200);
    daemon.stop();
}
