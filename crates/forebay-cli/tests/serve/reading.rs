//! Clients that read slowly keep their places until they have everything; those that hold their
//! answers back by the windows of HTTP/2 do not.

use std::io::{Read, Write};

use serde_json::json;

use super::client::{Connection, unix};
use super::daemon::Daemon;
use super::h2::{DATA, END_STREAM, HEADERS, Http2, RST_STREAM, frame};
use crate::support::eventually;

const LIMITS: &str = "
[limits]
transfer_stall_ms = 2000
idle_ms = 60000
";

/// A request for an answer that is longer than any socket holds.
fn long_request() -> String {
    json!({"inputs": "w1 ".repeat(20_000)}).to_string()
}

const LONG_BYTES_MIN: usize = 800_000;

fn cut(daemon: &Daemon) -> f64 {
    daemon.metric("forebay_connections_cut_total", "\"write\"")
}

#[test]
fn who_takes_no_answer_over_http2_is_cut_off() {
    let daemon = Daemon::start(LIMITS);
    let mut client = Http2::connect(&daemon.socket(), 0);
    client.request("GET", "/info", &[]);
    // It answers pings, so that it is not taken for dead.
    while client.read().is_some() {}
    eventually("counted", || (cut(&daemon) == 1.0).then_some(()));
    eventually("no connection", || (daemon.status()["connections"] == 0).then_some(()));
    daemon.stop();
}

#[test]
fn one_answer_that_is_not_taken_does_not_end_the_others() {
    let daemon = Daemon::start(LIMITS);
    let mut client = Http2::connect(&daemon.socket(), 0);
    client.allow(0, 1 << 30);
    let held = client.request("GET", "/info", &[]);
    client.until(HEADERS, held);
    loop {
        let other = client.request("GET", "/info", &[]);
        client.allow(other, 1 << 20);
        let mut is_reset = false;
        loop {
            let frame = client.read().expect("the connection goes on");
            is_reset |= (frame.kind, frame.stream) == (RST_STREAM, held);
            if (frame.kind, frame.stream, frame.flags & END_STREAM) == (DATA, other, END_STREAM) {
                break;
            }
        }
        if is_reset {
            break;
        }
    }
    assert_eq!(cut(&daemon), 1.0);
    drop(client);
    daemon.stop();
}

#[test]
fn a_stream_whose_time_is_over_ends_though_nothing_of_it_is_taken() {
    let daemon = Daemon::start("");
    let mut client = Http2::connect(&daemon.socket(), 0);
    let more = [("content-type", "application/grpc"), ("grpc-timeout", "1S"), ("te", "trailers")];
    let stream = client.request("POST", "/tei.v1.Embed/EmbedStream", &more);
    // A message: not compressed, four bytes; the first field, two characters.
    client.write(&frame(DATA, 0, stream, b"\x00\x00\x00\x00\x04\x0a\x02w1"));
    let reset = client.until(RST_STREAM, stream);
    assert_eq!(reset.payload, 8_u32.to_be_bytes(), "CANCEL");
    let next = client.request("GET", "/livez", &[]);
    client.allow(next, 1 << 20);
    client.rest(next);
    assert_eq!(cut(&daemon), 0.0, "it is what the client wished");
    drop(client);
    daemon.stop();
}

/// A daemon with two places, and patience.
fn narrow() -> Daemon {
    Daemon::start("[limits]\nconnections_max = 2\ntransfer_stall_ms = 60000")
}

/// More come than there is room for.
fn crowd(daemon: &Daemon) {
    let mut newcomers = Vec::new();
    for _ in 0..3 {
        // The one before may have its answer in hand while its last write is being confirmed.
        newcomers.push(eventually("a place", || {
            let mut newcomer = daemon.connect();
            (newcomer.get("/livez").ok()?.status == 200).then_some(newcomer)
        }));
    }
}

#[test]
fn who_reads_slowly_keeps_its_place() {
    let daemon = narrow();
    let mut reader = unix(&daemon.socket()).expect("connects");
    let body = long_request();
    let head = "POST /tokenize HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    reader.write_all(request.as_bytes()).expect("writes");
    // The answer has been handed over once its first byte is there, but is far from written.
    reader.read_exact(&mut [0]).expect("begins");
    crowd(&daemon);
    let mut connection = Connection::over(reader);
    let answer = connection.read().expect("all of it");
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() > LONG_BYTES_MIN, "{}", answer.body.len());
    drop(connection);
    daemon.stop();
}

#[test]
fn who_reads_slowly_over_http2_keeps_its_place() {
    let daemon = narrow();
    let mut reader = Http2::connect(&daemon.socket(), 65_535);
    let json = [("content-type", "application/json")];
    let stream = reader.request("POST", "/tokenize", &json);
    for part in long_request().into_bytes().chunks(16_000) {
        reader.write(&frame(DATA, 0, stream, part));
    }
    reader.write(&frame(DATA, END_STREAM, stream, &[]));
    let first = reader.until(DATA, stream).payload.len();
    crowd(&daemon);
    for place in [0, stream] {
        reader.allow(place, 100 << 20);
    }
    let bytes = first + reader.rest(stream);
    assert!(bytes > LONG_BYTES_MIN, "{bytes}");
    drop(reader);
    daemon.stop();
}
