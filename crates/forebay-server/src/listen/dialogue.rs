//! Requests that last: the client goes on sending while it is answered, for as long as both like.
//!
//! Neither a length nor a time is set to the whole of it. What bounds it is that something moves:
//! where nothing has come in and nothing gone out for the longest that a request may take or a
//! connection may be idle, whichever is longer, or bytes come in more slowly than is put up with, it
//! ends. When the daemon drains, nothing more is taken after the notice.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::config::LimitsConfig;
use http_body::{Body, Frame, SizeHint};

use super::alarm::Alarm;
use super::body::BodyError;
use super::pace::Pace;

/// What both sides of it are held to.
pub(super) fn pace(limits: &LimitsConfig) -> Pace {
    let quiet_ms = limits.idle_ms.max(limits.request_ms);
    Pace::of(limits).with_pause(Duration::from_millis(quiet_ms.into()))
}

/// When a part of the answer last went out. Clones are the same.
#[derive(Clone)]
pub(crate) struct Answered {
    began: Instant,
    micros: Arc<AtomicU64>,
}

impl Answered {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, micros: Arc::default() }
    }

    fn note(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.began).as_micros();
        self.micros.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_micros(self.micros.load(Ordering::Acquire))
    }
}

/// What the client sends of such a request.
pub(crate) struct DialogueBody<B> {
    inner: B,
    pace: Pace,
    until: Instant,
    alarm: Alarm,
    answered: Answered,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
}

impl<B> DialogueBody<B> {
    /// `ending` comes when nothing more is to be taken.
    pub(crate) fn new(
        inner: B,
        limits: &LimitsConfig,
        answered: Answered,
        ending: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let pace = pace(limits);
        let until = pace.begin(answered.began);
        let ending = Box::pin(ending);
        Self { inner, pace, until, alarm: Alarm::default(), answered, ending, is_over: false }
    }

    /// Whether nothing has moved for too long.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.until = self.until.max(self.pace.begin(self.answered.last()));
        self.alarm.poll(self.until, context)
    }

    fn end(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.is_over = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl<B> Body for DialogueBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.until = this.pace.after(this.until, bytes, Instant::now());
                if this.ending.as_mut().poll(context).is_ready() {
                    return this.end(BodyError::Ending);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => this.end(BodyError::Broken),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                if this.ending.as_mut().poll(context).is_ready() {
                    return this.end(BodyError::Ending);
                }
                match this.poll_idle(context) {
                    Poll::Ready(()) => this.end(BodyError::Idle),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What the daemon answers to it: every part that goes out is noted.
pub(crate) struct DialogueAnswer<B> {
    pub(crate) inner: B,
    pub(crate) answered: Answered,
}

impl<B: Body + Unpin> Body for DialogueAnswer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if polled.is_ready() {
            self.answered.note(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::{pending, ready};
    use std::task::Waker;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Gives what it has, and waits for more.
    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let part = self.0.pop_front();
            part.map_or(Poll::Pending, |part| Poll::Ready(Some(Ok(Frame::data(part)))))
        }
    }

    /// One that began 100 seconds ago and may be quiet for 60.
    fn old(
        parts: &[usize],
        ending: impl Future<Output = ()> + Send + 'static,
    ) -> DialogueBody<Parts> {
        let limits =
            LimitsConfig { idle_ms: 60_000, request_ms: 30_000, ..LimitsConfig::default() };
        let began = Instant::now().checked_sub(100 * SECOND).expect("a clock that has run");
        let parts = parts.iter().map(|bytes| vec![0; *bytes].into()).collect();
        DialogueBody::new(Parts(parts), &limits, Answered::new(began), ending)
    }

    fn poll(body: &mut DialogueBody<Parts>) -> Poll<Option<Result<usize, BodyError>>> {
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        polled.map_ok(|frame| frame.data_ref().map_or(0, Bytes::len))
    }

    #[tokio::test]
    async fn it_lasts_for_as_long_as_something_moves() {
        assert_eq!(poll(&mut old(&[], pending())), Poll::Ready(Some(Err(BodyError::Idle))));
        let mut answered = old(&[], pending());
        answered.answered.note(Instant::now());
        assert_eq!(poll(&mut answered), Poll::Pending);
        let mut fed = old(&[1 << 20], pending());
        assert_eq!(poll(&mut fed), Poll::Ready(Some(Ok(1 << 20))));
        assert_eq!(poll(&mut fed), Poll::Pending);
    }

    #[tokio::test]
    async fn who_sends_too_little_is_not_kept() {
        // A byte at a time earns nothing to speak of.
        let mut slow = old(&[1], pending());
        slow.until = Instant::now();
        assert_eq!(poll(&mut slow), Poll::Ready(Some(Ok(1))));
        assert!(slow.until < Instant::now() + SECOND);
    }

    #[tokio::test]
    async fn at_the_end_nothing_more_is_taken() {
        let mut body = old(&[5, 6], ready(()));
        assert_eq!(poll(&mut body), Poll::Ready(Some(Err(BodyError::Ending))));
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }
}
