//! Streams of texts: their order, their errors, their ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_server::grpc::tei;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::channel::{code, embed_client, run, text};
use crate::daemon::Daemon;
use crate::support::eventually;
use crate::support::tiny::{TOKENS_MAX, expected, text as nth};

/// Texts that computed together are fewer batches than texts.
const TEXTS: usize = 1_000;

fn under_way(daemon: &Daemon) -> u64 {
    daemon.status()["runtime"]["queues"][1]["under_way"].as_u64().expect("a number")
}

/// Waits until so many texts are under way in the runtime.
async fn until_under_way(daemon: &Daemon, texts: u64) {
    while under_way(daemon) != texts {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_thousand_texts_are_answered_in_their_order_and_share_batches() {
    let daemon = Daemon::start("");
    run(async {
        let mut client = embed_client(&daemon).await;
        let requests = tokio_stream::iter((0..TEXTS).map(|number| text(&nth(number))));
        let mut answers = client.embed_stream(requests).await.expect("begins").into_inner();
        for number in 0..TEXTS {
            let answer = answers.message().await.expect("answers").expect("one each");
            assert_eq!(answer.vector(), expected(&nth(number)), "text {number}");
            assert!(answer.metadata.expect("metadata").total_time_ns > 0);
        }
        assert!(answers.message().await.expect("ends").is_none());
    });
    let batches = daemon.metric("forebay_batches_total", "");
    assert!(batches > 0.0 && batches < TEXTS as f64 / 2.0, "{batches} batches");
    assert_eq!(daemon.metric("forebay_grpc_stream_texts", ""), 0.0);
    let stream = daemon
        .metric("forebay_http_requests_total", "Embed/EmbedStream\",dialect=\"grpc\",class=\"2xx");
    assert_eq!(stream, 1.0);
    daemon.stop();
}

#[test]
fn a_text_that_has_no_embedding_ends_the_stream_in_its_turn() {
    let daemon = Daemon::start("");
    let long = (0..TOKENS_MAX + 8).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ");
    run(async {
        let mut client = embed_client(&daemon).await;
        for bad in [text(&long), text(""), tei::EmbedRequest { dimensions: Some(0), ..text("w1") }]
        {
            let texts =
                (0..40).map(|number| if number == 20 { bad.clone() } else { text(&nth(number)) });
            let requests = tokio_stream::iter(texts.collect::<Vec<_>>());
            let mut answers = client.embed_stream(requests).await.expect("begins").into_inner();
            for number in 0..20 {
                let answer = answers.message().await.expect("answers").expect("one each");
                assert_eq!(answer.vector(), expected(&nth(number)), "text {number}");
            }
            assert_eq!(code(answers.message().await), Code::InvalidArgument);
        }
        until_under_way(&daemon, 0).await;
    });
    daemon.stop();
}

#[test]
fn no_more_than_is_allowed_is_under_way_and_a_client_that_leaves_takes_its_texts_out() {
    let daemon = Daemon::start("[limits]\ngrpc_stream_texts_max = 64\n[batch]\nrows_max = 4");
    let hold = daemon.model.hold();
    run(async {
        let mut client = embed_client(&daemon).await;
        let requests = tokio_stream::iter((0..100).map(|number| text(&nth(number))));
        let answers = client.embed_stream(requests).await.expect("begins");
        until_under_way(&daemon, 64).await;
        assert_eq!(daemon.metric("forebay_grpc_stream_texts", ""), 64.0);
        let in_flight = daemon.metric("forebay_http_requests_in_flight", "grpc");
        assert_eq!(in_flight, 1.0);
        drop(answers);
    });
    // What a worker holds stays there; what waits is taken out.
    eventually("no text of a stream", || {
        (daemon.metric("forebay_grpc_stream_texts", "") == 0.0).then_some(())
    });
    drop(hold);
    eventually("no text", || (under_way(&daemon) == 0).then_some(()));
    let ended = |outcome| daemon.metric("forebay_requests_total", outcome);
    assert!(ended("cancelled") > 32.0, "{}", ended("cancelled"));
    assert_eq!(ended("cancelled") + ended("ok"), 64.0);
    eventually("the end of the call", || {
        (daemon.metric("forebay_grpc_statuses_total", "CANCELLED") == 1.0).then_some(())
    });
    daemon.stop();
}

#[test]
fn texts_wait_for_room_and_only_the_first_is_refused_for_want_of_it() {
    // What comes first belongs to the last group that every daemon has, [admission].
    let daemon = Daemon::start("interactive_requests_max = 4");
    run(async {
        let mut client = embed_client(&daemon).await;
        let all = |count: usize| tokio_stream::iter((0..count).map(|number| text(&nth(number))));
        let mut answers = client.embed_stream(all(100)).await.expect("begins").into_inner();
        for number in 0..100 {
            let answer = answers.message().await.expect("answers").expect("one each");
            assert_eq!(answer.vector(), expected(&nth(number)), "text {number}");
        }
        let hold = daemon.model.hold();
        let waiting = client.embed_stream(all(4)).await.expect("begins").into_inner();
        until_under_way(&daemon, 4).await;
        let mut answers = client.embed_stream(all(1)).await.expect("begins").into_inner();
        assert_eq!(code(answers.message().await), Code::ResourceExhausted);
        drop((hold, waiting));
    });
    daemon.stop();
}

#[test]
fn a_timeout_is_that_of_the_whole_stream() {
    let daemon = Daemon::start("");
    run(async {
        let mut client = embed_client(&daemon).await;
        // One on which nothing comes, and one whose text is not computed.
        let hold = daemon.model.hold();
        for texts in [vec![], vec![text("w1")]] {
            let (send, requests) = mpsc::channel(8);
            for text in texts {
                send.send(text).await.expect("there is room");
            }
            let mut request = tonic::Request::new(ReceiverStream::new(requests));
            request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("a header"));
            let mut answers = client.embed_stream(request).await.expect("begins").into_inner();
            assert_eq!(code(answers.message().await), Code::DeadlineExceeded);
            drop(send);
        }
        drop(hold);
    });
    daemon.stop();
}

#[test]
fn a_stream_on_which_nothing_moves_is_ended() {
    let daemon = Daemon::start("[limits]\nidle_ms = 400\nrequest_ms = 400");
    run(async {
        let mut client = embed_client(&daemon).await;
        let (send, texts) = mpsc::channel(1);
        let answers = client.embed_stream(ReceiverStream::new(texts)).await.expect("begins");
        let mut answers = answers.into_inner();
        let status = answers.message().await.expect_err("it is ended");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains("nothing has moved"), "{status}");
        drop(send);
    });
    daemon.stop();
}

#[test]
fn a_stream_that_is_open_at_the_end_is_answered_what_it_sent_and_does_not_hold_the_end_up() {
    let mut daemon = Daemon::start_with("", "drain_deadline_ms = 600000", &[]);
    let hold = daemon.model.hold();
    run(async {
        let mut client = embed_client(&daemon).await;
        let (send, texts) = mpsc::channel(8);
        for number in 0..5 {
            send.send(text(&nth(number))).await.expect("there is room");
        }
        let answers = client.embed_stream(ReceiverStream::new(texts)).await.expect("begins");
        let mut answers = answers.into_inner();
        until_under_way(&daemon, 5).await;
        daemon.signal(Signal::TERM);
        daemon.hears("STOPPING=1");
        drop(hold);
        for number in 0..5 {
            let answer = answers.message().await.expect("answers").expect("one each");
            assert_eq!(answer.vector(), expected(&nth(number)), "text {number}");
        }
        assert_eq!(code(answers.message().await), Code::Unavailable);
        drop(send);
    });
    daemon.ended();
}

#[test]
fn clients_may_send_far_more_than_is_computed_a_frame_for_each_text() {
    const EACH: usize = 3_000;
    // Of 13 bytes each so many fit what may be unread, with room to spare.
    const UNREAD: usize = 2_000;
    let daemon = Daemon::start("");
    let sent = Arc::new(AtomicUsize::new(0));
    let hold = daemon.model.hold();
    run(async {
        let client = embed_client(&daemon).await;
        let streams = (0..3).map(|stream| {
            let (mut client, sent) = (client.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                // With room for one, what is sent cannot be put together into larger frames.
                let (send, texts) = mpsc::channel(1);
                let answers = client.embed_stream(ReceiverStream::new(texts)).await;
                let mut answers = answers.expect("begins").into_inner();
                let sending = tokio::spawn(async move {
                    for number in 0..EACH {
                        if send.send(text(&format!("w{}", (stream + number) % 500))).await.is_err()
                        {
                            return false;
                        }
                        sent.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                    true
                });
                for number in 0..EACH {
                    let answer = answers.message().await.expect("answers").expect("one each");
                    assert_eq!(answer.vector(), expected(&format!("w{}", (stream + number) % 500)));
                }
                assert!(answers.message().await.expect("ends").is_none());
                assert!(sending.await.expect("no panic"), "everything was sent");
            })
        });
        let streams: Vec<_> = streams.collect();
        until_under_way(&daemon, 3 * 256).await;
        while sent.load(Ordering::Relaxed) < 3 * UNREAD {
            tokio::task::yield_now().await;
        }
        drop(hold);
        for stream in streams {
            stream.await.expect("no panic");
        }
    });
    daemon.stop();
}
