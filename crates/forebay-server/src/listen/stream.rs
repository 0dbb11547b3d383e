//! A byte stream that notes what arrives, and that fails if the other end does not read what is
//! written to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::alarm::Alarm;
use super::metrics::Cut;
use super::pace::Pace;
use super::standing::Standing;

/// The stream of one connection.
pub(crate) struct WatchedStream<S> {
    inner: S,
    standing: Arc<Standing>,
    pace: Pace,
    /// When a write that could not be completed at once is given up.
    until: Option<Instant>,
    alarm: Alarm,
}

impl<S> WatchedStream<S> {
    pub(crate) fn new(inner: S, standing: Arc<Standing>, pace: Pace) -> Self {
        Self { inner, standing, pace, until: None, alarm: Alarm::default() }
    }

    /// `polled` unless it has been pending for too long.
    fn hold_to_pace<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        written: impl Fn(&T) -> Option<usize>,
    ) -> Poll<io::Result<T>> {
        match &polled {
            Poll::Ready(Ok(done)) => match (written(done), &mut self.until) {
                (Some(bytes), Some(until)) => {
                    *until = self.pace.after(*until, bytes, Instant::now());
                }
                // All is flushed: the next write begins anew.
                (None, until) => {
                    *until = None;
                    self.alarm.silence();
                    self.standing.written(Instant::now());
                }
                (Some(_), None) => {}
            },
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let until = *self.until.get_or_insert_with(|| self.pace.begin(Instant::now()));
                if self.alarm.poll(until, context).is_ready() {
                    self.standing.cut(Cut::Write);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(bytes) = buffer.filled().get(before..) {
            self.standing.read(bytes, Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.hold_to_pace(context, polled, |bytes| Some(*bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.hold_to_pace(context, polled, |bytes| Some(*bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.hold_to_pace(context, polled, |()| None)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.hold_to_pace(context, polled, |()| None)
    }
}
