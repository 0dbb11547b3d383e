//! The two tasks beside a worker's process: one waits for its end, one passes its log on.

use std::collections::VecDeque;
use std::process::ExitStatus;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::{mpsc, oneshot};

use crate::dispatch::WorkerId;

/// Last lines of a worker's log that are kept for the report of its end.
const LAST_LINES: usize = 8;
/// A longer line of a worker's log is cut.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Owns the child: kills it when asked to and says how it ended.
pub(super) async fn reap(
    mut child: Child,
    mut kills: mpsc::Receiver<()>,
) -> std::io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => status,
        _ = kills.recv() => {
            // It may have exited by itself in the meantime.
            child.start_kill().ok();
            child.wait().await
        }
    }
}

/// Passes a worker's log on, line by line, and keeps the last lines for the report of its end.
pub(super) async fn forward_log(stderr: ChildStderr, id: WorkerId, done: oneshot::Sender<String>) {
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(length) if length > 0) {
            break;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::warn!(target: "forebay::worker", worker = id.slot, "{text}");
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text);
    }
    let log = Vec::from(last).join("\n");
    // Nobody may be waiting any more.
    done.send(log).ok();
}
