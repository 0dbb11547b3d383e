//! One connection: what drives it, and what comes on it that nobody asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::Stray;
use crate::sync::lock;

/// What the library says of bytes that came while nothing was asked; a test holds that down.
const UNASKED: &str = "unexpected message";
/// Strays that are kept in words between two looks.
const STRAYS_MAX: usize = 100;

/// What [`Connection::last`] holds before the first request.
const NO_REQUEST: u64 = u64::MAX;

/// A connection, which carries one request at a time.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// The number of the last request that went out on it.
    pub(super) last: Arc<AtomicU64>,
    /// What drives it.
    pub(super) task: tokio::task::AbortHandle,
}

/// Answers that nobody had asked for, by all connections of a server.
pub(super) type Strays = Arc<Mutex<VecDeque<Stray>>>;

/// Drives a connection until it ends, and notes if it ends because of an answer too many.
pub(super) async fn serve<S>(stream: TokioIo<S>, strays: Strays) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(stream).await.map_err(|error| error.to_string())?;
    let last = Arc::new(AtomicU64::new(NO_REQUEST));
    let asked = Arc::clone(&last);
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let text = error.to_string();
            // The library has no other name for bytes that came while nothing was asked.
            if text.contains(UNASKED) {
                let mut strays = lock(&strays);
                if strays.len() < STRAYS_MAX {
                    let last = asked.load(Ordering::Relaxed);
                    strays.push_back(Stray {
                        at: Instant::now(),
                        request: (last != NO_REQUEST).then_some(last),
                        why: "bytes of an answer came on its connection while nothing was asked"
                            .to_owned(),
                    });
                }
            }
        }
    });
    Ok(Connection { sender, last, task: task.abort_handle() })
}
