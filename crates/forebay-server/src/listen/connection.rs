//! The life of one connection: TLS if there is any, then HTTP/1 or HTTP/2, whichever it speaks, until
//! it ends, runs out of time, is cut off, or the daemon drains.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::alarm::Alarm;
use super::body::GuardedBody;
use super::handler::{Came, Handler, UnderWay};
use super::metrics::{ConnectionMetrics, Cut, Turned};
use super::pace::Pace;
use super::standing::{Standing, Times};
use super::stream::WatchedStream;
use super::taking::StreamTasks;
use crate::policy::Policy;

/// Headers that hyper has room for without asking for memory.
const HEADERS_WITHOUT_MEMORY: u32 = 100;

/// What a connection is served with.
pub(crate) struct Visit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) came: Came,
    pub(crate) router: Router,
}

impl Visit {
    /// Serves a stream to its end.
    pub(crate) async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let metrics = ConnectionMetrics::get();
        let listener = self.came.listener;
        metrics.opened(listener);
        if let Some(cut) = self.converse(stream).await {
            tracing::debug!(reason = ?cut, "connection cut off");
            metrics.cut(cut);
        }
        metrics.closed(listener);
    }

    /// The TLS handshake first, within its time.
    pub(crate) async fn serve_tls<S>(self, acceptor: TlsAcceptor, stream: S, time: Duration)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let cut = Arc::clone(&self.standing);
        let cut = std::future::poll_fn(|context| match cut.poll_cut(context.waker()) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        });
        let metrics = ConnectionMetrics::get();
        let stream = tokio::select! {
            reason = cut => return metrics.cut(reason),
            done = tokio::time::timeout(time, acceptor.accept(stream)) => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return metrics.turned(Turned::Tls);
                }
                Err(_) => return metrics.turned(Turned::TlsTime),
            },
        };
        self.standing.begin_silence(Instant::now());
        self.serve(stream).await;
    }

    async fn converse<S>(self, stream: S) -> Option<Cut>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { shared, policy, standing, came, router } = self;
        let limits = &policy.limits;
        let stream = WatchedStream::new(stream, Arc::clone(&standing), Pace::of(limits));
        let mut builder = auto::Builder::new(StreamTasks(Arc::clone(&standing)));
        // Heads and pauses between them are timed by `Standing`, which knows one from the other.
        let mut http1 = builder.http1();
        http1.timer(TokioTimer::new()).header_read_timeout(None);
        http1.max_buf_size(limits.header_bytes_max as usize);
        if limits.headers_max != HEADERS_WITHOUT_MEMORY {
            http1.max_headers(limits.headers_max as usize);
        }
        let ping = Duration::from_millis(limits.h2_ping_ms.into());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams_max)
            .initial_stream_window_size(limits.h2_stream_bytes_unread_max)
            .initial_connection_window_size(limits.h2_bytes_unread_max)
            .max_pending_accept_reset_streams(limits.resets_max as usize)
            .max_local_error_reset_streams(limits.resets_max as usize)
            .max_header_list_size(limits.header_bytes_max)
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping);
        let times = Times::of(limits);
        let handler = Handler { shared, standing: Arc::clone(&standing), came, router };
        let connection = builder.serve_connection(TokioIo::new(stream), handler);
        let connection = std::pin::pin!(connection);
        Watched { connection, standing, times, alarm: Alarm::default(), told: false }.await
    }
}

type Served<'a, S> = auto::Connection<'a, TokioIo<WatchedStream<S>>, Handler, StreamTasks>;

/// A connection with everything that may end it. All of it is polled by the connection's own task,
/// so whatever it does is seen at once.
struct Watched<'p, 'a, S> {
    connection: Pin<&'p mut Served<'a, S>>,
    standing: Arc<Standing>,
    times: Times,
    alarm: Alarm,
    /// Whether it has been told to end after what is under way.
    told: bool,
}

impl<S> Future for Watched<'_, '_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    GuardedBody<Body, UnderWay>: http_body::Body,
{
    /// Why it was cut off; `None` if it ended by itself.
    type Output = Option<Cut>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Cut>> {
        let this = &mut *self;
        if let Poll::Ready(served) = this.connection.as_mut().poll(context) {
            let cut = this.standing.poll_cut(context.waker());
            return Poll::Ready(cut.or_else(|| served.err().and_then(|error| blame(&*error))));
        }
        if let Some(cut) = this.standing.poll_cut(context.waker()) {
            return Poll::Ready(Some(cut));
        }
        if !this.told && this.standing.is_closing() && this.standing.has_read() {
            this.told = true;
            this.connection.as_mut().graceful_shutdown();
            // It may have nothing left to do, which it says only when it is asked.
            context.waker().wake_by_ref();
        }
        let Some((deadline, cut)) = this.standing.deadline(&this.times) else {
            this.alarm.silence();
            return Poll::Pending;
        };
        this.alarm.poll(deadline, context).map(|()| Some(cut))
    }
}

/// Whether a connection that failed did so by a fault of the client's.
fn blame(error: &(dyn Error + Send + Sync + 'static)) -> Option<Cut> {
    let hyper = error.downcast_ref::<hyper::Error>()?;
    if hyper.is_parse() || hyper.is_parse_too_large() {
        return Some(Cut::Protocol);
    }
    if hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed() {
        return None;
    }
    // What is neither an end of the stream nor of the socket is a breach of HTTP/2.
    let mut source = hyper.source();
    while let Some(error) = source {
        if error.is::<io::Error>() {
            return None;
        }
        source = error.source();
    }
    hyper.source().map(|_| Cut::Protocol)
}
