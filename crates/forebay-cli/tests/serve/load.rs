//! Clients that keep asking, each on its own connection, and compare every answer.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::client::{Connection, vector};
use super::daemon::Daemon;
use crate::support::eventually;
use crate::support::tiny::{expected, text};

/// Callers at once.
const CALLERS: usize = 4;

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Callers that go on until the daemon has gone or they are told to stop.
    pub(crate) fn start(daemon: &Daemon) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let caller = |nth| {
            let (socket, stop, answered) =
                (daemon.socket(), Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || call(&socket, nth, &stop, &answered))
        };
        let callers = (0..CALLERS).map(caller).collect();
        let load = Self { stop, answered, callers };
        load.more();
        load
    }

    /// Waits for many more right answers.
    pub(crate) fn more(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let more = || self.answered.load(Ordering::Relaxed) - before;
        eventually("answers", || (more() >= 100).then_some(()));
    }

    /// Waits until every caller has found the daemon gone; each of their requests was answered.
    pub(crate) fn ended(self) {
        for caller in self.callers {
            caller.join().expect("every request was answered");
        }
    }

    /// Tells the callers to stop; each of their requests was answered.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ended();
    }
}

/// One caller. A connection that the daemon had announced to close, or one that was open for long
/// and closed between two requests, is replaced, as clients of HTTP do; a request on a new
/// connection must be answered.
fn call(socket: &Path, nth: usize, stop: &AtomicBool, answered: &AtomicU64) {
    let mut number = nth;
    let mut kept: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        let is_new = kept.is_none();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match Connection::unix(socket) {
                Ok(connection) => connection,
                // Nobody listens any more.
                Err(error) => {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
                        "{error}"
                    );
                    return;
                }
            },
        };
        let text = text(number);
        let answer = match connection.embed(&text) {
            Ok(answer) => answer,
            Err(error) if is_new => panic!("a request was not answered: {error}"),
            Err(_) => continue,
        };
        assert_eq!(vector(&answer), expected(&text), "wrong vector for {text:?}");
        answered.fetch_add(1, Ordering::Relaxed);
        number += CALLERS;
        if answer.header("connection") != Some("close") {
            kept = Some(connection);
        }
    }
}
