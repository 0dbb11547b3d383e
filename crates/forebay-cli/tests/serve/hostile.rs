//! Clients that mean harm, or are broken: each is cut off and counted, while somebody who behaves is
//! answered beside them, and nothing of them stays.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::client::{Connection, unix};
use super::daemon::Daemon;
use super::h2::frame;
use super::load::Load;
use crate::support::eventually;

/// Short times, so that a test that waits for them does not take long, and few places.
const LIMITS: &str = "
[limits]
connections_max = 40
connections_per_peer_max = 30
first_byte_ms = 2000
header_ms = 2000
idle_ms = 3000
transfer_stall_ms = 2000
body_bytes_max = 65536
resets_max = 20
";

/// A daemon under attack, with a load of good clients beside it, and what it had before.
struct Attacked {
    daemon: Daemon,
    load: Load,
    descriptors: usize,
    resident_bytes: u64,
}

/// What the daemon may occupy more after an attack than before it: allocators keep some of what
/// they were given back.
const RESIDENT_RISE_MAX: u64 = 64 << 20;

impl Attacked {
    fn start(settings: &str) -> Self {
        let daemon = Daemon::start(settings);
        let quiet = Load::start(&daemon);
        quiet.stop();
        eventually("no connection", || (daemon.status()["connections"] == 0).then_some(()));
        let descriptors = daemon.descriptors();
        let resident_bytes = daemon.resident_bytes();
        let load = Load::start(&daemon);
        Self { daemon, load, descriptors, resident_bytes }
    }

    fn cut(&self, reason: &str) -> f64 {
        self.daemon.metric("forebay_connections_cut_total", &format!("\"{reason}\""))
    }

    /// The good ones are answered still, and nothing is left of the others.
    fn survived(self) {
        self.load.more();
        self.load.stop();
        let daemon = self.daemon;
        eventually("no connection", || (daemon.status()["connections"] == 0).then_some(()));
        eventually("descriptors as before", || {
            (daemon.descriptors() <= self.descriptors).then_some(())
        });
        // The one that asks.
        let open = || daemon.metric("forebay_connections_open", "unix");
        eventually("nothing counted as open", || (open() == 1.0).then_some(()));
        let rise = daemon.resident_bytes().saturating_sub(self.resident_bytes);
        assert!(rise <= RESIDENT_RISE_MAX, "it occupies {rise} bytes more");
        daemon.stop();
    }
}

#[test]
fn who_says_nothing_or_stops_in_the_middle_is_cut_off() {
    let attacked = Attacked::start(LIMITS);
    let whole = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    for (first, bytes, reason) in [
        ("", "", "first_byte"),
        ("", "GET /livez HTTP/1.1\r\nx-slow: ", "header"),
        ("", "PRI * HT", "idle"),
        (whole, "", "idle"),
        (whole, "GET /li", "header"),
    ] {
        let before = attacked.cut(reason);
        let mut connection = attacked.daemon.connect();
        if !first.is_empty() {
            connection.write(first.as_bytes()).expect("writes");
            assert_eq!(connection.read().expect("answers").status, 200);
        }
        connection.write(bytes.as_bytes()).expect("writes");
        connection.until_closed();
        eventually(reason, || (attacked.cut(reason) > before).then_some(()));
    }
    attacked.survived();
}

#[test]
fn a_body_that_stands_still_is_answered_and_cut_off() {
    let attacked = Attacked::start(LIMITS);
    let mut connection = attacked.daemon.connect();
    let head = "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    connection.write(format!("{head}content-length: 50000\r\n\r\n{{").as_bytes()).expect("writes");
    assert_eq!(connection.read().expect("answers").status, 408);
    connection.until_closed();
    assert!(attacked.cut("body") >= 1.0);
    attacked.survived();
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let attacked = Attacked::start(LIMITS);
    let mut connection = attacked.daemon.connect();
    let head = "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    connection.write(format!("{head}content-length: 65537\r\n\r\n").as_bytes()).expect("writes");
    assert_eq!(connection.read().expect("answers").status, 413);
    // Without a length it is found out on the way.
    let mut connection = attacked.daemon.connect();
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000)).repeat(3);
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    // The rest may find the connection closed.
    connection.write(chunked.as_bytes()).ok();
    assert_eq!(connection.read().expect("answers").status, 413);
    let mut connection = attacked.daemon.connect();
    let header = format!("GET /livez HTTP/1.1\r\nx-large: {}\r\n\r\n", "a".repeat(100_000));
    connection.write(header.as_bytes()).ok();
    let answer = connection.until_closed();
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    let mut connection = attacked.daemon.connect();
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    connection.write(many.as_bytes()).ok();
    let answer = connection.until_closed();
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    eventually("counted", || (attacked.cut("protocol") >= 2.0).then_some(()));
    attacked.survived();
}

#[test]
fn garbage_behind_a_request_ends_the_connection_after_its_answer() {
    let attacked = Attacked::start(LIMITS);
    let mut connection = attacked.daemon.connect();
    let good = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    connection.write(format!("{good}\u{1}\u{2} garbage\r\n\r\n{good}").as_bytes()).expect("writes");
    assert_eq!(connection.read().expect("answers").status, 200);
    let rest = connection.until_closed();
    assert!(rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
    eventually("counted", || (attacked.cut("protocol") >= 1.0).then_some(()));
    attacked.survived();
}

#[test]
fn who_never_reads_is_cut_off() {
    let attacked = Attacked::start(LIMITS);
    let mut stream = unix(&attacked.daemon.socket()).expect("connects");
    let request = "GET /api-doc/openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50);
    // Until the daemon has had enough of it and closes.
    while stream.write_all(request.as_bytes()).is_ok() {}
    eventually("counted", || (attacked.cut("write") >= 1.0).then_some(()));
    drop(stream);
    attacked.survived();
}

/// Descriptors that this process may have open: as many as it may give itself, less what the other
/// tests need.
fn descriptors_free() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to its maximum");
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(current).unwrap_or(usize::MAX).saturating_sub(500)
}

#[test]
fn whoever_is_idle_makes_room_and_whoever_asks_is_answered() {
    let attacked = Attacked::start("[limits]\nconnections_max = 40\nconnections_per_peer_max = 30");
    let count = descriptors_free().min(10_000);
    assert!(count >= 300, "this process may open {count} connections only; raise its limit");
    let mut idle = Vec::new();
    for number in 0..count {
        let mut stream = unix(&attacked.daemon.socket())
            .expect("who connects is never refused while others do nothing");
        // Some say nothing, some begin to.
        if number % 3 == 0 {
            stream.write_all(b"POST /embed HTTP/1.1\r\nhost: ").ok();
        }
        idle.push(stream);
    }
    attacked.load.more();
    let connections = attacked.daemon.status()["connections"].as_u64().expect("a number");
    assert!(connections <= 30, "{connections}");
    assert!(attacked.cut("evicted") >= count as f64 - 100.0);
    let mut newcomer = attacked.daemon.connect();
    assert_eq!(newcomer.embed("w1").expect("answers").status, 200);
    // The first of them was given up for the others.
    match idle[0].read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("it is open still: {other:?}"),
    }
    drop((idle, newcomer));
    attacked.survived();
}

/// Sends bytes one by one, so slowly that they would take minutes, until the daemon has had enough.
fn drip(connection: &mut Connection, bytes: &[u8]) {
    for byte in bytes {
        if connection.write(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it took all of it");
}

#[test]
fn who_sends_byte_by_byte_is_cut_off() {
    let attacked = Attacked::start(LIMITS);
    let mut head = attacked.daemon.connect();
    head.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n").expect("writes");
    drip(&mut head, "x-slow: 1\r\n".repeat(1_000).as_bytes());
    eventually("counted", || (attacked.cut("header") >= 1.0).then_some(()));
    let mut body = attacked.daemon.connect();
    let start = "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    body.write(format!("{start}content-length: 50000\r\n\r\n").as_bytes()).expect("writes");
    drip(&mut body, " ".repeat(20_000).as_bytes());
    eventually("counted", || (attacked.cut("body") >= 1.0).then_some(()));
    drop((head, body));
    attacked.survived();
}

#[test]
fn who_closes_its_sending_half_stays_no_longer_than_for_an_answer() {
    let attacked = Attacked::start(LIMITS);
    for whole in [true, false] {
        let mut stream = unix(&attacked.daemon.socket()).expect("connects");
        let request = "GET /livez HTTP/1.1\r\nhost: a\r\n";
        stream.write_all(request.as_bytes()).expect("writes");
        if whole {
            stream.write_all(b"\r\n").expect("writes");
        }
        stream.shutdown(std::net::Shutdown::Write).expect("half of it");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it closes");
        // It counts as one that left, whose answer may still reach it.
        let is_right = answer.is_empty() || (whole && answer.starts_with(b"HTTP/1.1 200"));
        assert!(is_right, "{answer:?}");
    }
    attacked.survived();
}

#[test]
fn who_leaves_in_the_middle_of_everything_leaves_nothing() {
    let attacked = Attacked::start(LIMITS);
    let body = r#"{"inputs":"w1"}"#;
    let head = "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    for length in (1..=request.len()).cycle().take(1_000) {
        let mut stream = unix(&attacked.daemon.socket()).expect("connects");
        stream.write_all(&request.as_bytes()[..length]).expect("writes");
    }
    attacked.survived();
}

#[test]
fn streams_that_are_opened_and_reset_end_the_connection() {
    let attacked = Attacked::start(LIMITS);
    let mut stream = unix(&attacked.daemon.socket()).expect("connects");
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(4, 0, 0, &[]));
    stream.write_all(&opening).expect("writes");
    // POST (3), http (6), /embed (literal value of name 4), authority (1): the static table.
    let mut head = vec![0x83, 0x86, 0x04, 6];
    head.extend(b"/embed");
    head.extend([0x01, 1, b'a']);
    for number in 0..u32::MAX / 2 {
        let id = 2 * number + 1;
        let mut pair = frame(1, 4, id, &head);
        pair.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        // Until the daemon has had enough of it.
        if stream.write_all(&pair).is_err() {
            break;
        }
    }
    eventually("counted", || {
        (attacked.cut("protocol") + attacked.cut("resets") >= 1.0).then_some(())
    });
    drop(stream);
    attacked.survived();
}

#[test]
fn a_request_that_takes_too_long_is_answered() {
    let daemon = Daemon::start("[limits]\nrequest_ms = 200");
    let hold = daemon.model.hold();
    let mut connection = daemon.connect();
    let answer = connection.embed("w1").expect("answers");
    assert_eq!((answer.status, answer.header("x-embed-level")), (504, Some("cpu")));
    assert_eq!(answer.json()["error_type"], "Timeout");
    drop(hold);
    let again = || daemon.connect().embed("w1").expect("answers").status;
    eventually("an answer", || (again() == 200).then_some(()));
    drop(connection);
    daemon.stop();
}

#[test]
fn a_client_that_left_costs_nothing_more() {
    let daemon = Daemon::start("");
    let hold = daemon.model.hold();
    let mut connection = daemon.connect();
    connection
        .write(b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"inputs\":\"w1\"}")
        .expect("writes");
    let under_way = || daemon.status()["runtime"]["queues"][1]["under_way"].as_u64();
    eventually("the request", || (under_way() == Some(1)).then_some(()));
    drop(connection);
    eventually("no connection", || (daemon.status()["connections"] == 0).then_some(()));
    drop(hold);
    eventually("nothing under way", || (under_way() == Some(0)).then_some(()));
    let mut other = Connection::unix(&daemon.socket()).expect("connects");
    assert_eq!(other.embed("w2").expect("answers").status, 200);
    drop(other);
    daemon.stop();
}
