//! `forebay top` against the real daemon: as plain text, and on a terminal while the daemon goes and
//! another comes.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "serve/client.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod client;
#[path = "serve/daemon.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod daemon;
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use daemon::Daemon;
use sha2::{Digest, Sha256};
use support::{FOREBAY, eventually, exit_code, forebay, output};

/// What it printed, and its exit code.
fn once(arguments: &[&str]) -> (String, String, Option<i32>) {
    let said =
        output(&mut forebay(&[&["top", "--once", "--interval-ms", "100"], arguments].concat()));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(said.stdout), text(said.stderr), said.status.code())
}

#[test]
fn a_daemon_is_shown_once_as_text() {
    let daemon = Daemon::start("");
    for nth in 0..7 {
        daemon.connect().embed(&format!("text {nth}")).expect("answers");
    }
    let socket = daemon.socket().display().to_string();
    let (said, _, code) = once(&["--socket", &socket]);
    assert_eq!(code, Some(0));
    for part in
        ["level cpu (nominal)  ready", "DEVICE", "serving", "interactive 0/", "level down to cpu"]
    {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(said.contains(&format!("unix:{socket}")) && !said.contains('\u{1b}'), "{said}");
    // Without a terminal there is nothing to renew.
    let piped = output(&mut forebay(&["top", "--socket", &socket, "--interval-ms", "100"]));
    assert_eq!(piped.status.code(), Some(0));
    daemon.stop();
    let (said, error, code) = once(&["--socket", &socket]);
    assert_eq!((said.as_str(), code), ("", Some(69)));
    assert!(error.contains("cannot connect") && error.contains("help: "), "{error}");
}

#[test]
fn a_key_is_taken_from_its_file_and_asked_for() {
    let key = "0123456789abcdef";
    let sum: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    let daemon = Daemon::start_tcp(&format!("[auth]\nkey_hashes = ['{sum}']\n"));
    let url = format!("http://{}", daemon.tcp_address());
    let (_, error, code) = once(&["--url", &url]);
    assert_eq!(code, Some(69));
    assert!(error.contains("--key-file"), "{error}");
    let file = daemon.folder.path().join("key");
    std::fs::write(&file, format!("{key}\n")).expect("writes");
    let (said, error, code) = once(&["--url", &url, "--key-file", &file.display().to_string()]);
    assert_eq!(code, Some(0), "{error}");
    assert!(said.contains(&url) && !said.contains(key), "{said}");
    daemon.stop();
}

/// The program on a terminal of its own, which `script` makes, and everything that it has written.
struct OnTerminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    fn start(socket: &str) -> Self {
        let top = format!("exec {FOREBAY} top --socket {socket} --interval-ms 100");
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("stty rows 40 cols 130; {top}"), "/dev/null"]);
        command.env("TERM", "xterm").env_remove("FOREBAY_CONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("`script` of util-linux is there");
        let mut stdout = child.stdout.take().expect("piped");
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let heard = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                heard.lock().expect("sound").extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, written }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("sound")).into_owned()
    }

    /// Waits until it writes this, and forgets what it has written until then.
    fn shows(&self, wanted: &str) {
        eventually(wanted, || {
            let mut written = self.written.lock().expect("sound");
            let place = written.windows(wanted.len()).position(|part| part == wanted.as_bytes())?;
            written.drain(..place + wanted.len());
            Some(())
        });
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Most often it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn on_a_terminal_it_waits_for_a_daemon_that_has_gone_and_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("now.sock");
    let point_to = |daemon: &Daemon| {
        std::fs::remove_file(&socket).ok();
        std::os::unix::fs::symlink(daemon.socket(), &socket).expect("a link");
    };
    let first = Daemon::start("");
    point_to(&first);
    let mut top = OnTerminal::start(&socket.display().to_string());
    // The other screen, with the cursor hidden.
    top.shows("\u{1b}[?1049h");
    top.shows("serving");
    first.stop();
    top.shows("gone");
    let second = Daemon::start("");
    point_to(&second);
    // The line that said so is blank again, and the tables are back in its place.
    top.shows("DEVICE");
    let keys = top.child.stdin.as_mut().expect("piped");
    keys.write_all(b"q").and_then(|()| keys.flush()).expect("takes keys");
    assert_eq!(exit_code(&mut top.child), Some(0), "{}", top.text());
    eventually("the terminal as it was", || top.text().contains("\u{1b}[?1049l").then_some(()));
    assert!(top.text().contains("\u{1b}[?25h"), "the cursor stays hidden");
    second.stop();
}
