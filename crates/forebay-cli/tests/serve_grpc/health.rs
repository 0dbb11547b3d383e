//! Health: what `/readyz` says, at once.

use rustix::process::Signal;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus::{
    self, NotServing, ServiceUnknown, Serving,
};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::channel::{code, connect, embed_client, run, text};
use crate::daemon::Daemon;
use crate::support::kill;
use crate::support::script::{Script, Start};
use crate::support::tiny::expected;

fn name(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn told(watch: &mut tonic::Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    watch.message().await.expect("answers").map(|answer| answer.status())
}

#[test]
fn every_name_has_its_status() {
    let daemon = Daemon::start("");
    run(async {
        let mut client = HealthClient::new(connect(&daemon.socket()).await);
        for (service, expected) in [
            ("", Serving),
            ("tei.v1.Info", Serving),
            ("tei.v1.Embed", Serving),
            ("tei.v1.Tokenize", Serving),
            ("tei.v1.Predict", NotServing),
            ("tei.v1.Rerank", NotServing),
        ] {
            let answer = client.check(name(service)).await.expect("answers").into_inner();
            assert_eq!(answer.status(), expected, "{service}");
            let watch = client.watch(name(service)).await.expect("answers");
            assert_eq!(told(&mut watch.into_inner()).await, Some(expected), "{service}");
        }
        assert_eq!(code(client.check(name("tei.v1.Nothing")).await), Code::NotFound);
        let watch = client.watch(name("tei.v1.Nothing")).await.expect("answers");
        assert_eq!(told(&mut watch.into_inner()).await, Some(ServiceUnknown));
    });
    daemon.stop();
}

#[test]
fn who_watches_hears_of_every_change_until_the_end() {
    // What comes first belongs to the last group that every daemon has, [admission].
    let mut daemon = Daemon::start("interactive_requests_max = 1");
    run(async {
        let channel = connect(&daemon.socket()).await;
        let mut client = HealthClient::new(channel);
        let watch = client.watch(name("tei.v1.Embed")).await.expect("answers");
        let mut watch = watch.into_inner();
        assert_eq!(told(&mut watch).await, Some(Serving));

        // A gate that is full.
        let hold = daemon.model.hold();
        let mut embed = embed_client(&daemon).await;
        let waiting = tokio::spawn(async move { embed.embed(text("w1")).await });
        assert_eq!(told(&mut watch).await, Some(NotServing));
        assert_eq!(daemon.connect().get("/readyz").expect("answers").status, 503);
        let answer = client.check(name("")).await.expect("answers").into_inner();
        assert_eq!(answer.status(), NotServing);
        drop(hold);
        let answer = waiting.await.expect("no panic").expect("answers");
        assert_eq!(answer.into_inner().vector(), expected("w1"));
        assert_eq!(told(&mut watch).await, Some(Serving));

        // A worker that dies, whose successors do not start, until they do.
        daemon.model.script(&Script { start: Start::Exit, ..Script::default() });
        kill(*daemon.model.pids().last().expect("a worker"), Signal::KILL);
        assert_eq!(told(&mut watch).await, Some(NotServing));
        assert_eq!(daemon.connect().get("/readyz").expect("answers").status, 503);
        daemon.model.script(&Script::default());
        assert_eq!(told(&mut watch).await, Some(Serving));

        // The end.
        daemon.signal(Signal::TERM);
        daemon.hears("STOPPING=1");
        assert_eq!(told(&mut watch).await, Some(NotServing));
        assert_eq!(told(&mut watch).await, None);
    });
    daemon.ended();
}

#[test]
fn who_watches_hears_of_the_end_also_without_notice() {
    // They look so often that the end comes while some of them do.
    let notice = [("FOREBAY_SERVER__DRAIN_NOTICE_MS", "0")];
    let mut daemon = Daemon::start_with("", "health_watch_ms = 10", &notice);
    run(async {
        let mut watches = Vec::new();
        for _ in 0..10 {
            let mut client = HealthClient::new(connect(&daemon.socket()).await);
            for _ in 0..60 {
                let mut watch = client.watch(name("")).await.expect("answers").into_inner();
                assert_eq!(told(&mut watch).await, Some(Serving));
                watches.push(watch);
            }
        }
        daemon.signal(Signal::TERM);
        for watch in &mut watches {
            assert_eq!(told(watch).await, Some(NotServing));
            assert_eq!(told(watch).await, None);
        }
    });
    daemon.ended();
}

#[test]
fn who_only_watches_makes_room() {
    let daemon = Daemon::start("[limits]\nconnections_max = 4");
    run(async {
        let mut watches = Vec::new();
        for _ in 0..4 {
            let mut client = HealthClient::new(connect(&daemon.socket()).await);
            let mut watch = client.watch(name("")).await.expect("answers").into_inner();
            assert_eq!(told(&mut watch).await, Some(Serving));
            watches.push((client, watch));
        }
        let mut newcomer = embed_client(&daemon).await;
        newcomer.embed(text("w1")).await.expect("it is let in");
        // Whoever came first has gone for it.
        watches[0].1.message().await.expect_err("its connection is closed");
        drop(newcomer);
    });
    assert!(daemon.metric("forebay_connections_cut_total", "\"evicted\"") >= 1.0);
    daemon.stop();
}

#[test]
fn who_watches_without_a_key_is_idle_where_there_are_keys() {
    let daemon = Daemon::start(&format!(
        "[auth]\nkey_hashes = ['{}']\n[limits]\nidle_ms = 300",
        "ab".repeat(32)
    ));
    run(async {
        let mut client = HealthClient::new(connect(&daemon.socket()).await);
        let mut watch = client.watch(name("")).await.expect("answers").into_inner();
        assert_eq!(told(&mut watch).await, Some(Serving));
        watch.message().await.expect_err("its connection is closed");
    });
    daemon.stop();
}
