//! A collector that is no help: requests do not notice, and what is lost is counted.

use std::net::TcpListener;

use crate::collector::{Collector, Manner, settings};
use crate::daemon::Daemon;
use crate::support::eventually;

const DROPPED: &str = "forebay_spans_dropped_total";
const EXPORTED: &str = "forebay_spans_exported_total";

/// Spans of a request with one text.
const SPANS: f64 = 4.0;

fn ask(daemon: &Daemon, times: usize) {
    let mut client = daemon.connect();
    for nth in 0..times {
        assert_eq!(client.embed(&format!("text {nth}")).expect("answers").status, 200);
    }
}

fn of(reason: &str) -> String {
    format!("reason=\"{reason}\"")
}

#[test]
fn requests_go_on_while_a_collector_hangs_and_the_daemon_ends_all_the_same() {
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start(Manner::Hangs);
        let more = "sample_ratio = 1.0\nqueue_requests_max = 2\nbatch_requests_max = 1\n\
                    export_deadline_ms = 100";
        let daemon = Daemon::start(&collector.settings(protocol, more));
        ask(&daemon, 1);
        // It has the batch and says nothing.
        collector.batch();
        ask(&daemon, 50);
        let given_up = || (daemon.metric(DROPPED, &of("export")) >= SPANS).then_some(());
        eventually("the end of the collector's time", given_up);
        assert!(daemon.metric("forebay_traces_waiting", "") <= 2.0);
        assert_eq!(daemon.metric(EXPORTED, ""), 0.0);
        daemon.stop();
    }
}

#[test]
fn what_the_queue_has_no_room_for_is_counted() {
    let collector = Collector::start(Manner::Hangs);
    let more = "sample_ratio = 1.0\nqueue_requests_max = 2\nbatch_requests_max = 1\n\
                export_deadline_ms = 120000";
    let mut daemon = Daemon::start(&collector.settings("http/protobuf", more));
    ask(&daemon, 1);
    collector.batch();
    ask(&daemon, 10);
    // Of the ten, two wait. The last of them may not have been let go of yet.
    let lost = || (daemon.metric(DROPPED, &of("queue")) == 8.0 * SPANS).then_some(());
    eventually("the loss of all others", lost);
    assert_eq!(daemon.metric("forebay_traces_waiting", ""), 2.0);
    daemon.child.kill().expect("a child");
}

#[test]
fn a_collector_that_is_not_there_or_refuses_is_counted_and_told_once() {
    let port = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();
    let more = "sample_ratio = 1.0\nbatch_requests_max = 1";
    let refusing = Collector::start(Manner::Refuses);
    for settings in [
        settings(port, "http/protobuf", more),
        refusing.settings("http/protobuf", more),
        refusing.settings("grpc", more),
    ] {
        let daemon = Daemon::start(&settings);
        ask(&daemon, 5);
        let lost = || (daemon.metric(DROPPED, &of("export")) == 5.0 * SPANS).then_some(());
        eventually("the loss of all spans", lost);
        assert_eq!(daemon.metric(EXPORTED, ""), 0.0);
        let log = daemon.log();
        assert_eq!(log.matches("do not reach the collector").count(), 1, "{log}");
        daemon.stop();
    }
}

#[test]
fn spans_that_the_collector_leaves_out_are_counted() {
    let collector = Collector::start(Manner::Rejects(3));
    let more = "sample_ratio = 1.0";
    let daemon = Daemon::start(&collector.settings("http/protobuf", more));
    ask(&daemon, 1);
    let counted = || (daemon.metric(DROPPED, &of("rejected")) == 3.0).then_some(());
    eventually("the count", counted);
    assert_eq!(daemon.metric(EXPORTED, ""), SPANS - 3.0);
    daemon.stop();
}

#[test]
fn without_an_endpoint_nothing_is_traced() {
    let daemon = Daemon::start("[tracing]\nsample_ratio = 1.0\n");
    ask(&daemon, 3);
    let text = daemon.connect().get("/metrics").expect("answers").text();
    assert!(!text.contains("forebay_spans") && !text.contains("forebay_traces"), "{text}");
    daemon.stop();
}
