//! Bodies with bounds: what a client sends may be neither too long nor too slow, and what it is sent
//! tells when the request is over.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use forebay::config::LimitsConfig;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::alarm::Alarm;
use super::held::Held;
use super::pace::Pace;
use super::taking::Taking;

/// Why the body of a request could not be read to its end. Handlers find it as the source of what
/// axum reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than `limits.body_bytes_max`.
    #[error("request body is longer than {bytes_max} bytes; send less at once")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The bodies of all requests take `limits.body_bytes_under_way_max` already.
    #[error("there is no room for the request body now; send it a little later")]
    NoRoom,
    /// It stood still for longer than `limits.transfer_stall_ms`, or was too slow.
    #[error("request body did not arrive in time; send it faster")]
    TooSlow,
    /// The client broke off.
    #[error("request body ended early")]
    Broken,
    /// Nothing moved on a stream for longer than `limits.idle_ms` and `limits.request_ms`.
    #[error("nothing has moved on this stream for too long; end streams that are not used")]
    Idle,
    /// The daemon ends: what came before is answered.
    #[error("the daemon is about to end and takes nothing more; send the rest elsewhere")]
    Ending,
}

impl BodyError {
    /// The one among the reasons of another error.
    pub(crate) fn among<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// How the reading of a body came out, for whoever answers.
#[derive(Clone, Default)]
pub(crate) struct Fate(Arc<AtomicU8>);

impl Fate {
    const LARGE: u8 = 1;
    const SLOW: u8 = 2;
    const NO_ROOM: u8 = 3;

    /// It was longer than is allowed.
    pub(crate) fn is_too_large(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::LARGE
    }

    /// There was no room for it.
    pub(crate) fn had_no_room(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::NO_ROOM
    }

    /// It did not arrive in time.
    pub(crate) fn is_too_slow(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::SLOW
    }
}

/// Where a body is, and how much may be there.
struct Room {
    held: Arc<Held>,
    bytes_max: u64,
}

/// The body of a request, held to its limits.
pub(crate) struct LimitedBody {
    inner: Incoming,
    bytes_max: u64,
    left: u64,
    room: Room,
    pace: Pace,
    /// When it is given up, once it has been waited for.
    until: Option<Instant>,
    alarm: Alarm,
    fate: Fate,
}

impl LimitedBody {
    pub(crate) fn new(inner: Incoming, limits: &LimitsConfig, held: Arc<Held>, fate: Fate) -> Self {
        let bytes_max = u64::from(limits.body_bytes_max);
        let room = Room { held, bytes_max: u64::from(limits.body_bytes_under_way_max) };
        let pace = Pace::of(limits);
        Self {
            inner,
            bytes_max,
            left: bytes_max,
            room,
            pace,
            until: None,
            alarm: Alarm::default(),
            fate,
        }
    }

    fn too_large(&self) -> BodyError {
        self.fate.0.store(Fate::LARGE, Ordering::Release);
        BodyError::TooLarge { bytes_max: self.bytes_max }
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        // Announced length first: nothing of a body is read that cannot be taken.
        if this.inner.size_hint().lower() > this.left {
            return Poll::Ready(Some(Err(this.too_large())));
        }
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                match this.left.checked_sub(bytes as u64) {
                    Some(left) => this.left = left,
                    None => return Poll::Ready(Some(Err(this.too_large()))),
                }
                if !this.room.held.try_take(bytes as u64, this.room.bytes_max) {
                    this.fate.0.store(Fate::NO_ROOM, Ordering::Release);
                    return Poll::Ready(Some(Err(BodyError::NoRoom)));
                }
                if let Some(until) = &mut this.until {
                    *until = this.pace.after(*until, bytes, Instant::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyError::Broken))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let until = *this.until.get_or_insert_with(|| this.pace.begin(Instant::now()));
                match this.alarm.poll(until, context) {
                    Poll::Ready(()) => {
                        this.fate.0.store(Fate::SLOW, Ordering::Release);
                        Poll::Ready(Some(Err(BodyError::TooSlow)))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Bytes of an answer over HTTP/2 that are handed over at once: a frame of the usual size. What has
/// been handed over counts as answered, so it is to be less than a window.
const PART_BYTES_MAX: usize = 16 << 10;

/// The body of an answer, which keeps `G` until it has been handed over or given up.
pub(crate) struct GuardedBody<B, G> {
    inner: B,
    guard: G,
    /// How it is taken, over HTTP/2.
    taking: Option<Taking>,
    /// What is left of the part that `inner` gave last.
    rest: Bytes,
}

/// Hears that a body was handed over whole.
pub(crate) trait Complete {
    /// The last byte has been taken.
    fn complete(&mut self);
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl<B: Body<Data = Bytes> + Unpin, G: Complete> GuardedBody<B, G> {
    pub(crate) fn new(inner: B, mut guard: G, taking: Option<Taking>) -> Self {
        // Nobody polls a body that has nothing.
        if inner.is_end_stream() {
            guard.complete();
        }
        Self { inner, guard, taking, rest: Bytes::new() }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Polled<B::Error> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if self.taking.is_some() => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(PART_BYTES_MAX));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

impl<B, G> Body for GuardedBody<B, G>
where
    B: Body<Data = Bytes> + Unpin,
    G: Complete + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled<B::Error> {
        let this = &mut *self;
        if let Some(taking) = &mut this.taking {
            taking.taken();
        }
        let polled = this.poll_part(context);
        if let Some(taking) = &mut this.taking {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    taking.offer(frame.data_ref().map_or(0, Bytes::len));
                }
                _ => taking.wait(),
            }
        }
        let over = match &polled {
            Poll::Ready(None) => true,
            // With a known length the end is not asked for.
            Poll::Ready(Some(Ok(_))) => this.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if over {
            this.guard.complete();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
