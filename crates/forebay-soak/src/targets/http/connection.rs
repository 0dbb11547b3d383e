//! One connection, of HTTP/1.1 or of HTTP/2 for gRPC: what drives it, and what comes on it that nobody
//! asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

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
    pub(super) sender: Sender,
    /// The number of the last request that went out on it.
    pub(super) last: Arc<AtomicU64>,
    /// What drives it.
    pub(super) task: tokio::task::AbortHandle,
}

/// What takes the requests.
pub(super) enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    /// Whether it can take one at once.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Waits until it can take one.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Sends one; gives it back if the connection had ended before.
    pub(super) async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Answers that nobody had asked for, by all connections of a server.
pub(super) type Strays = Arc<Mutex<VecDeque<Stray>>>;

/// A connection over this stream, for gRPC or for HTTP/1.1.
pub(super) async fn drive<S>(
    stream: TokioIo<S>,
    grpc: bool,
    strays: Strays,
) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    match grpc {
        true => drive_http2(stream).await,
        false => drive_http1(stream, strays).await,
    }
}

/// Drives a connection of HTTP/2, which has no room for an answer too many.
async fn drive_http2<S>(stream: TokioIo<S>) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let opened = http2::handshake(TokioExecutor::new(), stream).await;
    let (sender, connection) = opened.map_err(|error| error.to_string())?;
    // How it ends is seen by the request on it.
    let task = tokio::spawn(async move { connection.await.unwrap_or_default() });
    let last = Arc::new(AtomicU64::new(NO_REQUEST));
    Ok(Connection { sender: Sender::Http2(sender), last, task: task.abort_handle() })
}

/// Drives a connection until it ends, and notes if it ends because of an answer too many.
async fn drive_http1<S>(stream: TokioIo<S>, strays: Strays) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
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
    Ok(Connection { sender: Sender::Http1(sender), last, task: task.abort_handle() })
}
