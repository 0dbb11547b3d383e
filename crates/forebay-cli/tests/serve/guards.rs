//! Who is let in.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;

use sha2::{Digest, Sha256};

use super::client::Connection;
use super::daemon::Daemon;
use crate::support::{forebay_with_fake, output};

pub(crate) fn sum(key: &str) -> String {
    Sha256::digest(key).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    })
}

/// What answers without a key.
const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/health", "/ping"];

#[test]
fn without_a_key_nothing_is_shown_or_done() {
    let keys = format!("[auth]\nkey_hashes = ['{}', '{}']", sum("one"), sum("two"));
    let daemon = Daemon::start(&keys);
    let with_key = [("authorization", "Bearer two")];
    let document = daemon.connect().send("GET", "/api-doc/openapi.json", &with_key, "");
    let document = document.expect("answers").json();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 20, "{}", paths.len());
    for path in paths.keys().map(String::as_str).chain(["/nothing", "/metrics/", "//livez"]) {
        for method in ["GET", "POST", "PUT", "OPTIONS"] {
            for headers in [&[][..], &[("authorization", "Bearer three")]] {
                let answer = daemon.connect().send(method, path, headers, "");
                let answer = answer.expect("answers");
                let is_public = method == "GET" && PUBLIC.contains(&path);
                assert_eq!(answer.status, if is_public { 200 } else { 401 }, "{method} {path}");
                assert!(answer.header("x-request-id").is_some(), "{method} {path}");
                assert!(is_public || answer.header("www-authenticate") == Some("Bearer"));
                assert_eq!(answer.header("x-embed-level"), Some("cpu"), "{method} {path}");
                assert!(
                    is_public
                        || answer.json()["error"].is_object()
                        || answer.json()["error_type"] == "Validation"
                );
            }
        }
    }
    let id = [with_key[0], ("x-request-id", "mine-1")];
    let answer = daemon.connect().send("GET", "/info", &id, "").expect("answers");
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("mine-1")));
    let log = daemon.log();
    assert!(!log.contains("Bearer") && !log.contains(&sum("two")[..8]), "{log}");
    daemon.stop();
}

#[test]
fn an_address_that_others_reach_needs_keys_or_certificates() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let mut command = forebay_with_fake(&["serve", "--listen", address, "--model", "/nowhere"]);
        let output = output(&mut command);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(
            error.contains("refusing to listen") && error.contains("auth.key_hashes"),
            "{error}"
        );
    }
}

#[test]
fn names_of_others_are_refused_on_tcp() {
    let daemon = Daemon::start_tcp("");
    let address = daemon.tcp_address();
    let send = |path: &str, headers: &[(&str, &str)]| {
        let mut connection = Connection::tcp(&address).expect("connects");
        connection.send("GET", path, headers, "").expect("answers")
    };
    assert_eq!(send("/info", &[("host", &address)]).status, 200);
    let rebound = [("host", "rebound.example")];
    let foreign = [("host", "localhost"), ("origin", "http://evil.example")];
    for (headers, status, code) in
        [(&rebound[..], 421, "host_not_allowed"), (&foreign, 403, "origin_not_allowed")]
    {
        for path in ["/info", "/embeddings", "/v1/models", "/api/v1/status"] {
            let answer = send(path, headers);
            assert_eq!((answer.status, answer.header("x-embed-level")), (status, Some("cpu")));
            let body = answer.json();
            match path {
                "/info" => assert_eq!(body["error_type"], "Validation", "{body}"),
                _ => assert_eq!(body["error"]["code"], code, "{path}: {body}"),
            }
        }
    }
    let preflight = Connection::tcp(&address).expect("connects").send("OPTIONS", "/embed", &[], "");
    let preflight = preflight.expect("answers");
    assert!(preflight.headers.iter().all(|(name, _)| !name.starts_with("access-control")));
    daemon.stop();
}

#[test]
fn sockets_have_their_modes_and_their_users() {
    let own = rustix::process::geteuid().as_raw();
    let daemon = Daemon::start(&format!("[auth]\nusers_allowed = ['{own}']"));
    let mode = |path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!((mode(daemon.socket()), mode(daemon.admin_socket())), (0o660, 0o600));
    assert_eq!(daemon.connect().get("/info").expect("answers").status, 200);
    daemon.stop();
    let other = own.wrapping_add(1);
    let daemon = Daemon::start(&format!("[auth]\nusers_allowed = ['{other}']"));
    daemon.connect().get("/livez").expect_err("it is turned away");
    assert_eq!(daemon.status()["connections"], 0);
    daemon.stop();
}

#[test]
fn the_operator_is_told_what_is_wrong() {
    let daemon = Daemon::start("");
    for (path, body, status) in [
        ("/pin", r#"{"level": "cpu"}"#, 200),
        ("/pin", r#"{"level": null}"#, 200),
        ("/pin", r#"{"level": "high"}"#, 400),
        ("/pin", r#"{"level": "down"}"#, 409),
        ("/release", r#"{"device": "cuda:7"}"#, 404),
        ("/release", r#"{"device": "cpu"}"#, 200),
        ("/faults", r#"{"device": "cpu", "fault": "kill"}"#, 403),
        ("/faults", r#"{"fault": "no-such-fault"}"#, 400),
        ("/pin", "{", 400),
    ] {
        let answer = daemon.admin("POST", path, body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
    }
    daemon.stop();
}
